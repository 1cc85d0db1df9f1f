"""What the runs of `analyses.measured_weights` came to: tables, figure and verdict.

Everything is paired over seeds; "best fixed" is the fixed arm whose return averaged over run and
seeds is largest on the task, chosen in hindsight. Arms that are not there are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from analyses.harness.verdicts import Verdict
from analyses.measured_weights.runs import FIXED, MEASURED, RULES, SETS, TASKS
from gradlab.figures.style import BLUE, GREEN, INK, MUTED, VERMILION
from gradlab.runs.training.measured_weights import (
    NO_TRUTH,
    SWITCHED,
    interval_of_mean,
    logs_over_rule,
)
from gradlab.runs.training.pairs import Pair, pairs
from gradlab.runs.training.results import GOALS, Training, first_reached, load
from gradlab.wording import percent

Runs = Mapping[str, Training]  # by arm
WHOLE, FINAL = "mean return over the run", "final return"
ORDER = (*RULES, *MEASURED, *FIXED)
LOOKS = {
    "rule": (INK, "-", "o"), "weights": (BLUE, "-", "^"), "horizon": (GREEN, (0, (5, 1.6)), "D"),
    "equal": (MUTED, (0, (1.2, 1.4)), "v"), "h0": (VERMILION, (0, (7, 2.5)), "s"),
}  # fmt: skip


def loaded(folder: Path) -> dict[str, Runs]:
    """Task → arm → run; those that are not there, or have no evaluation yet, are left out."""
    return {
        task: {
            arm: load(folder / f"{task}-{arm}.h5")
            for arm in ORDER
            if (folder / f"{task}-{arm}.h5").is_file()
        }
        for task in TASKS
    }


def averaged(run: Training) -> np.ndarray:
    """Return of each seed averaged over the run, [E]."""
    area = np.trapezoid(run.returns, run.iteration, axis=0)
    return np.asarray(area / (run.iteration[-1] - run.iteration[0]))


def best_fixed(runs: Runs) -> str:
    """Chosen in hindsight."""
    return max((arm for arm in FIXED if arm in runs), key=lambda arm: averaged(runs[arm]).mean())


def arms(runs: Runs) -> str:
    """Every arm of one task, as a Markdown table."""
    goals = GOALS[next(iter(runs.values())).task][1:]
    heads = ["arm", "final return of every seed", "median", "mean over the run"]
    heads += [f"to {goal:g}" for goal in goals] + ["time", "of it measuring", "in force changed"]
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    for name, run in runs.items():
        last = np.sort(run.returns[-1])[::-1]
        cells = [name, ", ".join(f"{value:.3g}" for value in last), f"{np.median(last):.3g}"]
        cells += [f"{averaged(run).mean():.3g}"]
        cells += [_reached(run, goal) for goal in goals]
        cells += [f"{run.seconds[-1] / 60:.1f} min", *_measuring(run)]
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def _reached(run: Training, goal: float) -> str:
    """Median over the seeds that reached it, with their number; – for none."""
    first = first_reached(run, goal)
    there = np.isfinite(first)
    return f"{np.median(first[there]):.0f} ({there.sum()})" if there.any() else "–"


def _measuring(run: Training) -> list[str]:
    if not run.weights:
        return ["", ""]
    outcome = run.weights["outcome"]
    lost = int((outcome == NO_TRUTH).sum())
    without = f", {lost} without a truth" if lost else ""
    changed = f"{(outcome == SWITCHED).sum()} of {outcome.size}{without}"
    return [percent(float(run.weights["share"][-1])), changed]


def comparisons(tasks: Mapping[str, Runs]) -> pd.DataFrame:
    """Every measured arm against the rule on its horizons and against the best fixed arm."""
    rows = []
    for task, runs in tasks.items():
        for arm in (arm for arm in MEASURED if arm in runs):
            rivals = {"rule": f"rule-{arm.split('-')[1]}", "best fixed": best_fixed(runs)}
            for against, rival in rivals.items():
                rows += [
                    {"task": task, "arm": arm, "against": against, "rival": rival, **vars(pair),
                     "better": int(_better(runs[arm], runs[rival], pair))}
                    for pair in pairs(runs[rival], runs[arm])
                    if pair.quantity in (WHOLE, FINAL)
                ]  # fmt: skip
    return pd.DataFrame(rows)


def _better(run: Training, rival: Training, pair: Pair) -> int:
    """Seeds in which the arm is better."""
    ours, theirs = (
        each.returns[-1] if pair.quantity == FINAL else averaged(each) for each in (run, rival)
    )
    return int((ours > theirs).sum())


def compared(rows: pd.DataFrame) -> str:
    """As a Markdown table."""
    heads = ["task", "arm", "against", "quantity", "rival", "arm's", "difference"]
    heads += ["95% interval", "better seeds"]
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    for _, row in rows.iterrows():
        cells = [row["task"], row["arm"], f"{row['against']} ({row['rival']})", row["quantity"]]
        cells += [f"{row['first']:.3g}", f"{row['second']:.3g}", f"{row['change']:+.3g}"]
        cells += [f"{row['low']:.3g} to {row['high']:.3g}", f"{row['better']} of {row['seeds']}"]
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def errors(tasks: Mapping[str, Runs]) -> str:
    """MSE of what was in force over the rule's, on starts that did not choose it, in Markdown."""
    heads = ["task", "arm", "MSE in force / MSE of the rule", "95% interval over the seeds"]
    heads += ["seeds, measurements"]
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    for task, runs in tasks.items():
        for arm in (arm for arm in MEASURED if arm in runs):
            logs = [log for log in logs_over_rule(runs[arm]) if len(log)]
            means = np.array([log.mean() for log in logs])
            if len(means) < 3:
                continue
            low, high = np.exp(interval_of_mean(means))
            cells = [task, arm, f"{np.exp(means.mean()):.3g}", f"{low:.3g} to {high:.3g}"]
            lines.append(" | ".join([*cells, f"{len(logs)}, {sum(map(len, logs))}"]))
    return "\n".join(lines) + "\n"


def judge(tasks: Mapping[str, Runs]) -> Verdict:
    """The claim, arm by arm."""
    rows = comparisons(tasks)
    whole = rows[rows["quantity"] == WHOLE]
    meets = [arm for arm in MEASURED if _meets(whole[whole["arm"] == arm])]
    told, numbers = [], {}
    for task, own in whole.groupby("task", sort=False):
        parts = []
        for _, row in own.iterrows():
            gap = f"{row['change']:+.3g} [{row['low']:.3g}, {row['high']:.3g}]"
            parts.append(f"{row['arm']} − {row['rival']} {gap}")
            key = f"{task} {row['arm']} against {row['against']}"
            numbers |= {key: row["change"], f"{key} low": row["low"], f"{key} high": row["high"]}
        told.append(f"{task}: {', '.join(parts)}")
    first = next(iter(next(iter(tasks.values())).values()))
    met = f"met by {', '.join(meets)}" if meets else "met by no arm"
    sentence = (
        f"{met}. Return averaged over the run, {'; '.join(told)}. {len(first.seeds)} paired seeds, "
        f"{int(first.iteration[-1])} iterations; best fixed arms chosen in hindsight: "
        f"{', '.join(f'{best_fixed(runs)} on {task}' for task, runs in tasks.items())}."
    )
    return Verdict(
        "MEASURED-WEIGHTS", "MPG, eq. 10", "measured − rule: interval of the return averaged over "
        "the run above 0 on both tasks, and against the best fixed arm below 0 on none",
        bool(meets), sentence[0].upper() + sentence[1:], numbers, rows, figure(tasks),
    )  # fmt: skip


def _meets(rows: pd.DataFrame) -> bool:
    rule, fixed = (rows[rows["against"] == name] for name in ("rule", "best fixed"))
    both = set(rule["task"]) == set(TASKS)
    return both and bool((rule["low"] > 0).all() and not (fixed["high"] < 0).any())


def figure(tasks: Mapping[str, Runs]) -> Figure:
    """Medians over the seeds, a row per task and a column per set of horizons."""
    drawn = Figure(figsize=(10, 6.6), layout="constrained")
    axes = drawn.subplots(len(tasks), len(SETS), squeeze=False, sharey="row")
    for row, (task, runs) in zip(axes, tasks.items(), strict=True):
        for ax, (name, horizons) in zip(row, SETS.items(), strict=True):
            _curves(ax, runs, name)
            ax.set_title(f"{task}, horizons {', '.join(map(str, horizons))}", fontsize=10)
            ax.set_yscale("symlog", linthresh=10 if task == "path_tracking" else 0.1)
            ax.set_yticks([-300, -100, -30, -10] if task == "path_tracking" else [-10, -1, -0.1])
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.grid(alpha=0.3)
        row[0].set_ylabel("return, median of the seeds")
    for ax in axes[-1]:
        ax.set_xlabel("iteration")
    axes[0, 0].legend(fontsize=8, frameon=False, loc="lower right")
    return drawn


def _curves(ax: Axes, runs: Runs, horizons: str) -> None:
    for k, (kind, (colour, dash, marker)) in enumerate(LOOKS.items()):
        arm = kind if kind == "h0" else f"{kind}-{horizons}"
        if arm not in runs:
            continue
        label = {"h0": "J_0 alone", "weights": "measured weights", "horizon": "measured horizon"}
        run = runs[arm]
        ax.plot(run.iteration, np.median(run.returns, axis=1), color=colour, linestyle=dash,
                marker=marker, markersize=4, markevery=(k, 5), lw=1.6,
                label=label.get(kind, f"{kind} weights" if kind == "equal" else kind))  # fmt: skip


def curves(tasks: Mapping[str, Runs]) -> pd.DataFrame:
    """One row per task, arm, seed and evaluation."""
    return pd.DataFrame(
        {"task": task, "arm": arm, "seed": int(seed), "iteration": int(k), "return": float(value)}
        for task, runs in tasks.items()
        for arm, run in runs.items()
        for k, row in zip(run.iteration, run.returns, strict=True)
        for seed, value in zip(run.seeds, row, strict=True)
    )
