"""At which horizons one may unroll: those with a good direction and a small error.

    usable       cosine with the truth ≥ 0.7 and MSE ≤ 2 × the smallest, by whole 95% intervals
    not usable   one of the two intervals lies on the other side
    undecided    neither

Each horizon h ≥ 1 is judged by its own two intervals, without a correction for how many there are.
The smallest MSE is that over all horizons, 0 (the data gradient) included; its ratio is paired, and
each bootstrap replicate selects its own smallest one. Usable horizons need not begin at h = 1:
errors of a model may cancel beyond the first steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from gradlab.runs.decision_rules import judged_horizons, ratios_to_smallest
from gradlab.runs.profile import Profile

COSINE = 0.7  # of a usable direction
EXCESS = 2.0  # times the smallest MSE, at most

Range = tuple[int, int]


@dataclass(frozen=True)
class UsableHorizons:
    """Closed ranges of horizons, each without a gap among those measured.

    Attributes:
        measured: horizons ≥ 1 that were judged, ascending.
        usable, undecided: ranges of them; all others are not usable.
    """

    measured: tuple[int, ...]
    usable: tuple[Range, ...]
    undecided: tuple[Range, ...]

    @property
    def decided(self) -> bool:
        """Whether some horizon is usable, or none of them may be."""
        return bool(self.usable) or not self.undecided


def usable_horizons(profile: Profile, name: str) -> UsableHorizons:
    """The horizons at which an estimator is usable, and those at which it may be."""
    over = judged_horizons(profile, name)
    ratios = ratios_to_smallest(profile, name, over)
    sure, possible = [], []
    for h, ratio in zip(over, ratios, strict=True):
        ends = profile.interval(name, "cosine", h)
        small = ratio is not None and ratio.high <= log(EXCESS)
        large = ratio is not None and ratio.low > log(EXCESS)
        sure.append(ends.low >= COSINE and small)
        possible.append(not ends.high < COSINE and not large)
    return in_ranges(over, sure, possible)


def in_ranges(
    over: Sequence[int], sure: Sequence[bool], possible: Sequence[bool]
) -> UsableHorizons:
    """Ranges of the horizons ≥ 1 that are surely usable, and of those that only may be."""
    judged = [(h, s, p) for h, s, p in zip(over, sure, possible, strict=True) if h > 0]
    return UsableHorizons(
        tuple(h for h, _, _ in judged),
        _ranges([(h, bool(s)) for h, s, _ in judged]),
        _ranges([(h, bool(p and not s)) for h, s, p in judged]),
    )


def _ranges(judged: Sequence[tuple[int, bool]]) -> tuple[Range, ...]:
    ranges: list[Range] = []
    inside = False
    for h, belongs in judged:
        if belongs:
            ranges = [*ranges[:-1], (ranges[-1][0], h)] if inside else [*ranges, (h, h)]
        inside = belongs
    return tuple(ranges)


def usable_prefix(profile: Profile, name: str) -> int:
    """Column `usable_horizon`: the largest h up to which every cosine is surely at least 0.7 and
    every MSE, as estimated, at most twice the smallest; 0 where h = 1 is not among them."""
    over = judged_horizons(profile, name)
    errors = {h: profile.estimate(name, "mse", h).value for h in over}
    most = EXCESS * max(min(errors.values(), default=0.0), 0.0)
    prefix = 0
    for h in over:
        if h and not (profile.interval(name, "cosine", h).low >= COSINE and errors[h] <= most):
            break
        prefix = h
    return prefix


def least_error_at(profile: Profile, name: str) -> int:
    """Column `best_horizon`: where the estimated MSE is smallest; 0 without a finite one."""
    over = judged_horizons(profile, name)
    errors = [profile.estimate(name, "mse", h).value for h in over]
    return over[int(np.argmin(errors))] if over else 0
