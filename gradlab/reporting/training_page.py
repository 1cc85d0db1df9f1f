"""The page of a training run, or of several side by side: verdict, curves, settings, events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab import figures
from gradlab.figures.multiples import Over, best_first, several_quantities, several_returns
from gradlab.reporting import shell
from gradlab.reporting.page import NOWHERE, Page, PageSource, Panel, Section, folded, method, panel
from gradlab.runs.training import measured_weights, pairs, results
from gradlab.runs.training.results import GOALS, Training
from gradlab.verdicts.training import screen
from gradlab.wording import duration, listed, signed

_Runs = Mapping[str, Training]
_LEARNING, _GRADIENT = "Does it learn?", "Gradients and critic"
_WEIGHTS = "Weights through training: rule and measured"
_ERRORS = "Errors of the gradient and of the learned model"
_UPDATES = {
    "policy_norm": "norm of the policy gradient",
    "critic_norm": "norm of the critic's gradient",
    "critic_loss": "critic loss [scaled reward²]",
}
_VALUED = {
    "return": "return [reward]",
    "value": "critic's value [scaled reward]",
    "gain": "gain [reward]",
}


def panels(runs: _Runs) -> list[Panel]:
    """Returns first, then what the policy reaches, then what drives it."""
    rows, first, one = results.table(runs), next(iter(runs.values())), len(runs) == 1
    goals, best = GOALS.get(first.task, ()), pairs.ranked(runs)[0]
    caption = f"Undiscounted{'; dotted: goals of MPG, Table I' if goals else ''}."
    names = first.config.get("state_names") or [f"s{k}" for k in range(first.rms.shape[2])]
    states = {f"rms {k}": str(name) for k, name in enumerate(names)}

    def cells(name: str, section: str, shown: Mapping[str, str], title: str, about: str) -> Panel:
        fill = partial(several_quantities, table=rows, shown=shown, title=title)
        return Panel(name, section, about, fill, rows)

    def returns(name: str, over: Over) -> Panel:
        fill = partial(several_returns, table=rows, over=over, goals=goals)
        several = Panel(name, _LEARNING, caption, fill, rows)  # a small axes each
        alone = panel(name, _LEARNING, caption, figures.returns, rows, goals=goals, over=over)
        return alone if one else several

    every = [
        panel("returns-best", _LEARNING, caption, best_first, rows, best=best, goals=goals),
        returns("returns", "iteration"),
        cells("value", _LEARNING, _VALUED, "Return, critic's value, gains",
              "A critic that rises while the return falls misleads."),
        returns("returns-time", "seconds"),
        cells("tracking", "What the policy does with the state", states,
              "Root mean square of the state", "Over all states of the evaluation."),
        *(_weights(first, rows) if one and len(first.horizons) > 1 else ()),
        *_errors(runs, rows),
        cells("updates", _GRADIENT, _UPDATES, "Gradients and critic", "Norms before clipping."),
        panel("update-times", "What it costs", "By the longest rollout that was made.",
              figures.update_times, results.times(runs)),
    ]  # fmt: skip
    return every[one:]


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
    for role in dict.fromkeys(
        x for run in runs.values() for x in run.config.get("model_losses", ())
    ):
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
    sections = (*folded("Figures", drawn), _pairs(runs), _table(runs), *_lags(runs), _method(runs))
    return Page(title, question, _facts(runs), screen(runs), drawn, sections, source)


def _facts(runs: _Runs) -> dict[str, object]:
    def every(of: Callable[[Training], object]) -> str:
        return ", ".join(dict.fromkeys(str(of(run)) for run in runs.values()))

    def given(run: Training) -> str:
        digests = run.config.get("given_networks", {})
        return " and ".join(f"{role} {digest[:12]}" for role, digest in digests.items()) or "fresh"

    return {
        "task": every(lambda run: run.task),
        "algorithm": every(lambda run: run.name),
        "seeds": every(lambda run: len(run.seeds)),
        "iterations": every(lambda run: f"{int(run.iteration[-1]):,}"),
        "termination": every(lambda run: run.config["settings"]["termination"]),
        "at terminal states": every(lambda run: run.config["settings"]["at_end"]),
        "reward scale": every(lambda run: run.config["settings"]["reward_scale"]),
        "precision": every(lambda run: run.config["settings"]["precision"]),
        "networks": every(given),
        "wall time": every(lambda run: duration(float(run.seconds[-1]))),
    }


def _listed(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Section:
    """A table that sorts; nothing where it has no row."""
    cells = [[shell.cell(value) for value in row] for row in rows]
    return Section(title, body=shell.sortable(map(signed, heads), cells) if rows else "")


def _table(runs: _Runs) -> Section:
    """Final return of every seed, and the iteration at which it reached each goal."""
    goals = GOALS.get(next(iter(runs.values())).task, ())
    heads = ["run", "seed", "final return", "standard error", "ends per episode"]
    rows = []
    for name, run in runs.items():
        of = (run.returns[-1], run.errors[-1], run.ends[-1],
              *(results.first_reached(run, goal) for goal in goals))  # fmt: skip
        rows += [[name, int(seed), *(float(x[k]) for x in of)] for k, seed in enumerate(run.seeds)]
    return _listed("Every seed", [*heads, *(f"iterations to {goal:g}" for goal in goals)], rows)


def _pairs(runs: _Runs) -> Section:
    """Every paired difference and ratio from the first run."""
    heads = ("run", "against", "quantity", "without", "with", "change", "95% interval", "seeds",
             "measurements per seed")  # fmt: skip
    rows = [
        [
            name, base, pairs.WORDS.get(x.quantity, x.quantity), x.first, x.second,
            signed(f"{x.change:.3g}×" if x.ratio else f"{x.change:+.3g}"),
            signed(f"{x.low:.3g} to {x.high:.3g}"), x.seeds, x.measurements,
        ]
        for base in list(runs)[:1] for name in list(runs)[1:]
        for x in pairs.pairs(runs[base], runs[name])
    ]  # fmt: skip
    return _listed("Paired over seeds", heads, rows)


def _lags(runs: _Runs) -> Iterator[Section]:
    """Of gradients, and what each process did; nothing where every run was in one process."""
    lags, work = [], []
    for name, rows in ((name, run.asynchrony) for name, run in runs.items() if run.asynchrony):
        counts = [rows[f"{of}_lag"].sum(axis=0) for of in ("policy", "critic")]
        shares = [each / max(each.sum(), 1) for each in counts]
        for lag in range(max(np.flatnonzero(sum(counts)), default=0) + 1):
            more = " or more" if lag == len(counts[0]) - 1 else ""
            lags.append([name, f"{lag}{more}", *(f"{100 * each[lag]:.1f}%" for each in shares)])
        seconds = float(rows["seconds"][-1])
        busy = rows["learner_seconds"].sum(axis=0) / (seconds or np.inf)
        for k, n in enumerate(rows["learner_gradients"].sum(axis=0)):
            work.append([name, f"learner {k}", f"{n:.0f} gradients", f"{busy[k]:.0%} of the time"])
        work += [
            [name, f"actor {k}", f"{n:.0f} steps", ""]
            for k, n in enumerate(rows["actor_steps"].sum(axis=0))
        ]
    heads = ("run", "lag", "gradients of the policy", "gradients of critics")
    yield _listed("How old gradients were", heads, lags)
    yield _listed("What processes did", ("run", "process", "what it did", "computing"), work)


def _method(runs: _Runs) -> Section:
    """How one run was trained, or in what several differ, and then what they share."""
    parts = [
        {
            "command": run.attributes.get("command", ""), "algorithm": run.config["algorithm"],
            "settings": run.config["settings"], "versions": run.environment,
        }
        for run in runs.values()
    ]  # fmt: skip
    if len(runs) == 1:
        command, *columns = parts[0].values()
        heads = ("Algorithm", "Settings", "Versions and machine")
        return method(command, dict(zip(heads, columns, strict=True)))
    every = [dict(_leaves(each, "")) for each in parts]  # algorithm.critic.hidden → 2×256
    keys = dict.fromkeys(key for each in every for key in each)
    rows = {key: [each.get(key, "–") for each in every] for key in keys}
    differ = [(key, *values) for key, values in rows.items() if len(set(values)) > 1]
    common = {key: values[0] for key, values in rows.items() if len(set(values)) == 1}
    shared = f"<details><summary>{len(common)} settings are the same</summary>"
    text = f"{shell.texts(('setting', *runs), differ)}{shared}{shell.definitions(common)}</details>"
    note = f"{len(differ)} settings differ"
    return Section("How they were trained", body=text, note=note, name="method")


def _leaves(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _leaves(each, f"{path}.{key}" if path else str(key))
    else:
        yield path.removeprefix("settings."), str(value)
