"""The page of a training run, or of several side by side: verdict, curves, settings, events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from gradlab import figures
from gradlab.figures.multiples import Over, best_first, several_quantities, several_returns
from gradlab.reporting import shell
from gradlab.reporting.page import NOWHERE, Page, PageSource, Panel, Section, folded, method, panel
from gradlab.runs.training import measured_weights, pairs
from gradlab.runs.training.pairs import ranked
from gradlab.runs.training.results import (
    GOALS,
    Asynchrony,
    Training,
    asynchrony,
    first_reached,
    loaded,
    table,
    times,
)
from gradlab.verdicts.training import screen
from gradlab.wording import duration, listed, signed

_LEARNING = "Does it learn?"
_TRACKING = "What the policy does with the state"
_GRADIENT = "Gradients and critic"
_WEIGHTS = "Weights through training: rule and measured"
_ERRORS = "Errors of the gradient and of the learned model"
_COST = "What it costs"
_TRUTH = "Against the simulator's own gradient, unrolled to convergence"
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
_DYNAMICS = "Against the same estimator on the simulator: same horizon, same critic."


def panels(runs: Mapping[str, Training]) -> list[Panel]:
    """Returns first, then what the policy reaches, then what drives it."""
    rows, first = table(runs), next(iter(runs.values()))
    goals = GOALS.get(first.task, ())
    dotted = "Dotted: this task's goals in MPG's Table I." if goals else ""
    caption = f"Undiscounted, over the evaluation starts. {dotted}".rstrip()
    names = first.config.get("state_names") or [f"s{k}" for k in range(first.rms.shape[2])]
    coordinates = {f"rms {k}": str(name) for k, name in enumerate(names)}
    best = ranked(runs)[0]
    several = "The best run strong, the others thin, from the highest last return to the lowest."
    several = f"{several} {caption}"
    drawn_panels = []
    if len(runs) > 1:
        drawn_panels.append(
            panel("returns-best", _LEARNING, several, best_first, rows, best=best, goals=goals)
        )
    drawn_panels += [
        _returns("returns", caption, rows, "iteration", goals),
        _cells("value", _LEARNING, rows, _VALUED, "Return, critic's value, gains",
               "The value is the mean over the states of updates, discounted and in scaled reward: "
               "compare how both move. A critic that rises while the return falls misleads. "
               "Gain: of the return since the evaluation before."),
        _returns("returns-time", "The same over time on this machine.", rows, "seconds", goals),
        _cells("tracking", _TRACKING, rows, coordinates, "Root mean square of the state",
               "Over all states of the evaluation episodes."),
    ]  # fmt: skip
    if len(runs) == 1 and len(first.horizons) > 1:
        caption = "What the rule gives to the data (horizon 0) and to the model."
        if first.weights:
            caption = "What is in force, the mean over the seeds; each of them above."
            drawn_panels += _measured(first)
        drawn_panels.append(panel("weights", _GRADIENT, caption, figures.mixture_weights, rows))
    drawn_panels += _learned(runs, rows)
    drawn_panels.append(
        _cells("updates", _GRADIENT, rows, _UPDATES, "Gradients and critic",
               "Means over the updates between two rows; norms before clipping.")
    )  # fmt: skip
    caption = "Over the horizon of the model's rollouts; of a mixture, the longest that was made."
    drawn_panels.append(panel("update-times", _COST, caption, figures.update_times, times(runs)))
    return drawn_panels


def _returns(
    name: str, caption: str, rows: pd.DataFrame, over: Over, goals: Sequence[float]
) -> Panel:
    """One run: its seeds on one axes; several: a small axes each."""
    if rows["run"].nunique() == 1:
        return panel(name, _LEARNING, caption, figures.returns, rows, goals=goals, over=over)
    fill = partial(several_returns, table=rows, over=over, goals=goals)
    return Panel(name, _LEARNING, caption, fill, rows)


def _cells(
    name: str, section: str, rows: pd.DataFrame, shown: Mapping[str, str], title: str, caption: str
) -> Panel:
    fill = partial(several_quantities, table=rows, shown=shown, title=title)
    return Panel(name, section, caption, fill, rows)


def _measured(run: Training) -> list[Panel]:
    """What measurements put in force, beside the rule, and what it was worth."""
    table = measured_weights.table(run)
    follow = run.config["algorithm"]["weights"]["follow"]
    starts = int(run.weights["starts"][-1])
    where, better = f"{starts} states of each seed's replay", "have the smaller error"
    if measured_weights.by_gain(run):
        where, better = f"states visited from {starts} fresh starts of each seed", "gain more"
    caption = (
        f"Measured on {where}; other {follow} than those in force are followed only where they are "
        f"shown to {better}."
    )
    judged = "Measured on starts that did not choose what was in force then."
    return [
        panel("weights-rule", _WEIGHTS, caption, figures.weights_against_rule, table),
        panel("weights-error", _WEIGHTS, judged, figures.error_over_rule, table),
    ]


def _learned(runs: Mapping[str, Training], rows: pd.DataFrame) -> list[Panel]:
    """The error of the gradient that is followed, and of the models that are learned."""
    drawn_panels, first = [], next(iter(runs.values()))
    horizons = sorted({int(run.gradients["horizon"][-1]) for run in runs.values() if run.gradients})
    where = f"h = {horizons[-1]}" if len(horizons) == 1 else "the longest horizon"
    # At which states the truth is taken, where the runs agree.
    laws = {str(run.config.get("gradient_law", "the task's starts")) for run in runs.values()}
    states = laws.pop() if len(laws) == 1 else "the states that each run starts from"
    # Errors of the gradient, and of what the model makes of it where one takes part.
    of_model = [run.gradients["dynamics_mse"] for run in runs.values() if run.gradients]
    through = any(np.isfinite(values).any() for values in of_model)
    kinds = [("", ""), ("dynamics_", ", the model's part")][: 1 + through]
    for start, whose in kinds if horizons else ():
        caption = _DYNAMICS if start else f"{_TRUTH}, at {states}."
        title = f"Error of the gradient at {where}{whose}"
        if len(runs) == 1:
            drawn_panels.append(panel(
                f"gradient-{start}parts", _ERRORS, caption, figures.gradient_errors, rows,
                start=start, batch=first.samples, title=title,
            ))  # fmt: skip
        drawn_panels.append(panel(
            f"gradient-{start}relative", _ERRORS, caption, figures.training_curve, rows,
            name=f"gradient {start}relative_mse",
            title=f"Relative MSE of the gradient at {where}{whose}", unit="MSE / true gradient²",
        ))  # fmt: skip
    roles = dict.fromkeys(
        role for run in runs.values() for role in run.config.get("model_losses", {})
    )
    for role in roles:
        title = "Held-out error of the learned model"
        title += " for Jacobians" if role == "gradient" else ""
        caption = "One step, mean over next state and reward, after every fit."
        drawn_panels.append(panel(
            f"model-{role}", _ERRORS, caption, figures.training_curve, rows,
            name=f"{role} unexplained", title=title, unit="share of variance not explained",
        ))  # fmt: skip
    return drawn_panels


def page(run: Training, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of one training run shows."""
    return several({run.name: run}, f"{run.name} on {run.task}", source)


def of_files(paths: Sequence[str | Path]) -> tuple[Page, pd.DataFrame]:
    """The page of several runs of one task, and the table of their differences from the first."""
    runs = loaded(paths)
    names = listed(list(runs), 2) if len(runs) <= 2 else f"{len(runs)} runs"
    return several(runs, f"{names} on {next(iter(runs.values())).task}"), pairs.table(runs)


def several(runs: Mapping[str, Training], title: str, source: PageSource = NOWHERE) -> Page:
    """What the page of training runs side by side shows."""
    drawn = tuple(panels(runs))
    sections = (
        *folded("Figures", drawn),
        _pairs(runs),
        _table(runs),
        *_staleness(runs),
        *_methods(runs),
    )
    question = "Does it learn, and how fast?"
    return Page(title, question, _facts(runs), screen(runs), drawn, sections, source)


def _facts(runs: Mapping[str, Training]) -> dict[str, object]:
    def every(name: str) -> str:
        return ", ".join(dict.fromkeys(str(r.config["settings"][name]) for r in runs.values()))

    return {
        "task": next(iter(runs.values())).task,
        "algorithm": "; ".join(dict.fromkeys(run.name for run in runs.values())),
        "seeds": ", ".join(dict.fromkeys(str(len(run.seeds)) for run in runs.values())),
        "iterations": ", ".join(dict.fromkeys(f"{int(r.iteration[-1]):,}" for r in runs.values())),
        "termination": every("termination"),
        "at terminal states": every("at_end"),
        "reward scale": every("reward_scale"),
        "precision": every("precision"),
        **_begun_with(runs),
        "wall time": ", ".join(duration(float(run.seconds[-1])) for run in runs.values()),
    }


def _begun_with(runs: Mapping[str, Training]) -> dict[str, str]:
    """Networks that runs were given, by the beginnings of their digests."""
    given = {name: run.config.get("given_networks", {}) for name, run in runs.items()}
    if not any(given.values()):
        return {}
    words = (
        " and ".join(f"{role} {digest[:12]}" for role, digest in each.items()) or "fresh networks"
        for each in given.values()
    )
    return {"begins with": ", ".join(dict.fromkeys(words))}


def _table(runs: Mapping[str, Training]) -> Section:
    """Final return of every seed, and the iteration at which it reached each goal."""
    goals = GOALS.get(next(iter(runs.values())).task, ())
    heads = ["run", "seed", "final return", "standard error", "ends per episode"]
    heads += [signed(f"iterations to {goal:g}") for goal in goals]
    body = []
    for name, run in runs.items():
        reached = [first_reached(run, goal) for goal in goals]
        for k, seed in enumerate(run.seeds):
            last = [run.returns[-1, k], run.errors[-1, k], run.ends[-1, k]]
            values = [float(value) for value in (*last, *(each[k] for each in reached))]
            body.append([shell.cell(value) for value in (name, int(seed), *values)])
    table = shell.sortable(heads, body)
    return Section("Every seed", body=f"<p>Click a heading to sort.</p>{table}")


def _pairs(runs: Mapping[str, Training]) -> Section:
    """Every paired difference and ratio, where there are any."""
    differences = pairs.table(runs)
    if not len(differences):
        return Section("Paired over seeds")
    heads = ["run", "against", "quantity", "without", "with", "change", "95% interval"]
    heads += ["seeds", "measurements per seed"]
    body = []
    for _, pair in differences.iterrows():
        change = f"{pair['change']:.3g}×" if pair["ratio"] else f"{pair['change']:+.3g}"
        cells = [pair["run"], pair["against"], pairs.WORDS.get(pair["quantity"], pair["quantity"])]
        cells += [float(pair["first"]), float(pair["second"]), signed(change)]
        cells += [signed(f"{pair['low']:.3g} to {pair['high']:.3g}"), int(pair["seeds"])]
        cells += [float(pair["measurements"])]
        body.append([shell.cell(value) for value in cells])
    about = (
        "<p>Each run against the first; errors of the gradient are ratios of geometric means at "
        "the longest horizon. Intervals leave a seed out in turn.</p>"
    )
    return Section("Paired over seeds", body=about + shell.sortable(heads, body))


def _methods(runs: Mapping[str, Training]) -> list[Section]:
    """How one run was trained, or in what several differ, and then what they share."""
    if len(runs) == 1:
        ((name, run),) = runs.items()
        columns = {
            "Algorithm": run.config["algorithm"],
            "Settings": run.config["settings"],
            "Versions and machine": run.environment,
        }
        sections = method(run.attributes.get("command"), columns)
        return [replace(sections, title=f"How {name} was trained")]
    settings = {}  # every setting by its path: algorithm.critic.hidden → 2×256
    for name, run in runs.items():
        whole = {
            "command": run.attributes.get("command", ""),
            "algorithm": run.config["algorithm"],
            "settings": run.config["settings"],
            "versions": run.environment,
        }
        settings[name] = dict(_leaves(whole, ""))
    keys = dict.fromkeys(key for each in settings.values() for key in each)
    rows = {key: [each.get(key, "–") for each in settings.values()] for key in keys}
    differ = {key: values for key, values in rows.items() if len(set(values)) > 1}
    common = {key: values[0] for key, values in rows.items() if key not in differ}
    rows_of = [(key, *values) for key, values in differ.items()]
    table = shell.texts(("setting", *settings), rows_of)
    shared = f"<details><summary>{len(common)} settings are the same</summary>"
    text = f"{table}{shared}{shell.definitions(common)}</details>"
    note = f"{len(differ)} settings differ"
    return [Section("How they were trained", body=text, note=note, name="method")]


def _leaves(value: object, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from _leaves(each, f"{path}.{key}" if path else str(key))
    else:
        yield path.removeprefix("settings."), str(value)


_LAGS = (
    "The lag of a gradient: steps of its network between the parameters at which it was computed "
    "and those that it changed. Shares of all gradients of the run."
)


def _staleness(runs: Mapping[str, Training]) -> list[Section]:
    """Nothing where every run was in one process."""
    both = {name: asynchrony(run) for name, run in runs.items()}
    made = {name: each for name, each in both.items() if each is not None}
    if not made:
        return []
    body = f"<p>{_LAGS}</p>" + "".join(_staleness_of(name, each) for name, each in made.items())
    return [Section("How old gradients were", body=body)]


def _staleness_of(name: str, run: Asynchrony) -> str:
    """Lags, then what each process did."""
    last = max(np.flatnonzero(run.critic + run.policy), default=0)
    shares = [x / max(x.sum(), 1) for x in (run.policy, run.critic)]
    more = len(run.policy) - 1
    lags = [
        [f"{lag}{' or more' if lag == more else ''}", *(f"{100 * x[lag]:.1f}%" for x in shares)]
        for lag in range(last + 1)
    ]
    work = [
        *([f"learner {k}", f"{n:.0f} gradients", f"{100 * run.busy[k]:.0f}% of the time"]
          for k, n in enumerate(run.gradients)),
        *([f"actor {k}", f"{n:.0f} steps", ""] for k, n in enumerate(run.steps)),
    ]  # fmt: skip
    heads = ["lag", "gradients of the policy", "gradients of critics"]
    return (
        f"<h3>{escape(name)}</h3>{shell.texts(heads, lags)}"
        f"{shell.texts(['process', 'what it did', 'computing'], work)}"
    )
