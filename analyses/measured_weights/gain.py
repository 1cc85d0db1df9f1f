"""MEASURED-WEIGHTS under gain: the section "Under gain" of its page, from the runs.

    1  gain − rule          2  gain − weights by MSE          3  gain − best fixed arm
       return averaged over the run, on the same horizons, paired over seeds
    4  gain of what was in force − gain of the rule's weights, on starts that did not choose it

Criteria are on the page, written before the runs. Runs that the budget cut are compared up to their
last evaluation, if that is late enough; all rivals are cut there, too.

    python -m analyses.measured_weights.gain [--folder reports/measured-weights/runs]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from analyses.harness.verdicts import put
from analyses.measured_weights.report import averaged, best_fixed
from analyses.measured_weights.runs import FIXED, FOLDER, GAIN, TASKS
from gradlab.runs.training.measured_weights import (
    NO_TRUTH,
    SWITCHED,
    gains_over_rule,
    interval_of_mean,
)
from gradlab.runs.training.results import GOALS, Training, first_reached, load
from gradlab.wording import percent

Runs = Mapping[str, Training]
COLUMNS = [
    "task", "arm", "iterations", "against", "rival", "difference", "low", "high", "better", "seeds",
    "outcome",
]  # fmt: skip
LEAST = 5000  # iterations, below which an arm is not tried
CRITERIA = ("rule", "weights by MSE", "best fixed")
WORDS = {1: "holds", -1: "refuted", 0: "undecided"}


@dataclass(frozen=True)
class Gap:
    """A paired difference over seeds with its 95% interval."""

    value: float
    low: float
    high: float
    better: int
    seeds: int

    @property
    def sign(self) -> int:
        """+1 above 0, −1 below, 0 undecided."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    @property
    def words(self) -> str:
        return f"{self.value:+.3g} [{self.low:.3g}, {self.high:.3g}]"


def gap_of(values: np.ndarray) -> Gap:
    low, high = interval_of_mean(values)
    return Gap(float(values.mean()), low, high, int((values > 0).sum()), len(values))


def runs_of(folder: Path, task: str) -> Runs:
    """Gain arms that went far enough and their rivals."""
    names = [*GAIN, *FIXED]
    names += [f"{what}-{arm.split('-')[1]}" for arm in GAIN for what in ("rule", "weights")]
    found = {name: folder / f"{task}-{name}.h5" for name in names}
    runs = {name: load(path) for name, path in found.items() if _is_there(path)}
    return {
        name: run for name, run in runs.items() if name not in GAIN or run.iteration[-1] >= LEAST
    }


def _is_there(path: Path) -> bool:
    """A run that is still being written has a journal only."""
    return path.is_file() or path.with_name(f"{path.name}.journal").is_file()


def until(run: Training, last: int) -> Training:
    """Evaluations up to an iteration."""
    here = run.iteration <= last
    seconds = run.seconds[here] if len(run.seconds) == len(here) else run.seconds
    return replace(run, iteration=run.iteration[here], returns=run.returns[here], seconds=seconds)


def comparisons(tasks: Mapping[str, Runs]) -> pd.DataFrame:
    """A row per task, arm and rival, and one for the gain of what was in force."""
    rows: list[dict[str, object]] = []
    for task, runs in tasks.items():
        for arm in (name for name in GAIN if name in runs):
            last = int(runs[arm].iteration[-1])
            cut = {name: until(run, last) for name, run in runs.items()}
            horizons = arm.split("-")[1]
            rivals = (f"rule-{horizons}", f"weights-{horizons}", best_fixed(cut))
            for against, rival in zip(CRITERIA, rivals, strict=True):
                gap = gap_of(averaged(cut[arm]) - averaged(cut[rival]))
                rows.append(_row(task, arm, last, against, rival, gap))
            means = [each.mean() for each in gains_over_rule(runs[arm]) if len(each)]
            if len(means) > 2:
                rows.append(_row(task, arm, last, "gain in force", "-", gap_of(np.array(means))))
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(task: str, arm: str, last: int, against: str, rival: str, gap: Gap) -> dict[str, object]:
    return {
        "task": task, "arm": arm, "iterations": last, "against": against, "rival": rival,
        "difference": gap.value, "low": gap.low, "high": gap.high, "better": gap.better,
        "seeds": gap.seeds, "outcome": WORDS[gap.sign],
    }  # fmt: skip


def page(tasks: Mapping[str, Runs], rows: pd.DataFrame) -> str:
    """Verdicts, differences, and every arm, in Markdown."""
    return "\n".join([*_verdicts(rows), "", *_differences(rows), "", *_arms(tasks)]) + "\n"


def _verdicts(rows: pd.DataFrame) -> Iterator[str]:
    titles = {
        "rule": "1. Gain beats the rule",
        "weights by MSE": "2. It was the gradient that MSE was judged against",
        "best fixed": "3. It does no harm",
        "gain in force": "4. The measured gain is real",
    }
    for horizons in (arm.split("-")[1] for arm in GAIN):
        for against, title in titles.items():
            own = rows[(rows["against"] == against) & (rows["arm"] == f"gain-{horizons}")]
            missing = [task for task in TASKS if task not in set(own["task"])]
            told = [
                f"{each['task']} {each['difference']:+.3g} [{each['low']:.3g}, "
                f"{each['high']:.3g}], {each['outcome']}"
                for _, each in own.iterrows()
            ] + [f"{task} not tried" for task in missing]
            yield f"- {title} ({horizons}): **{outcome(own, missing)}**. {'; '.join(told)}."


def outcome(rows: pd.DataFrame, missing: list[str]) -> str:
    """Over both tasks: holds where it does on both, refuted where it is on one."""
    found = set(rows["outcome"])
    if not found:
        return "not tried"
    if "refuted" in found:
        return "refuted"
    return "holds" if found == {"holds"} and not missing else "undecided"


def _differences(rows: pd.DataFrame) -> Iterator[str]:
    heads = ["task", "arm", "iterations", "against", "difference", "95% interval", "better seeds"]
    yield " | ".join(heads)
    yield " | ".join(["---"] * len(heads))
    for _, row in rows.iterrows():
        rival = (
            row["against"] if row["rival"] in ("-", "") else f"{row['against']} ({row['rival']})"
        )
        yield " | ".join(
            [row["task"], row["arm"], str(row["iterations"]), rival, f"{row['difference']:+.3g}",
             f"{row['low']:.3g} to {row['high']:.3g}", f"{row['better']} of {row['seeds']}"]
        )  # fmt: skip


def _arms(tasks: Mapping[str, Runs]) -> Iterator[str]:
    heads = ["task", "arm", "last return of every seed", "median", "mean over the run", "goals"]
    heads += ["of the time measuring", "in force changed", "rule lowers the return"]
    heads += ["in force lowers it"]
    yield " | ".join(heads)
    yield " | ".join(["---"] * len(heads))
    for task, runs in tasks.items():
        for arm in (name for name in GAIN if name in runs):
            yield " | ".join([task, *_arm(arm, runs[arm])])


def _arm(name: str, run: Training) -> list[str]:
    last, found = np.sort(run.returns[-1])[::-1], run.weights
    outcomes = found["outcome"]
    goals = [(goal, first_reached(run, goal)) for goal in GOALS[run.task][1:]]
    reached = ", ".join(
        f"{goal:g}: {np.median(at[np.isfinite(at)]):.0f} ({np.isfinite(at).sum()})"
        for goal, at in goals
        if np.isfinite(at).any()
    )
    lost = int((outcomes == NO_TRUTH).sum())
    return [
        name, ", ".join(f"{value:.3g}" for value in last), f"{np.median(last):.3g}",
        f"{averaged(run).mean():.3g}", reached or "–", percent(float(found["share"][-1])),
        f"{(outcomes == SWITCHED).sum()} of {outcomes.size}, {lost} without a truth",
        _harmful(found["gain_rule_high"]), _harmful(found["gain_in_force_high"]),
    ]  # fmt: skip


def _harmful(high: np.ndarray) -> str:
    known = np.isfinite(high)
    return f"{(high[known] < 0).sum()} of {known.sum()}"


def main(folder: Path = FOLDER / "runs", output: Path = FOLDER) -> None:
    """Tables and verdicts into the page, differences into gain.csv."""
    tasks = {task: runs_of(folder, task) for task in TASKS}
    rows = comparisons(tasks)
    put(output / "README.md", "gain", page(tasks, rows))
    rows.to_csv(output / "gain.csv", index=False, float_format="%.6g")


if __name__ == "__main__":
    tyro.cli(main)
