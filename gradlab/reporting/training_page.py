"""The page of a training run, or of several side by side: verdict, curves, settings, events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab import figures
from gradlab.figures.training import stacked
from gradlab.reporting import shell
from gradlab.reporting.page import (
    NOWHERE,
    Page,
    PageSource,
    Panel,
    Section,
    folded,
    method,
    panel,
    side_by_side,
)
from gradlab.runs.training import measured_weights, pairs, results
from gradlab.runs.training.results import GOALS, Training
from gradlab.verdicts.training import screen
from gradlab.wording import duration, listed

_Runs = Mapping[str, Training]
_LEARNING, _GRADIENT = "Does it learn?", "Gradients and critic"
_WEIGHTS = "Weights through training: rule and measured"
_ERRORS = "Errors of the gradient and of the learned model"
_UPDATES = {
    "policy_norm": "Norm of the policy gradient, before clipping",
    "critic_norm": "Norm of the critic's gradient, before clipping",
    "critic_loss": "Critic loss [scaled reward²]",
}
_VALUED = {"return": "Return", "value": "Critic's value [scaled reward]", "gain": "Gain"}


def panels(runs: _Runs) -> list[Panel]:
    """Returns first, then what the policy reaches, then what drives it."""
    rows, first = results.table(runs), next(iter(runs.values()))
    names = first.config.get("state_names") or [f"s{k}" for k in range(first.rms.shape[2])]
    states = {f"rms {k}": f"Root mean square of {name}" for k, name in enumerate(names)}
    shown: dict[str, Any] = {"goals": GOALS.get(first.task, ())}
    shown |= {"best": pairs.ranked(runs)[0]} if len(runs) > 1 else {}

    def stack(name: str, section: str, of: Mapping[str, str], caption: str) -> Panel:
        return Panel(name, section, caption, partial(stacked, table=rows, shown=of), rows)

    return [
        panel("returns", _LEARNING, "Undiscounted.", figures.returns, rows, **shown),
        stack("value", _LEARNING, _VALUED, "A critic that rises while the return falls misleads."),
        panel("returns-time", _LEARNING, "Undiscounted.", figures.returns, rows, over="seconds",
              **shown),
        stack("tracking", "What the policy does with the state", states,
              "Over all states of the evaluation."),
        *(_weights(first, rows) if len(runs) == 1 < len(first.horizons) else ()),
        *_errors(runs, rows),
        stack("updates", _GRADIENT, _UPDATES, ""),
        panel("update-times", "What it costs", "By the longest rollout that was made.",
              figures.update_times, results.times(runs)),
    ]  # fmt: skip


def _weights(run: Training, rows: pd.DataFrame) -> Iterator[Panel]:
    """What measurements put in force, beside the rule, and what it was worth."""
    if run.weights:
        of = measured_weights.table(run)
        rule, judged = "Others are followed where shown to be better.", "On starts of its own."
        yield panel("weights-rule", _WEIGHTS, rule, figures.weights_against_rule, of)
        yield panel("weights-error", _WEIGHTS, judged, figures.error_over_rule, of)
    yield panel("weights", _GRADIENT, "Mean of the seeds.", figures.mixture_weights, rows)


def _errors(runs: _Runs, rows: pd.DataFrame) -> Iterator[Panel]:
    """The error of the gradient that is followed, and of the models that are learned."""
    curve, first = figures.training_curve, next(iter(runs.values()))
    found = [run.gradients for run in runs.values() if run.gradients]
    at = {int(each["horizon"][-1]) for each in found}
    where = f"h = {at.pop()}" if len(at) == 1 else "the longest horizon"
    for start, whose, against in (
        ("", "", "Against the simulator's own gradient."),
        ("dynamics_", ", the model's part", "Against the same estimator on the simulator."),
    ):
        if not any(not start or np.isfinite(each["dynamics_mse"]).any() for each in found):
            continue
        title = f"of the gradient at {where}{whose}"
        if len(runs) == 1:
            yield panel(f"gradient-{start}parts", _ERRORS, against, figures.gradient_errors, rows,
                        start=start, batch=first.samples, title=f"Error {title}")  # fmt: skip
        yield panel(f"gradient-{start}relative", _ERRORS, against, curve, rows,
                    name=f"gradient {start}relative_mse", title=f"Relative MSE {title}",
                    unit="MSE / true gradient²")  # fmt: skip
    roles = [run.config.get("model_losses", ()) for run in runs.values()]
    for role in dict.fromkeys(name for each in roles for name in each):
        of = " for Jacobians" if role == "gradient" else ""
        yield panel(f"model-{role}", _ERRORS, "One step, after every fit.", curve, rows,
                    name=f"{role} unexplained", title=f"Held-out error of the learned model{of}",
                    unit="share of variance not explained")  # fmt: skip


def page(run: Training, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of one training run shows."""
    return several({run.name: run}, f"{run.name} on {run.task}", source)


def of_files(paths: Sequence[str | Path]) -> tuple[Page, pd.DataFrame]:
    """The page of several runs of one task, and the table of their differences from the first."""
    runs = results.loaded(paths)
    names = listed(list(runs), 2) if len(runs) <= 2 else f"{len(runs)} runs"
    return several(runs, f"{names} on {next(iter(runs.values())).task}"), pairs.table(runs)


def several(runs: _Runs, title: str, source: PageSource = NOWHERE) -> Page:
    """What the page of training runs side by side shows."""
    drawn, question = tuple(panels(runs)), "Does it learn, and how fast?"
    made = {
        name: {
            **run.config["algorithm"], **run.config["settings"], **run.environment,
            "command": run.attributes.get("command", ""),
        }
        for name, run in runs.items()
    }  # fmt: skip
    if len(runs) == 1:
        (run,) = runs.values()
        columns = {"Algorithm": run.config["algorithm"], "Settings": run.config["settings"]}
        columns["Versions and machine"] = run.environment
        how = method(run.attributes.get("command", ""), columns)
    else:
        how = side_by_side("How they were trained", made)
    tables = {"Paired over seeds": pairs.table(runs), "Every seed": _seeds(runs), **_lags(runs)}
    sections = (
        *folded("Figures", drawn),
        *(Section(each, body=shell.folded(each, x)) for each, x in tables.items() if len(x)),
        how,
    )
    return Page(title, question, _facts(runs), screen(runs), drawn, sections, source)


def _facts(runs: _Runs) -> dict[str, object]:
    def given(run: Training) -> str:
        digests = run.config.get("given_networks", {})
        return " and ".join(f"{role} {digest[:12]}" for role, digest in digests.items()) or "fresh"

    every = [
        {
            "task": run.task, "algorithm": run.name, "seeds": len(run.seeds),
            "iterations": f"{int(run.iteration[-1]):,}", "networks": given(run),
            "precision": run.config["settings"]["precision"],
            "wall time": duration(float(run.seconds[-1])),
        }
        for run in runs.values()
    ]  # fmt: skip
    return {name: ", ".join(dict.fromkeys(str(x[name]) for x in every)) for name in every[0]}


def _seeds(runs: _Runs) -> pd.DataFrame:
    """Final return of every seed, and the iteration at which it reached each goal."""
    found = []
    for name, run in runs.items():
        last = {"final return": run.returns, "standard error": run.errors, "ends": run.ends}
        rows = {"run": name, "seed": run.seeds, **{key: x[-1] for key, x in last.items()}}
        for goal in GOALS.get(run.task, ()):
            rows[f"iterations to {goal:g}"] = results.first_reached(run, goal)
        found.append(pd.DataFrame(rows))
    return pd.concat(found)


def _lags(runs: _Runs) -> dict[str, pd.DataFrame]:
    """Shares of gradients by their age, and what each process did; nothing of a run in one."""
    lags, work = [], []
    for name, rows in ((name, run.asynchrony) for name, run in runs.items() if run.asynchrony):
        counts = {of: rows[f"{of}_lag"].sum(axis=0) for of in ("policy", "critic")}
        shares = {of: each / max(each.sum(), 1) for of, each in counts.items()}
        lags.append(pd.DataFrame({"run": name, "lag": np.arange(len(counts["policy"])), **shares}))
        done = {"gradients": rows["learner_gradients"], "steps": rows["actor_steps"]}
        for what, each in done.items():
            total = each.sum(axis=0)
            process = [f"{'learner' if what == 'gradients' else 'actor'} {k}" for k in
                       range(len(total))]  # fmt: skip
            work.append(pd.DataFrame({"run": name, "process": process, what: total}))
    found = {"How old gradients were": lags, "What processes did": work}
    return {title: pd.concat(each) for title, each in found.items() if each}
