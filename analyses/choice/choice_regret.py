"""What a measured choice is worth at each checkpoint: against MPG's rule and every fixed horizon.

    horizon     the single J_n of least MSE, through the prior (model) or along the simulator's
                states with the prior's Jacobians (mixed; n = 1, 2, 5, 10, 15, 20, 25)
    pair        weights of J_0 and J_25 of least MSE: what the rule decides, decided by measurement
    weights     weights of all of these of least MSE
    direction   the mixture of all of them of best direction, at its best scale

    python -m analyses.choice.choice_regret [--small] [--law visited] [--output reports/choice]

At --law visited gradients are taken where MPG takes them, at replayed states; at --law return at
the states that the policy visits, where the truth is the gradient of the return: same candidates,
same criteria, files named "…-return".

Chosen on one half of the starts and judged on the other, 20 random halvings ("seeds of sampling")
of `checkpoint_samples`, batch 256; the truth is the longest that is precise. Rivals: the rule at
that iteration, each J_n, the zero gradient. Reported is the mean over halvings of
log MSE(rival)/MSE(choice), and of the difference of expected cosines; their interval is the mean of
the halvings' own paired 95% intervals, as wide as one half of the starts leaves it. Where noise
hides an error in some halvings the mean is over the others, and says of how many.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
import tyro
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analyses.harness.verdicts import put
from analyses.horizons.checkpoint_errors import rule_weight, table
from analyses.horizons.checkpoint_samples import (
    BATCH,
    CHECKPOINTS,
    HORIZON,
    ITERATIONS,
    KEPT,
    RAMPS,
    TASKS,
    Place,
    Samples,
    load,
    policy_at,
    products,
)
from gradlab.data.noise import stream
from gradlab.figures.through_training import (
    errors_through_training,
    weights_through_training,
)
from gradlab.provenance import environment
from gradlab.statistics.comparison import difference, log_ratio
from gradlab.statistics.grams import ActionProducts, only
from gradlab.statistics.intervals import Interval
from gradlab.statistics.mixing import Contestant, contestant, judged
from gradlab.statistics.moments import Estimate

FOLDER = Path("reports/choice")
SPLITS = 20
GROUPS = 128  # of starts, so that 20 halvings of 33 estimators take minutes
MIXED = (1, 2, 5, 10, 15, 20, 25)  # horizons of the mixed estimators that compete
JUDGING = 1  # the fold on which choices are judged
RULE_STEP = 100  # iterations between two weights of the rule in the figure
RIVALS = ("rule", "model 0", f"model {HORIZON}")  # shown in the figure
HEADS = (
    "| task, iteration | chosen horizon (halvings) | best in hindsight | hindsight / chosen | "
    "rule / chosen | rule / pair | rule / weights | J_0 / weights | J_25 / weights | "
    "cosine: direction / rule |"
)
RULE = "|" + "---|" * 10
Field = Mapping[str, Contestant]


def halvings(n: int, count: int) -> list[np.ndarray]:
    """Random halves of n groups of starts, [n] of 0 and 1 each."""
    generator = stream(0, "halvings")
    return [(torch.randperm(n, generator=generator) < n // 2).long().numpy() for _ in range(count)]


def field(kernel: ActionProducts, samples: Samples) -> tuple[Field, Field, str]:
    """Choices and rivals, judged on the half that chose nothing; and the chosen horizon."""
    members, names = candidates(samples)
    truth, place = len(samples.cells), samples.place
    grams = kernel.grams([*members, truth])
    every = judged(grams, BATCH, JUDGING)
    pair = judged(kernel.grams([0, HORIZON, truth]), BATCH, JUDGING)
    choices = {
        "horizon": every.single,
        "pair": pair.mixture,
        "weights": every.mixture,
        "direction": every.scaled_mixture,
    }
    one, rule = np.eye(len(members)), rule_weight(place.task, place.iteration)
    followed = {"rule": (1 - rule) * one[0] + rule * one[HORIZON], "zero": 0 * one[0]}
    followed |= dict(zip(names, one, strict=True))
    unseen = only(grams, [JUDGING])
    rivals = {name: contestant(unseen, w, BATCH) for name, w in followed.items()}
    return choices, rivals, names[int(np.argmax(every.single.weights))]


def candidates(samples: Samples) -> tuple[list[int], list[str]]:
    """Rows and names of the estimators that compete: every J_n, mixed ones on a grid."""
    kept = [k for k, (name, n) in enumerate(samples.cells) if name == "model" or n in MIXED]
    return kept, [f"{name} {n}" for name, n in (samples.cells[k] for k in kept)]


def regrets(samples: Samples, kernels: Sequence[ActionProducts]) -> tuple[pd.DataFrame, dict]:
    """Means over halvings of each choice against each rival; how often a horizon was chosen."""
    rows, chosen = [], []
    for split, kernel in enumerate(kernels):
        choices, rivals, horizon = field(kernel, samples)
        chosen.append(horizon)
        for choice, mine in choices.items():
            for rival, theirs in rivals.items():
                row = {"split": split, "choice": choice, "rival": rival}
                rows.append(row | compared(mine.found, theirs.found))
    every = pd.DataFrame(rows)
    every["won"] = every["log_ratio"] > 0
    every["known"] = every["log_ratio"].notna()
    means = every.drop(columns="split").groupby(["choice", "rival"], sort=False).mean()
    counts = {name: chosen.count(name) for name in dict.fromkeys(chosen)}
    return means.reset_index(), counts


def compared(mine: Mapping[str, Estimate], theirs: Mapping[str, Estimate]) -> dict[str, float]:
    """log MSE(theirs)/MSE(mine) and cosine(mine) − cosine(theirs), paired; NaN where unknown."""
    error, cosine = (log_ratio(theirs["mse"], mine["mse"]), None)
    value = np.nan
    if error is not None:
        value = float(np.log(theirs["mse"].value / mine["mse"].value))
    here, there = mine["cosine_batch"], theirs["cosine_batch"]
    if np.isfinite([here.value, there.value]).all():
        cosine = difference(here, there)
    return {
        "log_ratio": value,
        **_ends("log_ratio", error),
        "cosine_gain": here.value - there.value,
        **_ends("cosine_gain", cosine),
        "mse": mine["mse"].value,
        "rival_mse": theirs["mse"].value,
        "cosine": here.value,
        "rival_cosine": there.value,
    }


def _ends(name: str, found: Interval | None) -> dict[str, float]:
    low, high = (np.nan, np.nan) if found is None else (found.low, found.high)
    return {f"{name}_low": low, f"{name}_high": high}


def hindsight(means: pd.DataFrame) -> str:
    """The fixed J_n of least mean error on the judging halves: no choice can know it."""
    fixed = means[(means["choice"] == "horizon") & ~means["rival"].isin(["rule", "zero"])]
    return str(fixed.loc[fixed["rival_mse"].idxmin(), "rival"])


def places(tasks: Sequence[str], law: str) -> Iterator[Place]:
    for task in tasks:
        yield from (Place(task, iteration, 0, law) for iteration in ITERATIONS)


def measure(
    checkpoints: Path, tasks: Sequence[str], splits: int, law: str = "visited"
) -> tuple[pd.DataFrame, dict]:
    """Every place of the seed that was measured in full."""
    found, counts = [], {}
    for place in places(tasks, law):
        if not (KEPT / place.name).exists():
            print(f"{place.name}: not measured yet")
            continue
        samples = load(KEPT / place.name)
        samples = replace(samples, truth=samples.cut)
        kernels = products(samples, policy_at(place, checkpoints), halvings(GROUPS, splits), GROUPS)
        means, chosen = regrets(samples, kernels)
        head = {"task": place.task, "iteration": place.iteration, "hindsight": hindsight(means)}
        found.append(means.assign(**head))
        counts[f"{place.task} {place.iteration}"] = chosen
        print(_line(found[-1], chosen), flush=True)
    return pd.concat(found, ignore_index=True), counts


def _line(means: pd.DataFrame, chosen: Mapping[str, int]) -> str:
    """One row of the README's table."""
    best = str(means["hindsight"].iloc[0])
    at = means.set_index(["choice", "rival"])

    def times(choice: str, rival: str) -> str:
        row = at.loc[choice, rival]
        ends = np.exp(row[["log_ratio", "log_ratio_low", "log_ratio_high"]].to_numpy(float))
        few = f" ({row['known']:.0%} of halvings)" if row["known"] < 1 else ""
        return "–" if np.isnan(ends).any() else "{:.3g} [{:.3g}, {:.3g}]".format(*ends) + few

    def cosine(choice: str, rival: str) -> str:
        row = at.loc[choice, rival]
        values = row[["cosine", "rival_cosine"]].to_numpy(float)
        return "–" if np.isnan(values).any() else "{:.2f} / {:.2f}".format(*values)

    horizons = ", ".join(f"{name} ({count})" for name, count in chosen.items())
    cells = [
        f"{means['task'].iloc[0].replace('_', ' ')}, {means['iteration'].iloc[0]}",
        horizons,
        best,
        times("horizon", best),
        times("horizon", "rule"),
        times("pair", "rule"),
        times("weights", "rule"),
        times("weights", "model 0"),
        times("weights", f"model {HORIZON}"),
        cosine("direction", "rule"),
    ]
    return "| " + " | ".join(cells) + " |"


def _by_place(regret: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for (task, iteration), rows in regret.groupby(["task", "iteration"], sort=False):
        yield f"{task} {iteration}", rows


def drawn(errors: pd.DataFrame, task: str, law: str = "visited") -> Figure:
    """Bias, MSE and weights of one task through training."""
    own = errors[(errors["task"] == task) & (errors["seed"] == 0) & (errors["law"] == law)]
    data = own[(own["estimator"] == "model") & (own["horizon"] == 0)].assign(estimator="data")
    model = own[(own["estimator"] == "model") & (own["horizon"] == HORIZON)]
    steps = range(0, max(ITERATIONS) + 1, RULE_STEP)
    rule = pd.DataFrame({"iteration": steps, "estimator": "model", "quantity": "weight_rule"})
    rule["value"] = [rule_weight(task, step) for step in steps]
    rule = rule.assign(ci_low=rule["value"], ci_high=rule["value"])
    shown = pd.concat([data, model[model["quantity"] != "weight_rule"], rule])
    figure = Figure(figsize=(14.5, 4.9), layout="constrained")
    panels = figure.subplots(1, 3)
    errors_through_training(shown, panels[0], quantity="bias2")
    errors_through_training(shown, panels[1], quantity="mse")
    weights_through_training(shown, panels[2])
    figure.suptitle(f"{task.replace('_', ' ').capitalize()}, J_0 and J_{HORIZON}, batch {BATCH}")
    return figure


def regret_figure(regret: pd.DataFrame, task: str) -> Figure:
    """How many times the choice's error each rival has, over the checkpoints."""
    own = regret[regret["task"] == task]
    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    looks = zip((*RIVALS, "hindsight"), ("k-o", "C3--s", "C0:^", "C2-.D"), strict=True)
    for rival, style in looks:
        for axes, choice in zip(panels, ("horizon", "weights"), strict=True):
            rows = own[own["choice"] == choice]
            rows = rows[rows["rival"] == (rows["hindsight"] if rival == "hindsight" else rival)]
            x = np.arange(len(rows))
            value, low, high = (
                np.exp(rows[name].to_numpy(float))
                for name in ("log_ratio", "log_ratio_low", "log_ratio_high")
            )
            label = "best J_n in hindsight" if rival == "hindsight" else rival
            line = axes.plot(x, value, style, markersize=4, label=label)[0]
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.13, linewidth=0)
            axes.set_xticks(x, [str(step) for step in rows["iteration"]])
            axes.set(yscale="log", title=f"chosen: {choice}", xlabel="iteration of the checkpoint")
            axes.title.set_fontsize(9)
    for axes in panels:
        axes.axhline(1.0, color="0.4", linewidth=0.8)
    panels[0].set_ylabel("MSE of the rival / MSE of the choice")
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def main(
    small: bool = False,
    checkpoints: Path = CHECKPOINTS,
    output: Path = FOLDER,
    tasks: Sequence[str] = TASKS,
    law: Literal["visited", "return"] = "visited",
) -> None:
    """Judge choices on what `checkpoint_samples` has measured.

    Args:
        small: two halvings of the pendulum.
        checkpoints: folder of the training runs, whose policies are needed.
        output: folder of tables and figures.
        tasks: path_tracking, inverted_pendulum.
        law: of the states at which gradients are taken.
    """
    output.mkdir(parents=True, exist_ok=True)
    which = "" if law == "visited" else f"-{law}"
    chosen = TASKS[1:] if small else tasks
    regret, counts = measure(checkpoints, chosen, 2 if small else SPLITS, law)
    laws = ("visited", "starts") if law == "visited" else (law,)
    errors = table(checkpoints, chosen, seeds=1, laws=laws)
    regret.to_csv(output / f"regret{which}.csv", index=False, float_format="%.5g")
    errors.to_csv(output / f"errors{which}.csv", index=False, float_format="%.5g")
    lines = [_line(rows, counts[name]) for name, rows in _by_place(regret)]
    put(output / "README.md", f"numbers{which}", "\n".join([HEADS, RULE, *lines]))
    for task in chosen:
        for name, figure in (
            (f"{task}{which}.png", drawn(errors, task, law)),
            (f"{task}{which}-regret.png", regret_figure(regret, task)),
        ):
            FigureCanvasAgg(figure)
            figure.savefig(output / name.replace("_", "-"), dpi=100)
    made = {
        "command": "python -m analyses.choice.choice_regret" + (f" --law {law}" if which else ""),
        "law": law,
        "chosen_horizons": counts,
        "rule_crossing": {task: RAMPS[task] / 2 for task in chosen},
        "environment": environment(),
    }
    (output / f"made{which}.json").write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
