"""Two training runs with the same seeds, with and without a remedy: paired over seeds.

    return      difference of final returns, and of returns averaged over the run (the area under
                its curve by its length)
    gradient    exp of the mean over measurements of log E_B − log E_A, E = MSE / |true gradient|²,
                and E = the part of the error that is the model's own (`gradient_errors`)

at the longest horizon that was measured. Seed k of both runs has the same data draws, starts, noise
and initial networks, unless one was given others; intervals leave one seed out in turn. Errors are
taken relative to the truth since the two policies, and with them their true gradients, part as they
learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.runs.training.results import Floats, Training
from gradlab.statistics.comparison import difference
from gradlab.statistics.moments import Estimate

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
FEWEST = 3  # seeds that make an interval


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
    one, other = (_columns(run, seeds) for run in (first, second))
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


def paired_returns(first: Training, second: Training) -> Pair | None:
    """Final return of the second less the first's; None where fewer than three seeds are shared."""
    return next((each for each in pairs(first, second) if each.quantity == "final return"), None)


def table(runs: Mapping[str, Training]) -> pd.DataFrame:
    """One row per quantity and run after the first, each against the first."""
    base, *others = runs
    rows = [
        {"run": name, "against": base, **vars(pair)}
        for name in others
        for pair in pairs(runs[base], runs[name])
    ]
    return pd.DataFrame(rows)


def _columns(run: Training, seeds: list[int]) -> NDArray[np.int64]:
    return np.array([int(np.flatnonzero(run.seeds == seed)[0]) for seed in seeds], dtype=np.int64)


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
    if seeds < FEWEST:
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
