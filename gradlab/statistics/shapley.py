"""Exact Shapley shares of a squared bias, with intervals.

    b_S = mean error where the causes in S are the truth's,      v(S) = |b_S|²
    φ_i = Σ_{S∌i} w_S (v(S) − v(S∪i)),    w_S = |S|! (k − 1 − |S|)! / k!     (Shapley 1953)
    Σ_i φ_i = v(∅) − v(all)

Causes are not additive: one may hide another, so a share may be negative, and the first cure may
do nothing that the last one completes. A set is a bit mask, S = Σ_{i∈S} 2^i. Every v(S) is a
U-statistic with a value for each group left out; shares are linear in v, and so have the same.

Where a split d_{S,e} of b_S − b_{S∪i} over parts e is known, the share splits without a rest:
    φ_i = Σ_e Σ_{S∌i} w_S d_{S,e} · (b_S + b_{S∪i})
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

from gradlab.errors import InputError
from gradlab.statistics.intervals import LEVEL, Interval, jackknife_se, skewness_corrected
from gradlab.statistics.moments import (
    Array,
    Estimate,
    PairSums,
    pair_mean,
    squared_norm,
)

_MOST = 6  # players: every set is tried
_METHOD = "U-statistics of all substitutions, jackknife with skewness"


@dataclass(frozen=True)
class Game:
    """v(S) of every set of players.

    Attributes:
        players: k names, player i being bit i of a set.
        value: [2^k]; left_out: [2^k, G], the same with each group left out.
        mean: of which v(∅) is the square.
    """

    players: tuple[str, ...]
    value: Array
    left_out: Array
    mean: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        k = len(self.players)
        if not 1 <= k <= _MOST:
            raise InputError(f"players has {k} names, expected 1 to {_MOST}")
        if len(self.value) != 2**k or len(self.left_out) != 2**k:
            raise InputError(
                f"value has {len(self.value)} sets and left_out {len(self.left_out)}, expected "
                f"{2**k}: one for every subset of {list(self.players)}"
            )


@dataclass(frozen=True)
class _Shares:
    """What each player takes off v, and how the rest stands.

    Attributes:
        total: v(∅).
        shapley: φ_i of each player; with v(all), which no player explains, they sum to the total.
        first: v(∅) − v({i}), what curing i alone would do.
        last: v(all others) − v(all), what i alone is worth once everything else is cured.
    """

    players: tuple[str, ...]
    total: Estimate
    shapley: tuple[Estimate, ...]
    first: tuple[Estimate, ...]
    last: tuple[Estimate, ...]


def squared_norms(players: Sequence[str], sums: PairSums, size: Array) -> Game:
    """The game of noise-corrected squared means.

    Args:
        sums: pair sums of each set's errors with themselves, [2^k, G].
        size: samples in each group, [G].
    """
    values = estimates(sums, size)
    value, left_out = ([getattr(each, x) for each in values] for x in ("value", "left_out"))
    total = squared_norm(PairSums(sums.own[0], sums.left[0], sums.right[0]), size)
    return Game(tuple(players), np.array(value), np.stack(left_out), total.mean)


def estimates(sums: PairSums, size: Array) -> list[Estimate]:
    """E X · E Z for each row of pair sums [K, G]."""
    return [
        pair_mean(PairSums(*row), size) for row in zip(sums.own, sums.left, sums.right, strict=True)
    ]


def shares(game: Game) -> _Shares:
    """All shares of a game."""
    k = len(game.players)
    everybody = 2**k - 1
    first = [[(0, 1.0)] for _ in range(k)]
    last = [[(everybody ^ 1 << i, 1.0)] for i in range(k)]
    return _Shares(
        players=game.players,
        total=Estimate(float(game.value[0]), game.left_out[0], mean=game.mean),
        shapley=tuple(_taken_off(game, i, without(k, i)) for i in range(k)),
        first=tuple(_taken_off(game, i, sets) for i, sets in enumerate(first)),
        last=tuple(_taken_off(game, i, sets) for i, sets in enumerate(last)),
    )


def _taken_off(game: Game, player: int, sets: Iterable[tuple[int, float]]) -> Estimate:
    """Σ w (v(S) − v(S∪i)); differences first, so that a bystander has exactly 0."""
    value, left_out = 0.0, np.zeros(game.left_out.shape[1])
    with np.errstate(invalid="ignore"):
        for S, weight in sets:
            joined = S | 1 << player
            value += weight * float(game.value[S] - game.value[joined])
            left_out = left_out + weight * (game.left_out[S] - game.left_out[joined])
    return Estimate(value, left_out)


def without(players: int, player: int) -> Iterator[tuple[int, float]]:
    """Every set that the player is not in, with its weight w_S; the weights sum to 1."""
    for S in range(2**players):
        if not S >> player & 1:
            yield S, 1.0 / (players * comb(players - 1, S.bit_count()))


def fraction(share: Estimate, total: Estimate) -> Estimate:
    """A share of the total, which may be negative or above 1."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.asarray(share.value) / np.asarray(total.value)
        return Estimate(float(value), share.left_out / total.left_out)


def share_interval(share: Estimate, level: float = LEVEL) -> Interval:
    """The interval of a share, either sign, each end at this level: 97.5% for a 95% one."""
    if not (np.isfinite(share.value) and np.isfinite(share.left_out).all()):
        return Interval(np.nan, np.nan, np.nan, "undefined: overflows")
    low, high = skewness_corrected(share, level)
    return Interval(low, high, jackknife_se(share.left_out), _METHOD)


def fraction_interval(share: Estimate, total: Estimate, level: float = LEVEL) -> Interval:
    """The interval of share / total; unknown where the total itself may be 0."""
    whole = share_interval(total)
    if not whole.low > 0:
        return Interval(-np.inf, np.inf, np.nan, "undefined: the total is lost in noise")
    return share_interval(fraction(share, total), level)
