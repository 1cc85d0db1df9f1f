"""TAB1-PATH and TAB1-PEND: does MPG's Table I hold at the scale that was run?

    claims      MPG ends best and learns fastest; n-step ADP learns fast, then rests worst; on the
                pendulum MPG-v2 is best, MPG-v1 fails
    paper       MPG, Table I and section V-B1
    criteria    path tracking: final return of either MPG less that of every other row above 0
                (whole 95% interval), no ADP seed reaches −30, and either MPG reaches −30 in at most
                half the iterations of n-step DPG, TD3 and SAC, by median (half is our size)
                pendulum: MPG-v2 less every other row above 0, and at least 80% of MPG-v1's seeds
                never reach −2

Differences of means have Welch's intervals over seeds; a seed that never reaches a goal counts as
later than any that does. Budgets are equal: each algorithm of a task has the same number of
iterations and seeds, else the verdict names the range (n-step ADP ends on its plateau). The order
that the paper prints (path tracking: MPG before TD3, n-step DPG and SAC, and these before n-step
ADP; pendulum: MPG-v2 before SAC and TD3, these before ADP, and ADP before the two that fail) is
reported pair by pair with its interval: "shown" where the whole interval is above 0, "the other
way" where it is below, else "undecided". It decides nothing about the claim.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from analyses.harness.verdicts import Verdict
from gradlab import figures
from gradlab.figures.style import SIZE
from gradlab.runs.training.results import GOALS, Training, first_reached, table

PAPER = "MPG, Table I"
ORDER = {
    "path_tracking": (
        *((mpg, name) for mpg in ("mpg-v1", "mpg-v2") for name in ("td3", "n-step-dpg", "sac")),
        *((name, "n-step-adp") for name in ("td3", "n-step-dpg", "sac")),
    ),
    "inverted_pendulum": (
        *(("mpg-v2", name) for name in ("sac", "td3", "n-step-dpg", "mpg-v1")),
        *(("mpg-v2, clip 3", name) for name in ("sac", "td3")),
        *((name, "n-step-adp") for name in ("sac", "td3")),
        *(("n-step-adp", name) for name in ("mpg-v1", "n-step-dpg")),
    ),
}
MPG, RIVALS = ("mpg-v1", "mpg-v2"), ("n-step-dpg", "td3", "sac")
FAILURES = 0.8  # share of MPG-v1's seeds that may not reach the goal
Numbers = dict[str, float]


def path_tracking(runs: Mapping[str, Training]) -> Verdict:
    """TAB1-PATH from runs by name."""
    numbers, told = _differences(runs, ("mpg-v1", "mpg-v2"))
    adp = int((runs["n-step-adp"].returns >= -30).any(axis=0).sum())
    times = {name: median_time(runs[name], -30.0) for name in (*MPG, *RIVALS)}
    fast = all(
        np.isfinite(times[mpg]) and times[mpg] <= 0.5 * times[name]
        for mpg in MPG
        for name in RIVALS
    )
    numbers |= {"ADP seeds above −30": adp} | {f"{k} to −30": v for k, v in times.items()}
    sentence = (
        f"Final return {told}. {adp} of {len(runs['n-step-adp'].seeds)} ADP seeds reach −30. "
        f"Median iterations to −30: {_times(times)}. {ordering(runs)}"
    )
    compared, pairs = _pairs(runs, "path_tracking")
    numbers |= compared
    sentence += f" {pairs}"
    others = (*RIVALS, "n-step-adp")
    above = all(numbers[f"{mpg} − {other} low"] > 0 for mpg in MPG for other in others)
    criterion = (
        "final MPG − every other row above 0, ADP never reaches −30, MPG reaches −30 in at most "
        "half the iterations of n-step DPG, TD3 and SAC"
    )
    return _verdict("TAB1-PATH", criterion, above and not adp and fast, sentence, numbers, runs)


def inverted_pendulum(runs: Mapping[str, Training]) -> Verdict:
    """TAB1-PEND from runs by name."""
    numbers, told = _differences(runs, ("mpg-v2",))
    failed = float(np.isnan(first_reached(runs["mpg-v1"], -2.0)).mean())
    numbers["share of MPG-v1 seeds that never reach −2"] = failed
    times = {name: median_time(run, -2.0) for name, run in runs.items()}
    numbers |= {f"{name} to −2": value for name, value in times.items()}
    sentence = (
        f"Final return {told}. {failed:.0%} of the MPG-v1 seeds never reach −2 (the paper: it "
        f"fails). Median iterations to −2: {_times(times)}. {ordering(runs)}"
    )
    compared, pairs = _pairs(runs, "inverted_pendulum")
    numbers |= compared
    sentence += f" {pairs}"
    others = ("n-step-adp", "n-step-dpg", "mpg-v1", "td3", "sac")
    best = all(numbers[f"mpg-v2 − {other} low"] > 0 for other in others)
    holds = best and failed >= FAILURES
    criterion = (
        "final MPG-v2 − every other row above 0, and MPG-v1 never reaches −2 in at least 80% of "
        "seeds"
    )
    return _verdict("TAB1-PEND", criterion, holds, sentence, numbers, runs)


CLAIMS = {"path_tracking": path_tracking, "inverted_pendulum": inverted_pendulum}


def median_time(run: Training, goal: float) -> float:
    """Median over the seeds of the first iteration at a goal; inf where most never reach it."""
    return float(np.median(np.nan_to_num(first_reached(run, goal), nan=np.inf)))


def difference(
    first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Difference of the means of two samples of seeds, with Welch's 95% interval."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # seeds that agree to the last digit
        found = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    return float(first.mean() - second.mean()), float(found.low), float(found.high)


def ordering(runs: Mapping[str, Training]) -> str:
    """Final medians from the best, each seed beside them."""
    order = sorted(runs, key=lambda name: -float(np.median(runs[name].returns[-1])))
    each = ", ".join(
        f"{name} {np.median(runs[name].returns[-1]):.3g} "
        f"({', '.join(f'{v:.3g}' for v in np.sort(runs[name].returns[-1])[::-1])})"
        for name in order
    )
    return f"Medians of the final return and every seed, best first: {each}."


def _differences(runs: Mapping[str, Training], names: tuple[str, ...]) -> tuple[Numbers, str]:
    """Final returns less those of n-step ADP: of `names`, and of every run with a gradient clip."""
    numbers: Numbers = {}
    told = []
    other = "n-step-adp"
    for one in (*names, *(name for name in runs if ", clip " in name)):
        found = difference(runs[one].returns[-1], runs[other].returns[-1])
        name = f"{one} − {other}"
        numbers |= dict(zip((name, f"{name} low", f"{name} high"), found, strict=True))
        told.append(f"{name} {found[0]:+.3g} [{found[1]:+.3g}, {found[2]:+.3g}]")
    return numbers, ", ".join(told)


def _pairs(runs: Mapping[str, Training], task: str) -> tuple[Numbers, str]:
    """The paper's order of final returns, pair by pair."""
    numbers: Numbers = {}
    parts = []
    for first, second in ORDER[task]:
        if not {first, second} <= set(runs):
            continue
        value, low, high = difference(runs[first].returns[-1], runs[second].returns[-1])
        name = f"{first} − {second}"
        numbers |= {name: value, f"{name} low": low, f"{name} high": high}
        word = "shown" if low > 0 else "the other way" if high < 0 else "undecided"
        parts.append(f"{name} {value:+.3g} [{low:+.3g}, {high:+.3g}], {word}")
    return numbers, f"The paper's order: {'; '.join(parts)}."


def _times(times: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {value:.0f}" if np.isfinite(value) else f"{name} never"
        for name, value in times.items()
    )


def _verdict(
    claim: str, criterion: str, holds: bool, sentence: str, numbers: Numbers,
    runs: Mapping[str, Training],
) -> Verdict:  # fmt: skip
    first = next(iter(runs.values()))
    lengths = sorted({int(run.iteration[-1]) for run in runs.values()})
    scale = (
        f"{min(len(run.seeds) for run in runs.values())} seeds, "
        f"{' to '.join(f'{length:,}' for length in lengths)} of the paper's 100,000 iterations, "
        f"learning rates annealed over the run"
    )
    rows = table(runs)
    figure = Figure(figsize=SIZE, layout="constrained")
    figures.returns(rows, figure.add_subplot(), goals=GOALS[first.task])
    kept = rows[rows["quantity"] == "return"]
    return Verdict(claim, PAPER, criterion, holds, f"{sentence} ({scale}.)", numbers, kept, figure)
