"""EARLY-LATE: does the bias of J_n fall with n early in training, and rise with it late?

    claim       early, the critic's error dominates and falls as γⁿ, so that long horizons are the
                better ones; late, the model's dominates and n = 0 is
    paper       MPG, section III-B after Theorem 2, section IV-A; MPG-J, section III-B
    criterion   bias(25)/bias(0) of J_n through the prior, truth the simulator's long-horizon
                gradient: below 1 at the first checkpoint (upper end of the interval), above 1 at
                the last (lower end), on path tracking; where it crosses 1 against the rule's T/2

    python -m analyses.early_late [--small] [--law visited] [--length 20000] [--output FOLDER]

MPG-v2, five seeds, checkpoints at 0, 5, 10, 25, 50 and 100% of 20,000 iterations; starts are the
visited states where MPG takes its gradients (`samples`). Within a seed the interval is
the paired jackknife over starts, judged by the sign of bias² of J_25 less that of J_0, which also
decides where the truth's own size is lost in its heavy tails. Where the truth converges too late
to be precise, the same against the longest precise return stands beside it ("cut"). With
--law return the states are those that the policy visits, where the truth is the gradient of the
return, and the same criterion is the claim EARLY-LATE-RETURN, of one seed.

Before training a few starts carry the truth: 256 of seeds 1 to 3 left the claim undecided, at a
price of 640 more. They are measured anew with 4,096, as seed 0 was, fixed before; the claim stands
as it falls then. What is measured here replaces its places in the table, the rest of it stays.

With --length 100000 the same criterion, unchanged, is judged on the run of the paper's own length
(reports/mpg-table-1/full, seed 0, checkpoints at 0 to 100,000 iterations), at the states that the
policy visits: EARLY-LATE-RETURN-100000. Its replay, and with it EARLY-LATE's states, was not kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import tyro

from analyses.early_late.errors import table
from analyses.early_late.samples import CHECKPOINTS, HORIZON, LENGTH, RAMPS, TASKS
from analyses.harness.verdicts import Verdict, save

FOLDER = Path("reports/horizon-claims")
HORIZONS = (1, 2, 5, 10, 25)  # bias(n)/bias(0) of the claim
SIGNS = {1: "above 1", -1: "below 1", 0: "undecided"}


def crossings(iteration, gap):
    """Where a gap from checkpoint to checkpoint turns positive, interpolated linearly."""
    finite = np.isfinite(gap)
    x, y = iteration[finite], gap[finite]
    at = np.flatnonzero((y[:-1] < 0) & (y[1:] >= 0))
    share = -y[at] / (y[at + 1] - y[at])
    return np.asarray(x[at] + share * (x[at + 1] - x[at]))


def judge(errors: pd.DataFrame, law: str = "visited", length: int = LENGTH) -> Verdict:
    """The verdict from `errors.table`, at states of one law, of runs of one length."""
    model = errors[(errors["estimator"] == "model") & (errors["horizon"] > 0)]
    gaps = model[(model["quantity"] == "bias_gap") & (model["horizon"] == HORIZON)]
    ratios = model[model["quantity"] == "bias_ratio"]
    tasks = [task for task in TASKS if (errors["task"] == task).any()]
    found = {task: _task(gaps[gaps["task"] == task], ratios[ratios["task"] == task], law)
             for task in tasks}  # fmt: skip
    met = {
        task: (each["signs"].get(0) == -1, each["signs"].get(length) == 1)
        for task, each in found.items()
    }
    judged = met[tasks[0]]
    holds = all(judged)
    opening = "True" if holds else "Partly" if any(judged) else "Not seen"
    sentence = f"{opening}. " + " ".join(_sentence(task, each) for task, each in found.items())
    shown = model[
        model["quantity"].isin(["bias_ratio", "bias_gap"]) & model["horizon"].isin(HORIZONS)
    ]
    numbers = {
        f"ratio_{task}_{iteration}": value
        for task, each in found.items()
        for iteration, value in each["values"].items()
        if np.isfinite(value)
    }
    numbers |= {
        f"crossing_{task}_seed{seed}": at
        for task, each in found.items()
        for seed, at in each["crossings"].items()
        if np.isfinite(at)
    }
    return Verdict(
        "EARLY-LATE" + f"-{law.upper()}" * (law != "visited") + f"-{length}" * (length != LENGTH),
        "MPG, section III-B, IV-A; MPG-J, section III-B",
        "path tracking: bias(25)/bias(0) below 1 at the first checkpoint and above 1 at the last, "
        "95% intervals",
        holds,
        sentence,
        numbers,
        shown,
    )


def _task(gaps: pd.DataFrame, ratios: pd.DataFrame, law: str) -> dict[str, dict]:
    """Signs and ratios of the first seed, how many seeds agree, and where each seed crosses."""
    own = gaps[(gaps["seed"] == 0) & (gaps["law"] == law)]
    long = ratios[(ratios["horizon"] == HORIZON) & (ratios["law"] == law)]
    first = long[long["seed"] == 0].set_index("iteration")
    return {
        "signs": {int(r.iteration): sign(r.ci_low, r.ci_high) for r in own.itertuples()},
        "values": {int(i): float(x) for i, x in first["value"].items()},
        "ends": {int(i): (r["ci_low"], r["ci_high"]) for i, r in first.iterrows()},
        "seeds": {int(i): _signs(x) for i, x in gaps[gaps["law"] == law].groupby("iteration")},
        "other": _signs_by_law(gaps, law),
        "profile": {int(i): _profile(x) for i, x in _of_law(ratios, law).groupby("iteration")},
        "crossings": {int(seed): crossing(x) for seed, x in long.groupby("seed")},
    }


def sign(low: float, high: float) -> int:
    """−1: the interval is below 0; 1: above; 0: it is neither, or not finite."""
    return int(low > 0) - int(high < 0)


def crossing(rows: pd.DataFrame) -> float:
    """The iteration where |bias(25)|/|bias(0)| passes 1 for good, interpolated in its logarithm."""
    rows = rows.sort_values("iteration")
    found = crossings(rows["iteration"].to_numpy(float), np.log(rows["value"].to_numpy(float)))
    return float(found[-1]) if len(found) else float("nan")


def _signs(rows: pd.DataFrame) -> str:
    found = [sign(r.ci_low, r.ci_high) for r in rows.itertuples()]
    return f"{found.count(-1)} below, {found.count(1)} above, {found.count(0)} open"


def _signs_by_law(gaps: pd.DataFrame, law: str) -> dict[str, int]:
    own = gaps[(gaps["seed"] == 0) & (gaps["law"] != law)]
    return {f"{r.law}, {int(r.iteration)}": sign(r.ci_low, r.ci_high) for r in own.itertuples()}


def _of_law(ratios: pd.DataFrame, law: str) -> pd.DataFrame:
    return ratios[(ratios["law"] == law) & (ratios["seed"] == 0)]


def _profile(rows: pd.DataFrame) -> str:
    own = rows.set_index("horizon")["value"]
    return " ".join("–" if np.isnan(own[n]) else f"{own[n]:.2g}" for n in HORIZONS)


def _sentence(task: str, each: dict[str, dict]) -> str:
    """What one task showed."""

    def at(i: int) -> str:
        low, high = each["ends"][i]
        size = "" if np.isnan(low) else f" {each['values'][i]:.3g} [{low:.3g}, {high:.3g}]"
        return f"{i}:{size} {SIGNS[each['signs'][i]]} (seeds: {each['seeds'][i]})"

    steps = sorted(each["signs"])
    crossed = [x for x in each["crossings"].values() if np.isfinite(x)]
    where = "never crosses 1"
    if crossed:
        where = (
            f"crosses 1 for good at iteration {each['crossings'].get(0, np.nan):.0f} (seeds "
            f"{', '.join(f'{x:.0f}' for x in sorted(crossed))})"
        )
    differ = [
        f"{law}: {SIGNS[found]}"
        for law, found in each["other"].items()
        if found != each["signs"][int(law.rsplit(", ")[-1])]
    ]
    profiles = "; ".join(f"{i}: {text}" for i, text in each["profile"].items())
    other = f" Other starts or a cut truth say otherwise at {', '.join(differ)}." if differ else ""
    return (
        f"{task.replace('_', ' ').capitalize()}, bias(25)/bias(0) at iteration "
        f"{'; '.join(at(i) for i in steps)}. It {where}, the rule's T/2 is {RAMPS[task] // 2}. "
        f"bias(n)/bias(0) for n = {', '.join(map(str, HORIZONS))}: {profiles}.{other}"
    )


def main(
    small: bool = False,
    checkpoints: Path = CHECKPOINTS,
    output: Path = FOLDER,
    law: Literal["visited", "return"] = "visited",
    length: int = LENGTH,
) -> None:
    """Judge what `samples` has measured.

    Args:
        small: the pendulum's first seed alone.
        checkpoints: folder of the training runs, whose policies are needed.
        output: folder of the verdict.
        law: of the states at which gradients are taken.
        length: iterations of the training runs.
    """
    laws = ("visited", "starts") if law == "visited" else (law,)
    found = table(checkpoints, TASKS[1:] if small else TASKS, 1 if small else None, laws, length)
    before = output / "early-late.csv"
    if law == "visited" and length == LENGTH and before.exists():
        found = replaced(pd.read_csv(before), found)
    which = "" if law == "visited" else f" --law {law}"
    which += "" if length == LENGTH else f" --length {length} --checkpoints {checkpoints}"
    save(judge(found, law, length), output, f"python -m analyses.early_late{which}")


def replaced(before: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """Rows of before, those of the places that were measured since in their stead."""
    keys = ["task", "iteration", "seed"]
    measured = pd.MultiIndex.from_frame(found[keys])
    stays = before[~pd.MultiIndex.from_frame(before[keys]).isin(measured)]
    return pd.concat([found, stays], ignore_index=True).sort_values(
        keys, kind="stable", ignore_index=True
    )


if __name__ == "__main__":
    tyro.cli(main)
