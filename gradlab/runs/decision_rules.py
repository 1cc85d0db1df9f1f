"""The numbers that a verdict turns into words: judged horizons, ratios of errors, growth.

Intervals over horizons come from one multiplier bootstrap over groups of starts, the same ω for
every horizon: θ* = θ + mean_g (ω_g − 1) ψ_g with the jackknife's pseudo-values ψ.

    usable       cosine with the truth ≥ 0.7 and MSE ≤ 2 × the smallest, by whole 95% intervals
    not usable   one of the two intervals lies on the other side;      undecided: neither
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import numpy as np

from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import Decision, Number, decide
from gradlab.statistics.growth import Growth, variance_growth
from gradlab.statistics.intervals import bootstrap_counts, pseudo_values
from gradlab.statistics.moments import Array, Estimate
from gradlab.statistics.selection import smallest
from gradlab.statistics.tails import HEAVY

_FEWEST = 3  # groups of starts that a set of horizons needs
_PREFERENCE = (("model", "model"), ("simulator", "model"), ("simulator", "simulator"))


def judged_estimator(profile: Profile) -> str | None:
    """The estimator that the verdict is about: the model's, where there is one."""
    over_horizons = [
        name
        for e, name in enumerate(profile.estimators)
        if (profile.count[e].max(axis=0) > 0)[1:].any()
    ]
    for systems in _PREFERENCE:
        for name in over_horizons:
            identity = profile.identities[name]
            if identity.systems == systems and identity.actions == "first" and not identity.cut:
                return name
    return next(iter(over_horizons), None)


def horizons_of(profile: Profile, name: str) -> list[int]:
    """Horizons at which an estimator was measured."""
    measured = profile.count[profile.estimators.index(name)].max(axis=0) > 0
    return [h for h, here in zip(profile.horizons, measured, strict=True) if here]


def growth_of(profile: Profile, name: str) -> Growth | None:
    """Growth of an estimator's variance over horizons ≥ 1."""
    over = [h for h in horizons_of(profile, name) if h > 0]
    variances = [profile.estimate(name, "variance", h) for h in over]
    if not variances:
        return None
    values = np.array([each.value for each in variances])
    left_out = np.stack([each.left_out for each in variances])
    return variance_growth(np.array(over, dtype=np.float64), values, left_out)


def judged_horizons(profile: Profile, name: str) -> list[int]:
    """Horizons, without a gap, at which the error is a finite number."""
    over = []
    for h in horizons_of(profile, name):
        error = profile.estimate(name, "mse", h)
        if not (np.isfinite(error.value) and np.isfinite(error.left_out).all()):
            break
        over.append(h)
    return over


def heavy_horizons(profile: Profile, name: str) -> list[int]:
    """Horizons at which a few starts carry so much, by the tail index, that intervals of variance
    and error may cover less than they say."""
    if "tail_index" not in profile.quantities:
        return []
    over = horizons_of(profile, name)
    return [h for h in over if profile.estimate(name, "tail_index", h).value > HEAVY]


def _bootstrap(estimates: list[Estimate]) -> Array:
    """[replicates, estimates] around the estimates."""
    psi = np.stack([pseudo_values(each) for each in estimates])
    values = np.array([each.value for each in estimates])
    counts = bootstrap_counts(psi.shape[1])
    shift = (counts - 1.0) @ np.nan_to_num(psi).T / psi.shape[1]
    return np.asarray(values + shift)


@dataclass(frozen=True)
class LogRatio:
    """Logarithm of a ratio of mean squared errors."""

    value: float
    low: float
    high: float
    se: float

    @property
    def estimate(self) -> tuple[float, float, float]:
        """The ratio itself and its two ends."""
        return exp(self.value), exp(self.low), exp(self.high)

    def against(self, samples: int, ratio: float = 1.0) -> Decision:
        """Whether `samples` of what is behind it decide that it is above or below a ratio."""
        return decide(Number(self.value, self.low, self.high, samples, self.se), log(ratio))


def best_horizons(profile: Profile, name: str) -> tuple[int, ...]:
    """Judged horizons that may have the smallest error; () with too few groups."""
    over = judged_horizons(profile, name)
    errors = [profile.estimate(name, "mse", h) for h in over]
    if not errors or len(errors[0].left_out) < _FEWEST:
        return ()
    return tuple(h for h, here in zip(over, smallest(errors).kept, strict=True) if here)


def ratio_to_best(
    profile: Profile, cell: tuple[str, int], name: str, horizons: list[int]
) -> LogRatio | None:
    """log(MSE of a cell / smallest MSE of `name`), on the same starts."""
    others = [profile.estimate(name, "mse", h) for h in horizons]
    return least_ratio([profile.estimate(cell[0], "mse", cell[1])], others)


def least_ratio(above: list[Estimate], below: list[Estimate]) -> LogRatio | None:
    """log(smallest of `above` / smallest of `below`), where all are known to be above 0.

    Each bootstrap replicate selects its own smallest ones: the interval pays for the choice.
    """
    if not above or not below or not all((each.left_out > 0).all() for each in (*above, *below)):
        return None
    logs = [Estimate(log(error.value), np.log(error.left_out)) for error in (*above, *below)]
    draws, k = _bootstrap(logs), len(above)
    values = np.array([each.value for each in logs])
    value = float(values[:k].min() - values[k:].min())
    moved = draws[:, :k].min(axis=1) - draws[:, k:].min(axis=1)
    low, high = 2 * value - np.quantile(moved, [0.975, 0.025])
    return LogRatio(value, float(low), float(high), float(moved.std()))


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
    sure, possible = [], []
    for h in over:
        ratio = ratio_to_best(profile, (name, h), name, over)
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
