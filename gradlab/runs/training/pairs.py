"""Training runs beside each other: paired over seeds, whether one has learned, which is best.

    return      difference of final returns, and of returns averaged over the run
    gradient    exp of the mean over measurements of log E_B − log E_A, E = MSE / |true gradient|²,
                and the model's own part, at the longest horizon measured (`gradient_errors`)
    learned     seeds whose last return is above their first; shown at p < 5% (binomial, one side)
    best        the highest median; differences are Bonferroni-widened for the other runs

Seed k of both runs has the same draws, starts, noise and initial networks, unless one was given
others; intervals leave one seed out in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb, exp
from statistics import NormalDist

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.runs.training.results import Floats, Training
from gradlab.statistics.comparison import Number, difference
from gradlab.statistics.intervals import Z
from gradlab.statistics.moments import Estimate
from gradlab.statistics.over_groups import aggregate

WHOLE, OWN = "relative_mse", "dynamics_relative_mse"
WORDS = {
    WHOLE: "gradient MSE / true gradient²",
    OWN: "the model's part / the simulator's gradient²",
    "mse": "gradient MSE",
    "dynamics_mse": "the model's part",
    "variance": "gradient variance per start",
    "bias2": "gradient bias²",
}
ERRORS = tuple(WORDS)
_FEWEST = 3  # seeds that make an interval


@dataclass(frozen=True)
class Pair:
    """One quantity of two runs.

    Attributes:
        first, second: means over the seeds, geometric ones where `ratio`.
        change: second − first, or second / first where `ratio`; low, high: its 95% interval.
        seeds: that both runs have; measurements: per seed, on average, behind the quantity.
    """

    quantity: str
    ratio: bool
    first: float
    second: float
    change: float
    low: float
    high: float
    seeds: int
    measurements: float

    @property
    def side(self) -> int:
        """1: the second's is larger, −1: smaller, 0: not shown."""
        neutral = 1.0 if self.ratio else 0.0
        return int(self.low > neutral) - int(self.high < neutral)


def pairs(first: Training, second: Training) -> list[Pair]:
    """What is paired, quantity by quantity; nothing where too few seeds are shared."""
    seeds = [seed for seed in first.seeds if seed in second.seeds]
    one, other = (
        np.array([int(np.flatnonzero(run.seeds == seed)[0]) for seed in seeds], dtype=np.int64)
        for run in (first, second)
    )
    shared = np.intersect1d(first.iteration, second.iteration)
    ours, theirs = (
        run.returns[np.isin(run.iteration, shared)][:, at]
        for run, at in ((first, one), (second, other))
    )
    paired = [
        _pair("final return", False, ours[-1], theirs[-1], 1.0),
        _pair("mean return over the run", False, _mean(ours, shared), _mean(theirs, shared),
              float(len(shared))),
    ] if len(shared) else []  # fmt: skip
    paired += [_errors(name, first, second, one, other) for name in ERRORS]
    return [each for each in paired if each is not None]


def table(runs: Mapping[str, Training]) -> pd.DataFrame:
    """One row per quantity and run after the first, each against the first."""
    base, *others = runs
    rows = [
        {"run": name, "against": base, **vars(pair)}
        for name in others
        for pair in pairs(runs[base], runs[name])
    ]
    return pd.DataFrame(rows)


def _mean(returns: Floats, iteration: NDArray[np.int64]) -> Floats:
    """Average of the curve [K, E] over iterations, by trapezoids."""
    if len(iteration) < 2:
        return np.asarray(returns[-1])
    area = np.trapezoid(returns, iteration, axis=0)
    return np.asarray(area / (iteration[-1] - iteration[0]))


def _errors(
    name: str, first: Training, second: Training, one: NDArray[np.int64], other: NDArray[np.int64]
) -> Pair | None:
    """Ratio of an error of the gradient at the longest horizon, where both are above 0."""
    if not first.gradients or not second.gradients:
        return None
    ours, theirs = first.gradients, second.gradients
    iterations = np.intersect1d(ours["iteration"], theirs["iteration"])
    horizons = np.intersect1d(ours["horizon"], theirs["horizon"])
    if not len(iterations) or not len(horizons):
        return None
    a, b = (
        found[name][np.isin(found["iteration"], iterations)][:, at]
        [..., found["horizon"] == horizons[-1]][..., 0]
        for found, at in ((ours, one), (theirs, other))
    )  # fmt: skip
    with np.errstate(invalid="ignore"):
        good = (a > 0) & (b > 0) & np.isfinite(a) & np.isfinite(b)
    if not good.any():
        return None
    count = good.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = (np.log(np.where(good, each, 1.0)).sum(axis=0) / count for each in (a, b))
    return _pair(name, True, a, b, float(count[count > 0].mean()))


def _pair(
    quantity: str, ratio: bool, first: Floats, second: Floats, measurements: float
) -> Pair | None:
    """Of numbers per seed (logarithms where `ratio`); seeds without one are left out."""
    good = np.isfinite(first) & np.isfinite(second)
    first, second, seeds = first[good], second[good], int(good.sum())
    if seeds < _FEWEST:
        return None
    one, other = _over_seeds(first), _over_seeds(second)
    gap = difference(other, one)
    numbers = [one.value, other.value, other.value - one.value, gap.low, gap.high]
    numbers = [exp(min(each, 700.0)) for each in numbers] if ratio else numbers
    before, after, change, low, high = numbers
    return Pair(quantity, ratio, before, after, change, low, high, seeds, measurements)


def _over_seeds(values: Floats) -> Estimate:
    seeds = len(values)
    return Estimate(float(values.mean()), (values.sum() - values) / (seeds - 1))


_CHANCE = 0.05


@dataclass(frozen=True, eq=False)
class RunOutcome:
    """One run.

    Attributes:
        first, last: return of each seed at the first and the last evaluation.
        iterations: at the last one.
        peak, peak_at: the highest median over the seeds, and its iteration.
    """

    seeds: tuple[int, ...]
    first: Floats
    last: Floats
    iterations: int
    peak: float
    peak_at: int

    @property
    def finite(self) -> Floats:
        return self.last[np.isfinite(self.last)]

    @property
    def median(self) -> float:
        """Over all seeds, one that diverged as the worst; NaN where half of them did."""
        return float(aggregate(self.last).value)

    @property
    def improved(self) -> int:
        with np.errstate(invalid="ignore"):
            return int((self.last > self.first).sum())

    @property
    def chance(self) -> float:
        """That as many of these seeds rise where rising and falling are alike."""
        n = len(self.seeds)
        return float(sum(comb(n, k) for k in range(self.improved, n + 1)) / 2**n)

    @property
    def failed(self) -> tuple[int, ...]:
        """Seeds that diverged, or end below where they began."""
        with np.errstate(invalid="ignore"):
            good = self.last > self.first
        return tuple(seed for seed, fine in zip(self.seeds, good, strict=True) if not fine)

    @property
    def missing(self) -> int:
        """Seeds to add until all of them rising would show it."""
        return max(0, next(n for n in range(1, 99) if 2.0**-n < _CHANCE) - len(self.seeds))


def outcome(run: Training) -> RunOutcome:
    """The first and last evaluation of every seed."""
    seeds = tuple(int(seed) for seed in run.seeds)
    medians = np.median(np.nan_to_num(run.returns, nan=-np.inf), axis=1)
    best = int(medians.argmax())
    peak, at = float(medians[best]), int(run.iteration[best])
    return RunOutcome(seeds, run.returns[0], run.returns[-1], int(run.iteration[-1]), peak, at)


def ranked(runs: Mapping[str, Training]) -> list[str]:
    """Names by the median of final returns, the highest first; those that diverged last."""
    medians = {name: outcome(run).median for name, run in runs.items()}
    return sorted(medians, key=lambda name: -np.nan_to_num(medians[name], nan=-np.inf))


def against_best(runs: Mapping[str, Training]) -> dict[str, Number | None]:
    """Every other run's final return less the best one's, over the same seeds; None where fewer
    than three are shared."""
    best, *others = ranked(runs)
    return {name: _gap(runs[best], runs[name], len(others)) for name in others}


def _gap(best: Training, other: Training, count: int) -> Number | None:
    found = (each for each in pairs(best, other) if each.quantity == "final return")
    if (change := next(found, None)) is None:
        return None
    wider = NormalDist().inv_cdf(1 - 0.025 / count) / Z
    low, high = (change.change + wider * (end - change.change) for end in (change.low, change.high))
    return Number(change.change, low, high, change.seeds)
