"""The candidates that the samples cannot rule out as the best one.

For K candidates (horizons of one estimator, or pairs of estimator and horizon) with errors θ_n on
common groups of starts, candidate n stays if and only if

    T_n = max_m (θ_n − θ_m) / se_nm  ≤  95% quantile of  max_m (W_n − W_m) / se_nm,

W = mean_g (ω_g − 1) ψ_g with the jackknife's pseudo-values ψ and one draw of multipliers ω for all
n and m; the quantile goes from normal to Student's tails, since se is estimated. Each candidate is
tested against everybody on what they do not have in common. Nothing is eliminated first and no
shape of the profile is assumed, so that the best candidate (each of them under exact ties) is in
the set with 95% (the inverted test of "n is best": Mogstad, Romano, Shaikh & Wilhelm 2024, Rev.
Econ. Stud. 91, section 3; multipliers: Chernozhukov, Chetverikov & Kato 2013, Ann. Stat. 41). The
set is never empty: T = 0 for the smallest estimate.

What to replace first: the one player, or the two together, that take most off per replacement.

    g_S = v(∅) − v(S),    |S| = 1 or 2,    chosen: the largest g_S / |S|

Shapley's shares say how much of v(∅) a player makes over all orders, not what its replacement does
while all others stay: where players cancel, replacing the largest share alone can raise v. The two
together are chosen only where they take off more than twice what the best single one does. All g_S
are on the same groups, and the interval of the chosen one pays for the choice
(`selection.chosen_level`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import scipy
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.statistics.comparison import POWER, more_samples
from gradlab.statistics.intervals import LEVEL, Z, bootstrap_counts, pseudo_values
from gradlab.statistics.moments import Array, Estimate
from gradlab.statistics.shapley import Game

COVERAGE = 0.95
_ROUNDING = 1e-10  # share of a standard error below which a difference has none of its own


@dataclass(frozen=True)
class RankSet:
    """The candidates that may be best, each array [K], in the order in which they were given.

    Attributes:
        value: the estimates; best: index of the best of them.
        kept: whether a candidate may be the best one.
        unknown: no finite estimate: neither kept nor ruled out.
        statistic, critical: T_n and the largest T_n with which n is kept.
        contender: the candidate that speaks most against n; gap, se: by how much n is worse than it
            (negative where it is better), and the standard error of that.
    """

    value: Array
    best: int
    kept: NDArray[np.bool_]
    unknown: NDArray[np.bool_]
    statistic: Array
    critical: Array
    contender: NDArray[np.int64]
    gap: Array
    se: Array


def smallest(candidates: Sequence[Estimate]) -> RankSet:
    """The set of candidates with the smallest value: mean squared errors.

    Raises:
        InputError: no candidate is finite, or they were not measured on the same groups.
    """
    values, psi, unknown = _finite(candidates)
    among = np.flatnonzero(~unknown)
    gap = values[:, None] - values[None, :]
    groups = len(psi)
    W = (bootstrap_counts(groups) - 1.0) @ psi / np.sqrt(groups * (groups - 1))
    se = _standard_errors(psi)
    ratio = _ratios(gap, se, values)
    contender = ratio.argmax(axis=1)
    rows = np.arange(len(values))
    statistic = ratio[rows, contender]
    critical = np.array([_student(_critical(W, se[n], n), groups) for n in range(len(rows))])

    def everybody(found: Array) -> Array:
        whole = np.full(len(candidates), np.nan)
        whole[among] = found
        return whole

    kept, contenders = np.zeros(len(candidates), dtype=bool), np.arange(len(candidates))
    kept[among], contenders[among] = statistic <= critical, among[contender]
    return RankSet(
        value=np.array([candidate.value for candidate in candidates]),
        best=int(among[values.argmin()]),
        kept=kept,
        unknown=unknown,
        statistic=everybody(statistic),
        critical=everybody(critical),
        contender=contenders,
        gap=everybody(gap[rows, contender]),
        se=everybody(se[rows, contender]),
    )


def largest(candidates: Sequence[Estimate]) -> RankSet:
    """The set of candidates with the largest value: cosines. Gaps are still positive where worse.

    Raises:
        InputError: as for `smallest`.
    """
    turned = [Estimate(-candidate.value, -candidate.left_out) for candidate in candidates]
    turned_set = smallest(turned)
    return replace(turned_set, value=-turned_set.value)


def signs(candidates: Sequence[Estimate]) -> NDArray[np.int64]:
    """+1 above 0, −1 below 0, 0 not decided: right for all candidates together in 95%.

    θ_n is decided where |θ̂_n| > c se_n, c the 95% quantile of max_n |W_n| / se_n with one draw of
    multipliers for all, as above; candidates without a finite estimate are not decided.

    Raises:
        InputError: as for `smallest`.
    """
    values, psi, unknown = _finite(candidates)
    groups = len(psi)
    error = np.sqrt((psi**2).sum(axis=0) / (groups * (groups - 1)))
    W = (bootstrap_counts(groups) - 1.0) @ psi / np.sqrt(groups * (groups - 1))
    measured = error > 0
    normal = 0.0
    if measured.any():
        largest_of_all = (np.abs(W[:, measured]) / error[measured]).max(axis=1)
        normal = float(np.quantile(largest_of_all, COVERAGE))
    sign = np.zeros(len(candidates), dtype=np.int64)
    decided = np.abs(values) > _student(normal, groups) * error
    sign[np.flatnonzero(~unknown)] = np.where(decided, np.sign(values), 0).astype(np.int64)
    return sign


def chosen_level(candidates: Sequence[Estimate], kept: NDArray[np.bool_]) -> float:
    """Level of each end at which an interval of the chosen candidate holds in 95%.

    The smallest of several estimates is too small, and an interval that ignores the choice misses
    its value on that side. Simultaneous intervals do not, whichever was chosen; only candidates
    that may be best need to be among them (locally simultaneous inference: Zrnic & Fithian 2024,
    Ann. Stat. 52). So the level is that of the 95% quantile of max |W_k| / se_k over the kept ones:
    97.5% where one is kept, or where all rise and fall together, and more the less they do.

    Args:
        kept: [K], of the `RankSet` of these candidates.

    Raises:
        InputError: as for `smallest`.
    """
    _, psi, unknown = _finite(candidates)
    psi = psi[:, np.asarray(kept)[~unknown]]
    groups = len(psi)
    W = (bootstrap_counts(groups) - 1.0) @ psi / np.sqrt(groups * (groups - 1))
    error = np.sqrt((psi**2).sum(axis=0) / (groups * (groups - 1)))
    W, error = W[:, error > 0], error[error > 0]
    if W.shape[1] < 2:
        return LEVEL
    farthest = float(np.quantile((np.abs(W) / error).max(axis=1), COVERAGE))
    return max(float(scipy.stats.norm.cdf(farthest)), LEVEL)


def separations(kept: RankSet, samples: int) -> dict[int, int]:
    """About how many more samples would rule out each member of the set as worse than its
    contender, those first that are nearest to leaving it.

    The set's critical value is larger than an interval's, since a member is compared with all
    others; members that no affordable number of samples would rule out are left out.
    """
    found = {}
    for n in map(int, np.flatnonzero(kept.kept)):
        if n == kept.best or not kept.gap[n] > 0:
            continue
        # `more_samples` reaches z(97.5%) + z(power); here critical + z(POWER) is needed.
        reach = kept.critical[n] + scipy.stats.norm.ppf(POWER) - Z
        more = more_samples(
            float(kept.gap[n]), float(kept.se[n]), samples, float(scipy.stats.norm.cdf(reach))
        )
        if more is not None:
            found[n] = max(more, 1)
    return dict(sorted(found.items(), key=lambda each: each[1]))


def _finite(candidates: Sequence[Estimate]) -> tuple[Array, Array, NDArray[np.bool_]]:
    """Finite values [k], their centred pseudo-values [G, k], and which of all are not finite."""
    groups = {len(candidate.left_out) for candidate in candidates}
    if len(groups) > 1:
        raise InputError(
            f"candidates have {sorted(groups)} groups: compare estimates from the same starts"
        )
    unknown = np.array(
        [
            not (np.isfinite(candidate.value) and np.isfinite(candidate.left_out).all())
            for candidate in candidates
        ],
        dtype=bool,
    )
    finite = [candidate for candidate, lost in zip(candidates, unknown, strict=True) if not lost]
    if not finite or min(groups) < 2:
        raise InputError(
            f"candidates: {len(finite)} of {len(candidates)} are finite, groups of starts: "
            f"{sorted(groups)}; needed are at least one finite candidate and two groups"
        )
    psi = np.stack([pseudo_values(candidate) for candidate in finite], axis=1)
    return np.array([candidate.value for candidate in finite]), psi - psi.mean(axis=0), unknown


def _standard_errors(psi: Array) -> Array:
    """[k, k] of every difference; exactly 0 where a difference is rounding of two equal columns."""
    G = len(psi)
    scale = np.sqrt((psi**2).sum(axis=0))
    se = np.stack([np.sqrt(((psi - psi[:, [n]]) ** 2).sum(axis=0)) for n in range(psi.shape[1])])
    se[se <= _ROUNDING * np.maximum(scale[:, None], scale)] = 0.0
    return np.asarray(se / np.sqrt(G * (G - 1)))


def _ratios(gap: Array, se: Array, values: Array) -> Array:
    """gap / se; a gap without error decides at once, unless it is rounding."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = gap / se
    size = _ROUNDING * np.maximum(np.abs(values)[:, None], np.abs(values))
    exact = np.where(np.abs(gap) <= size, 0.0, np.copysign(np.inf, gap))
    return np.where(se > 0, ratio, exact)


def _critical(W: Array, se: Array, n: int) -> float:
    """95% quantile of max_m (W_n − W_m) / se_nm; at least 0, what n has against itself."""
    others = se > 0
    if not others.any():
        return 0.0
    draws = ((W[:, [n]] - W[:, others]) / se[others]).max(axis=1)
    return max(float(np.quantile(draws, COVERAGE)), 0.0)


def _student(normal: float, groups: int) -> float:
    """The quantile of Student's t with the probability that a normal one, at least 0, has."""
    # SciPy 1.15 has −7e-17 for 0, by which the smallest would not be in its own set.
    return max(float(scipy.stats.t.isf(scipy.stats.norm.sf(normal), groups - 1)), 0.0)


_FEWEST = 3  # groups that a set of candidates needs
_MOST_AT_ONCE = 2


@dataclass(frozen=True, eq=False)
class BestReplacement:
    """The chosen set of players.

    Attributes:
        taken_off: g_S; level: of each end of an interval that holds in 95% although S was chosen.
        rivals: sets that may take off more per replacement, by their estimates; sets that take off
            exactly nothing are left out.
    """

    players: tuple[str, ...]
    taken_off: Estimate
    level: float
    rivals: tuple[tuple[str, ...], ...]


def best_replacement(game: Game) -> BestReplacement | None:
    """None with too few groups, or where no v is finite."""
    k = len(game.players)
    sets = [one for n in range(1, _MOST_AT_ONCE + 1) for one in combinations(range(k), n)]
    taken = []
    for one in sets:
        replaced = sum(1 << player for player in one)
        with np.errstate(invalid="ignore"):
            value = float(game.value[0] - game.value[replaced])
            taken.append(Estimate(value, game.left_out[0] - game.left_out[replaced]))
    per_part = [
        Estimate(each.value / len(one), each.left_out / len(one))
        for one, each in zip(sets, taken, strict=True)
    ]
    finite = [np.isfinite(each.value) and np.isfinite(each.left_out).all() for each in per_part]
    if game.left_out.shape[1] < _FEWEST or not any(finite):
        return None
    ranks = largest(per_part)
    level = chosen_level(per_part, ranks.kept)
    others = [
        i
        for i in np.argsort(-ranks.value)
        if ranks.kept[i] and i != ranks.best and (taken[i].value or taken[i].left_out.any())
    ]

    def named(i: int) -> tuple[str, ...]:
        return tuple(game.players[player] for player in sets[i])

    rivals = tuple(named(i) for i in others)
    return BestReplacement(named(ranks.best), taken[ranks.best], level, rivals)
