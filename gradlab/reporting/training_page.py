"""The page of a training run, or of several side by side: verdict, curves, settings, events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from html import escape

import pandas as pd

from gradlab import figures
from gradlab.reporting import training_probe
from gradlab.reporting.first_fold import NOWHERE, Source
from gradlab.reporting.page import Page, Section, folded, method
from gradlab.reporting.panels import Panel, panel
from gradlab.training import measured_results, pairs
from gradlab.training.results import GOALS, Training, first_reached, table, times
from gradlab.training.verdicts import screen

LEARNING = "Does it learn?"
TRACKING = "What the policy does with the state"
GRADIENT = "Gradients and critic"
WEIGHTS = "Weights through training: rule and measured"
ERRORS = "Errors of the gradient and of the learned model"
COST = "What it costs"
TRUTH = "Against the simulator's own gradient, unrolled to convergence, at the task's starts."
DYNAMICS = "Against the same estimator on the simulator: same horizon, same critic."


def panels(runs: Mapping[str, Training]) -> list[Panel]:
    """Returns first, then what the policy reaches, then what drives it."""
    rows, first = table(runs), next(iter(runs.values()))
    goals = GOALS.get(first.task, ())
    draw = partial(figures.returns, rows, goals=goals)
    found = [
        panel("returns", LEARNING, "Dotted: goals of MPG's Table I.", draw),
        panel("returns-time", LEARNING, "The same over time on this machine.",
               partial(draw, over="seconds")),
    ]  # fmt: skip
    names = first.config.get("state_names") or [f"s{k}" for k in range(first.rms.shape[2])]
    for k, name in enumerate(names):
        title = f"Root mean square of {name}"
        caption = "Over all states of the evaluation episodes."
        drawn = partial(figures.training_curve, rows, name=f"rms {k}", title=title, unit=str(name))
        found.append(panel(f"rms-{k}", TRACKING, caption, drawn))
    if len(runs) == 1 and len(first.horizons) > 1:
        caption = "What the rule gives to the data (horizon 0) and to the model."
        if first.weights:
            caption = "What is in force, the mean over the seeds; each of them above."
            found += _measured(first)
        found.append(panel("weights", GRADIENT, caption, partial(figures.mixture_weights, rows)))
    found += _learned(runs, rows)
    curves = {
        "policy_norm": ("Norm of the policy gradient", "norm before clipping"),
        "critic_norm": ("Norm of the critic's gradient", "norm before clipping"),
        "critic_loss": ("Critic loss", "half squared error [scaled reward²]"),
        "value": ("Mean critic value on the batch", "value [scaled reward]"),
    }
    for name, (title, unit) in curves.items():
        drawn = partial(figures.training_curve, rows, name=name, title=title, unit=unit)
        found.append(panel(name, GRADIENT, "Means over the updates between two rows.", drawn))
    if len(runs) == 1:
        found += training_probe.panels(first)
    caption = "Over the horizon of the model's rollouts; of a mixture, the longest that was made."
    drawn = partial(figures.update_times, times(runs))
    found.append(panel("update-times", COST, caption, drawn))
    return found


def _measured(run: Training) -> list[Panel]:
    """What measurements put in force, beside the rule, and what it was worth."""
    table = measured_results.table(run)
    follow = run.config["algorithm"]["weights"]["follow"]
    starts = int(run.weights["starts"][-1])
    caption = (
        f"Measured on {starts} states of each seed's replay; other {follow} than those in force "
        f"are followed only where they are shown to have the smaller error."
    )
    judged = "Measured on starts that did not choose what was in force then."
    return [
        panel("weights-rule", WEIGHTS, caption, partial(figures.weights_against_rule, table)),
        panel("weights-error", WEIGHTS, judged, partial(figures.error_over_rule, table)),
    ]


def _learned(runs: Mapping[str, Training], rows: pd.DataFrame) -> list[Panel]:
    """The error of the gradient that is followed, and of the models that are learned."""
    found, first = [], next(iter(runs.values()))
    horizons = sorted({int(run.gradients["horizon"][-1]) for run in runs.values() if run.gradients})
    where = f"h = {horizons[-1]}" if len(horizons) == 1 else "the longest horizon"
    for start, whose in (("", ""), ("dynamics_", ", the model's part")) if horizons else ():
        caption = DYNAMICS if start else TRUTH
        title = f"Error of the gradient at {where}{whose}"
        if len(runs) == 1:
            batch = int(first.config["algorithm"]["batch"])
            drawn = partial(figures.gradient_errors, rows, start=start, batch=batch, title=title)
            found.append(panel(f"gradient-{start}parts", ERRORS, caption, drawn))
        drawn = partial(
            figures.training_curve, rows, name=f"gradient {start}relative_mse",
            title=f"Relative MSE of the gradient at {where}{whose}",
            unit="MSE / true gradient²",
        )  # fmt: skip
        found.append(panel(f"gradient-{start}relative", ERRORS, caption, drawn))
    roles = dict.fromkeys(
        role for run in runs.values() for role in run.config.get("model_losses", {})
    )
    for role in roles:
        title = "Held-out error of the learned model"
        title += " for Jacobians" if role == "gradient" else ""
        drawn = partial(
            figures.training_curve, rows, name=f"{role} unexplained", title=title,
            unit="share of variance not explained",
        )  # fmt: skip
        caption = "One step, mean over next state and reward, after every fit."
        found.append(panel(f"model-{role}", ERRORS, caption, drawn))
    return found


def page(run: Training, source: Source = NOWHERE, name: str = "") -> Page:
    """What the page of one training run shows."""
    return several({run.name: run}, f"{run.name} on {run.task}", source)


def several(runs: Mapping[str, Training], title: str, source: Source = NOWHERE) -> Page:
    """What the page of training runs side by side shows."""
    drawn = tuple(panels(runs))
    sections = (
        training_probe.alarms(runs),
        *folded("Figures", drawn),
        _pairs(runs),
        _table(runs),
        *(_method(name, run) for name, run in runs.items()),
    )
    question = "Does it learn, and how fast?"
    return Page(title, question, _facts(runs), screen(runs), drawn, sections, source)


def _facts(runs: Mapping[str, Training]) -> dict[str, object]:
    def every(name: str) -> str:
        return ", ".join(dict.fromkeys(str(r.config["settings"][name]) for r in runs.values()))

    return {
        "task": next(iter(runs.values())).task,
        "algorithm": ", ".join(dict.fromkeys(run.name for run in runs.values())),
        "seeds": ", ".join(dict.fromkeys(str(len(run.seeds)) for run in runs.values())),
        "iterations": ", ".join(dict.fromkeys(str(int(r.iteration[-1])) for r in runs.values())),
        "termination": every("termination"),
        "at terminal states": every("at_end"),
        "reward scale": every("reward_scale"),
        "precision": every("precision"),
        "wall time": ", ".join(f"{run.seconds[-1]:.0f} s" for run in runs.values()),
    }


def _table(runs: Mapping[str, Training]) -> Section:
    """Final return of every seed, and the iteration at which it reached each goal."""
    goals = GOALS.get(next(iter(runs.values())).task, ())
    heads = ["run", "seed", "final return", "standard error", "ends per episode"]
    heads += [f"iterations to {goal:g}" for goal in goals]
    body = []
    for name, run in runs.items():
        reached = [first_reached(run, goal) for goal in goals]
        for k, seed in enumerate(run.seeds):
            numbers = [run.returns[-1, k], run.errors[-1, k], run.ends[-1, k]]
            cells = [name, str(seed), *(f"{value:.4g}" for value in numbers)]
            cells += ["–" if each[k] != each[k] else f"{each[k]:.0f}" for each in reached]
            body.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    head = "".join(
        f'<th scope="col"><button type="button">{escape(each)}</button></th>' for each in heads
    )
    table = (
        '<p>Click a heading to sort.</p><div class="wide"><table class="sortable">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )
    return Section("Every seed", body=table)


def _pairs(runs: Mapping[str, Training]) -> Section:
    """Every paired difference and ratio, where there are any."""
    found = pairs.table(runs)
    if not len(found):
        return Section("Paired over seeds")
    heads = ["run", "against", "quantity", "without", "with", "change", "95% interval"]
    heads += ["seeds", "measurements per seed"]
    body = []
    for _, pair in found.iterrows():
        change = f"{pair['change']:.3g}×" if pair["ratio"] else f"{pair['change']:+.3g}"
        cells = [pair["run"], pair["against"], pairs.WORDS.get(pair["quantity"], pair["quantity"])]
        cells += [f"{pair['first']:.3g}", f"{pair['second']:.3g}", change]
        cells += [f"{pair['low']:.3g} to {pair['high']:.3g}", f"{pair['seeds']}"]
        cells += [f"{pair['measurements']:.3g}"]
        body.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    table = (
        "<p>Each run against the first; errors of the gradient are ratios of geometric means at "
        "the longest horizon. Intervals leave a seed out in turn.</p>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
    return Section("Paired over seeds", body=table)


def _method(name: str, run: Training) -> Section:
    columns = {
        "Algorithm": run.config["algorithm"],
        "Settings": run.config["settings"],
        "Versions and machine": run.environment,
    }
    found = method(run.attributes.get("command"), columns)
    return replace(found, title=f"How {name} was trained", name="")
