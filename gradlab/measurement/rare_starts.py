"""What starts that are rarer than any of the sample add to the variance.

A standard error is made of the starts at hand. Where their law has tails, much of the variance may
be carried by starts so rare that N of them hold none, and the interval that they give is too low
and too narrow at once; no statistic of the sample itself shows that (the largest of 64 squared
norms hardly tells Student's t with 4.5 degrees of freedom from a Gaussian). The law can be asked:

    pool      65,536 starts or more, r their Mahalanobis distances from the mean
    rare      the 1 in 2 N that are farthest, in which a sample of N has half a start; gradients are
              taken at a quarter of N of them, at most 32 (8 where Jacobians are dear)
    share     p E[|G − μ|² | rare] / (p E[|G − μ|² | rare] + E |G − μ|²),  p = 1/(2N)
    power     m with E[r²ᵐ | rare] / E r²ᵐ as it was measured of |G|
    k         2 m k_r, k_r the generalised Pareto shape of r: that of |G|² (`statistics.pareto`)

States that were given have no law to draw from, and of visited ones as starts of their own (the
matched truth at visited states) a pool would be 65,536 trajectories: there the check is not made.
The largest share of one sample in a mean square stands in its place. It is of the sample, and so
shows neither what the sample lacks nor, alone, that anything is lacking: it flags nothing.

Starts whose own k_r is so small that no power below the largest tried makes a tail of it that is
flagged need no gradients: Gaussian, uniform and all bounded ones.

From k = ½ on |G|² has no variance and its mean no standard error: intervals of variances and errors
are not believed, at this N and at others not much larger. Below 1,024 samples any tail is too much,
k > 0.1 where that of the starts exceeds its standard error: under starts of Student's t with 9
degrees of freedom 64 of them cover a relative error or an SNR in 81 to 90 of 100 cases. Powers of
Gaussian starts have k ≤ 0 whatever their kurtosis; their intervals hold (`reports/coverage`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gradlab.data.noise import child, stream
from gradlab.gradients.start_laws import visits
from gradlab.gradients.starts import Starts
from gradlab.measurement.moments.inner_products import Measured
from gradlab.measurement.moments.squared_norms import mean_squares
from gradlab.runs.check_results import RARE, UNDRAWN, CheckResult
from gradlab.runs.trimmed_starts import REMEDY, central
from gradlab.statistics.moments import Array, Moments, pair_mean, second_moment
from gradlab.statistics.pareto import tail_shape
from gradlab.tasks.task import Starts as Law
from gradlab.tasks.trimmed import distances, spread
from gradlab.truth.scout import linearization_price
from gradlab.truth.truth import Truth

if TYPE_CHECKING:
    from gradlab.measurement.problem import Problem

RARE_STARTS, DEAR, FEWEST = 32, 8, 4  # whose gradients are taken
POOL = 1 << 16  # starts whose distances are looked at, at least
UNKNOWN = 0.5  # k of |G|² from which on it has no variance
ENOUGH, SMALL = 1024, 0.1  # samples below which a smaller k is too much, and that k
ERROR = 0.036  # standard error of the starts' own shape, from 768 of them
NEGLIGIBLE = 0.05  # share of the variance that no interval notices
POWERS = np.linspace(0.0, 8.0, 65)  # of the distance, among which that of |G| is looked for


@dataclass(frozen=True)
class Stratum:
    """The starts that are farther than any of N.

    Attributes:
        states: [E, ds], some of them.
        ratios: log E[r²ᵐ | rare] / E r²ᵐ of each power m, rising.
        tail: generalised Pareto shape of the distances r.
    """

    states: Tensor
    ratios: Array
    tail: float

    @property
    def heaviest(self) -> Tail:
        """Of any gradient: all of its variance, and the highest power of the distance."""
        return Tail(1.0, 2 * float(POWERS[-1]) * self.tail, self.tail)


def rare_starts(posed: Problem, truth: Truth, measured: Measured) -> tuple[CheckResult, ...]:
    """The check, or what stands in its place; none where every start is the same."""
    if not posed.drawn:
        return (_undrawn("they were given, so that no others can be drawn", measured),)
    if not (posed.objective or posed.law == "start"):
        why = "each is a visited state, a trajectory of its own, and so many are not simulated"
        return (_undrawn(why, measured),)
    n = measured.starts
    most = DEAR if linearization_price(posed.task.simulator) else RARE_STARTS
    rare = stratum(posed.task.starts, n, posed.setting.seed, min(max(n // 4, FEWEST), most))
    if rare is None:
        return ()
    if not rare.heaviest.unknown(n):
        return (_tailless(rare, n),)
    far = _mean_squares(posed, truth, rare.states, measured.visits)
    cells = measured.cells
    return (_result({key: tail(cells[key], far[key], rare, n) for key in cells}, n),)


def stratum(law: Law, n: int, seed: int, count: int = RARE_STARTS) -> Stratum | None:
    """The stratum of 1 in 2 N, and `count` of it; None where every start is the same."""
    size = max(POOL, 2 * n * count)
    pool = law(size, stream(child(seed, "rare starts"), "starts")).double()
    if (pool == pool[0]).all():
        return None
    distance = distances(pool, *spread(pool))
    beyond = size // (2 * n)
    chosen = distance.topk(beyond).indices[:: beyond // count][:count]
    r = distance.numpy()
    far = r[chosen.numpy()]
    ratios = [np.log((far ** (2 * m)).mean() / (r ** (2 * m)).mean()) for m in POWERS]
    return Stratum(pool[chosen], np.array(ratios), tail_shape(r))


@dataclass(frozen=True)
class Tail:
    """Share of the variance that the stratum carries, k of the squared norm and of the starts."""

    share: float
    k: float
    k_starts: float

    def unknown(self, n: int) -> bool:
        shown = n >= ENOUGH or self.k > UNKNOWN or self.k_starts > ERROR
        return shown and self.k > limit(n) and self.share > NEGLIGIBLE


def limit(n: int) -> float:
    """k up to which intervals of N samples hold."""
    return UNKNOWN if n >= ENOUGH else SMALL


def tail(common: Moments, far: float, there: Stratum, n: int) -> Tail:
    """Of one cell, with far = E[|G|² | rare]; NaN where a gradient is not finite.

    |G − μ| at a rare start is at least |G| − |μ|, with |G| the root of the mean square: the share
    is a lower one.
    """
    mean2 = max(pair_mean(common.gradient, common.size).value, 0.0)
    square = second_moment(common).value
    beyond = max(far**0.5 - mean2**0.5, 0.0) ** 2 / (2 * n)
    total = beyond + max(square - mean2, 0.0)
    if not (np.isfinite(total) and total > 0 and square > 0):
        return Tail(float("nan"), float("nan"), there.tail)
    power = float(np.interp(np.log(far / square), there.ratios, POWERS))
    return Tail(beyond / total, 2 * power * there.tail, there.tail)


def _mean_squares(
    posed: Problem, truth: Truth, rare: Tensor, samples: int
) -> dict[tuple[str, int], float]:
    """E |G|² of every cell at the rare starts, or at the states that are visited from them."""
    ones = torch.ones(len(rare), dtype=torch.float64)
    at = Starts(rare, ones, torch.arange(len(rare)))
    setting = replace(posed.setting, starts=at)
    if posed.objective:
        steps = max(setting.horizon, 1) if truth.every is None else truth.horizon
        at = visits(replace(setting, horizon=steps), samples)
    return mean_squares(posed.chosen, setting, at)


def _undrawn(why: str, measured: Measured) -> CheckResult:
    """That the check is not made, and how much of a mean square is one start's."""
    cells = measured.cells
    share = {key: float(cell.squares.max() / cell.squares.sum()) for key, cell in cells.items()}
    finite = {key: value for key, value in share.items() if np.isfinite(value)}
    result = f"not looked for among {measured.starts} starts: {why}"
    if not finite:
        return CheckResult(UNDRAWN, result, "no gradient is finite", True)
    name, h = max(finite, key=lambda key: finite[key])
    meaning = (
        f"what they would add to variances and errors is not known; of these starts one carries up "
        f"to {finite[name, h]:.0%} of a mean square ({name}, h = {h})"
    )
    return CheckResult(UNDRAWN, result, meaning, True)


def _tailless(rare: Stratum, n: int) -> CheckResult:
    shape = f"Pareto k of their distances from the mean {rare.tail:.2f}"
    shape = shape if np.isfinite(rare.tail) else "their distances from the mean hardly differ"
    return CheckResult(
        RARE, f"the starts have no tail ({shape})", f"{n} starts measure variances and errors", True
    )


def _result(tails: Mapping[tuple[str, int], Tail], n: int) -> CheckResult:
    finite = {key: each for key, each in tails.items() if np.isfinite(each.share)}
    if not finite:
        return CheckResult(RARE, "no gradient is finite at them", "nothing can be said", True)
    unknown = [key for key, each in finite.items() if each.unknown(n)]
    name, h = max(unknown or finite, key=lambda key: finite[key].share)
    most = finite[name, h]
    result = (
        f"starts rarer than 1 in {2 * n} carry up to {most.share:.0%} of a variance ({name}, "
        f"h = {h}; Pareto k of the squared norm {most.k:.2f})"
    )
    if not unknown:
        return CheckResult(RARE, result, f"{n} starts measure variances and errors", True)
    names = ", ".join(dict.fromkeys(name for name, _ in unknown))
    more = f"{ENOUGH} or more" if n < ENOUGH and most.k <= UNKNOWN else "many more"
    meaning = (
        f"variances and errors, and what follows from them, are not reliable at this N in "
        f"{len(unknown)} of {len(finite)} cells ({names}; k above {limit(n):g}): take {more}, or "
        f"starts from the {central(REMEDY)} of their law (--trim-starts {REMEDY:g}: another "
        f"question); directions and gains are not concerned"
    )
    return CheckResult(RARE, result, meaning, False)
