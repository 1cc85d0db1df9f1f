"""The numbers that a verdict turns into words: usable horizon, ratios of errors, growth.

Intervals over horizons come from one multiplier bootstrap over groups of starts: θ* = θ +
mean_g (ω_g − 1) ψ_g with the jackknife's pseudo-values ψ, the same ω for every horizon, so that
what is common to all horizons cancels.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

from gradlab.runs.profile import Profile
from gradlab.statistics.growth import Growth, variance_growth
from gradlab.statistics.intervals import Interval, bootstrap_counts, interval, pseudo_values
from gradlab.statistics.moments import Array, Estimate, combine
from gradlab.statistics.number import Decision, Number, decide
from gradlab.statistics.selection import RankSet, smallest
from gradlab.statistics.tails import HEAVY

COSINE = 0.7  # lower end of a usable direction
EXCESS = 2.0  # times the smallest MSE
DIRECTION = 0.9  # cosine that one batch should reach
FEWEST = 3  # groups of starts that a set of horizons needs
PREFERENCE = ("model", "mixed", "true_dynamics")


@dataclass(frozen=True)
class UsableHorizon:
    """Largest h such that every 1 ≤ m ≤ h has a usable direction and error; 0: none.

    `best` minimises the mean squared error; both with bounds from the bootstrap over groups.
    """

    value: int
    low: int
    high: int
    best: int
    best_low: int
    best_high: int


def judged_estimator(profile: Profile) -> str | None:
    """The estimator that the verdict is about: the model's, where there is one."""
    over_horizons = [
        name
        for e, name in enumerate(profile.estimators)
        if (profile.count[e].max(axis=0) > 0)[1:].any()
    ]
    for name in (*PREFERENCE, *over_horizons):
        if name in over_horizons:
            return name
    return None


def horizons_of(profile: Profile, name: str) -> list[int]:
    """Horizons at which an estimator was measured."""
    measured = profile.count[profile.estimators.index(name)].max(axis=0) > 0
    return [h for h, here in zip(profile.horizons, measured, strict=True) if here]


def judged_cells(profile: Profile) -> list[tuple[str, int]]:
    """The horizon of least error and the longest finite one of each estimator, the judged
    estimator's first."""
    judged = judged_estimator(profile)
    names = sorted(profile.estimators, key=lambda name: name != judged)
    cells: list[tuple[str, int]] = []
    for name in names:
        over = judged_horizons(profile, name)
        over = [h for h in over if h or name == "data"]  # J_0 is everybody's horizon 0
        if over:
            errors = [profile.estimate(name, "mse", h).value for h in over]
            cells += [(name, over[int(np.argmin(errors))]), (name, over[-1])]
    return list(dict.fromkeys(cells))


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
    """Horizons at which the tail index says that a few starts carry much of what was measured.

    There intervals of variance and error may cover less than they say; none where the index was
    not measured (files of older versions).
    """
    if "tail_index" not in profile.quantities:
        return []
    over = horizons_of(profile, name)
    return [h for h in over if profile.estimate(name, "tail_index", h).value > HEAVY]


def usable_horizon(profile: Profile, name: str) -> UsableHorizon:
    """The usable horizon and the horizon of least error, with bootstrap intervals."""
    over = np.array(judged_horizons(profile, name))
    if len(over) == 0:
        return UsableHorizon(0, 0, 0, 0, 0, 0)
    mse = [profile.estimate(name, "mse", int(h)) for h in over]
    cosine = [profile.estimate(name, "cosine", int(h)) for h in over]
    low = np.array([profile.interval(name, "cosine", int(h)).low for h in over])
    error, direction = _bootstrap(mse), _bootstrap(cosine, low)
    values = np.array([each.value for each in mse])
    usable = _usable(over, values[None], low[None])[0]
    ends = _ends(_usable(over, error, direction))
    best = over[error.argmin(axis=1)]
    return UsableHorizon(int(usable), *ends, int(over[values.argmin()]), *_ends(best))


def longest_pass(profile: Profile, name: str) -> list[int]:
    """The longest run of horizons ≥ 1 with a usable direction and error, whatever lies before.

    Their errors are below that of a zero gradient, too: a run of equally lost ones is none.
    """
    over = np.array(judged_horizons(profile, name), dtype=int)
    mse = np.array([profile.estimate(name, "mse", int(h)).value for h in over])
    direction, relative = (
        [profile.interval(name, quantity, int(h)) for h in over]
        for quantity in ("cosine", "relative_mse")
    )
    passes = _passes(mse[None], np.array([each.low for each in direction])[None])[0]
    runs: list[list[int]] = [[]]
    for h, good, error in zip(over, passes, relative, strict=True):
        if h and good and error.high < 1:
            runs[-1].append(int(h))
        else:
            runs.append([])
    return max(runs, key=len)


def _ends(horizons: Array) -> tuple[int, int]:
    low, high = np.quantile(horizons, [0.025, 0.975], method="closest_observation")
    return int(low), int(high)


def _bootstrap(estimates: list[Estimate], centre: Array | None = None) -> Array:
    """[replicates, horizons] around the estimates, or around `centre` with the same spread."""
    psi = np.stack([pseudo_values(each) for each in estimates])
    values = np.array([each.value for each in estimates]) if centre is None else centre
    counts = bootstrap_counts(psi.shape[1])
    shift = (counts - 1.0) @ np.nan_to_num(psi).T / psi.shape[1]
    return np.asarray(values + shift)


def _usable(over: Array, mse: Array, direction: Array) -> Array:
    """Usable horizon of each row of [R, horizons]."""
    good = _passes(mse, direction)[:, over > 0]
    run = np.cumprod(good, axis=1).sum(axis=1)
    return np.asarray(np.concatenate([[0], over[over > 0]])[run])


def _passes(mse: Array, direction: Array) -> NDArray[np.bool_]:
    """Which of [R, horizons] have a usable direction and error."""
    smallest = np.maximum(mse.min(axis=1, keepdims=True), 0.0)
    return np.asarray((direction >= COSINE) & (mse <= EXCESS * smallest))


@dataclass(frozen=True)
class LogRatio:
    """Logarithm of a ratio of mean squared errors, its interval and standard error."""

    value: float
    low: float
    high: float
    se: float

    def against(self, samples: int, ratio: float = 1.0) -> Decision:
        """Whether `samples` of what is behind it decide that it is above or below a ratio."""
        return decide(Number(self.value, self.low, self.high, samples, self.se), log(ratio))


def best_horizons(profile: Profile, name: str) -> tuple[list[int], RankSet] | None:
    """Judged horizons and which of them may have the smallest error; None with too few groups."""
    over = judged_horizons(profile, name)
    errors = [profile.estimate(name, "mse", h) for h in over]
    if not errors or len(errors[0].left_out) < FEWEST:
        return None
    return over, smallest(errors)


def ratio_to_best(
    profile: Profile, cell: tuple[str, int], name: str, horizons: list[int]
) -> LogRatio | None:
    """log(MSE of a cell / smallest MSE of `name`), on the same starts."""
    others = [profile.estimate(name, "mse", h) for h in horizons]
    return least_ratio([profile.estimate(cell[0], "mse", cell[1])], others)


def least_ratio(above: list[Estimate], below: list[Estimate]) -> LogRatio | None:
    """log(smallest of `above` / smallest of `below`), all on the same groups.

    Each bootstrap replicate selects its own smallest ones, so that the interval pays for the
    choice. None where one of them is not known to be above 0.
    """
    if not above or not below or not all((each.left_out > 0).all() for each in (*above, *below)):
        return None
    logs = [Estimate(log(each.value), np.log(each.left_out)) for each in (*above, *below)]
    draws, k = _bootstrap(logs), len(above)
    values = np.array([each.value for each in logs])
    value = float(values[:k].min() - values[k:].min())
    ratios = draws[:, :k].min(axis=1) - draws[:, k:].min(axis=1)
    low, high = 2 * value - np.quantile(ratios, [0.975, 0.025])
    return LogRatio(value, float(low), float(high), float(ratios.std()))


@dataclass(frozen=True)
class NeededBatch:
    """N′ at which the expected cosine of one batch with the truth is `DIRECTION`.

        cosine(N′) ≈ c / √(1 + 1/(N′ snr)),     N′ = 1 / (snr (c²/DIRECTION² − 1))

    Attributes:
        cosine: c of the mean gradient, with its interval: what no batch exceeds.
        batch: N′ with its interval; None where c is not clearly above `DIRECTION`.
    """

    cosine: Interval
    value: float
    batch: Interval | None
    size: float


def needed_batch(profile: Profile, name: str, horizon: int) -> NeededBatch | None:
    """None where cosine or signal-to-noise ratio is not distinguishable from zero."""
    cosine, snr = (profile.estimate(name, each, horizon) for each in ("cosine", "snr"))
    if not all(np.isfinite(each.left_out).all() for each in (cosine, snr)):
        return None
    ends = profile.interval(name, "cosine", horizon)
    batch: Interval | None = None
    needed = combine(lambda c, s: 1 / (s * (c**2 / DIRECTION**2 - 1)), cosine, snr)
    if ends.low > DIRECTION and needed.value > 0 and (needed.left_out > 0).all():
        batch = interval("snr", needed)  # on the scale of the logarithm, as for any ratio
    return NeededBatch(ends, cosine.value, batch, needed.value)
