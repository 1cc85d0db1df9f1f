"""Whether a run has learned, which of several is best, and how surely; read without torch.

learned   seeds whose last return is above their first; "shown" where as many would rise by
          chance in less than 5% of runs (binomial, one side): five of five, eight of nine
best      the highest median of final returns; its difference from each other run is paired over
          seeds (`training.pairs`), each interval widened for the number of other runs (Bonferroni)
failed    a seed that has diverged, or ends below where it began
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import comb
from statistics import NormalDist

import numpy as np

from gradlab.runs.training.pairs import FEWEST, paired_returns
from gradlab.runs.training.results import Floats, Training
from gradlab.statistics.intervals import Z
from gradlab.statistics.number import Number, decide
from gradlab.statistics.seeds import aggregate

CHANCE = 0.05


@dataclass(frozen=True, eq=False)
class Outcome:
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
        return max(0, next(n for n in range(1, 99) if 2.0**-n < CHANCE) - len(self.seeds))


@dataclass(frozen=True)
class AgainstBest:
    """Another run against the best: its final return less the best's, over the same seeds.

    `gap` is None where fewer than three seeds are shared.
    """

    name: str
    gap: Number | None

    @property
    def excluded(self) -> bool:
        return self.gap is not None and decide(self.gap, 0.0).kind == "below"

    @property
    def more(self) -> int | None:
        """Seeds to add that would decide, were the gap what it is estimated to be."""
        return None if self.gap is None else decide(self.gap, 0.0).more


def outcome(run: Training) -> Outcome:
    """The first and last evaluation of every seed."""
    seeds = tuple(int(seed) for seed in run.seeds)
    medians = np.median(np.nan_to_num(run.returns, nan=-np.inf), axis=1)
    best = int(medians.argmax())
    peak, at = float(medians[best]), int(run.iteration[best])
    return Outcome(seeds, run.returns[0], run.returns[-1], int(run.iteration[-1]), peak, at)


def ranked(runs: Mapping[str, Training]) -> list[str]:
    """Names by the median of final returns, the highest first; those that diverged last."""
    medians = {name: outcome(run).median for name, run in runs.items()}
    return sorted(medians, key=lambda name: -np.nan_to_num(medians[name], nan=-np.inf))


def against_best(runs: Mapping[str, Training]) -> list[AgainstBest]:
    """Every other run against the best one."""
    best, *others = ranked(runs)
    return [AgainstBest(name, _gap(runs[best], runs[name], len(others))) for name in others]


def _gap(best: Training, other: Training, count: int) -> Number | None:
    change = paired_returns(best, other)
    if change is None or change.seeds < FEWEST:
        return None
    wider = NormalDist().inv_cdf(1 - 0.025 / count) / Z
    low, high = (change.change + wider * (end - change.change) for end in (change.low, change.high))
    return Number(change.change, low, high, change.seeds)
