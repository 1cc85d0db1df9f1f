"""Which stored rewards the paid ones explain, and whether the rest has anything to do with them.

A reward is explained where it equals the paid one; where it rises with it over nine tenths of a
batch (scaled, moved, clipped); or in a batch of rank correlation .9 (divided by a running
deviation). Shaped rewards are not explained, nor sums of several steps beside what one step paid,
and come again with a row that is drawn again. Noise, and rewards of other rows, are not like the
earlier one of their row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from math import sqrt
from typing import NamedTuple, final

import numpy as np
import scipy
from numpy.typing import NDArray

_SAME, _ROUNDING = 1e-4, 1e-6  # relative and absolute
_RISES, _RANKS = 0.9, 0.9  # share of a batch; rank correlation of one
_OF_SUMS = 0.5  # of sums: clipped ones .63 to .86, those of other rows 0
_PAID, _AGAIN = 0.3, 0.5  # upper ends of rank correlations, below which nothing is in common
_FEWEST, _LEAST_RATE = 8, 0.5  # rows that are no line of what was paid; γ
_MORE = 1.4  # times one reward, above which a number is a sum of equal ones: 1 + γ and more
_WIDTH = 3.0  # deviations of an interval
_KEPT = 1024  # rows
_Array = NDArray[np.float64]
_Bools = NDArray[np.bool_]


def explained(paid: _Array, stored: _Array, sums: bool = False) -> tuple[_Bools, bool]:
    """Rows of one batch that are explained, and whether most of them are not the paid numbers.

    Args:
        sums: of several steps, which rise only about as those of the paid numbers do.
    """
    same = np.isclose(stored, paid, rtol=_SAME, atol=_ROUNDING)
    if same.all():
        return same, False
    rising = same if sums else _rising(paid, stored)
    if rising.mean() >= _RISES:
        return rising | same, bool(2 * same.sum() < len(same))
    if 2 * same.sum() < len(same) and _ranks(paid, stored) >= (_OF_SUMS if sums else _RANKS):
        return np.ones_like(same), True
    return same, False


def cut_to_whole(paid: _Array, stored: _Array) -> bool:
    """Are they the paid numbers without their fractions, and not their signs?"""
    if 2 * np.sum(paid == np.round(paid)) > len(paid) or np.array_equal(np.sign(paid), stored):
        return False
    return any(np.array_equal(cut(paid), stored) for cut in (np.trunc, np.floor, np.rint))


def of_one(paid: _Array, stored: _Array) -> _Bools:
    """Which of a batch's stored rewards are those of one step, in one scale."""
    some = (paid != 0) & (stored != 0)
    if not some.any():
        return np.zeros(len(paid), dtype=bool)
    if not np.ptp(paid):  # sums of them are one number everywhere, as scaled ones are
        return np.asarray(np.abs(stored) < _MORE * np.abs(paid))
    slope = float(np.median(stored[some] / paid[some]))
    size = np.maximum(np.abs(paid), np.median(np.abs(paid)))
    return np.asarray(np.abs(stored - slope * paid) <= _SAME * size * max(abs(slope), _SAME))


class Summed(NamedTuple):
    """Which of the rows of n known rewards are c Σ γᵏ r_{t+k}, k < n; n and γ."""

    same: _Bools
    steps: int
    rate: float


def summed(paid: _Array, stored: _Array) -> Summed | None:
    """Whether most rows are sums in one scale c, of one n > 1 and one γ from ½ to 1.

    Args:
        paid: r_t, r_{t+1}, …, [K, N]; NaN where unknown.
    """
    for n in range(2, paid.shape[1] + 1):
        known = np.isfinite(paid[:, :n]).all(1)
        if known.sum() < max(_FEWEST, 2 * n):
            return None
        r, y = paid[known, :n], stored[known]
        one = 1 / np.maximum(np.abs(r).max(1), 1e-300)  # a crash is rounded by other rewards
        weights = np.linalg.lstsq(r * one[:, None], y * one)[0]
        energy = float(weights[:-1] @ weights[:-1])
        gamma = float(weights[:-1] @ weights[1:]) / energy if energy > 0 else 0.0
        if not _LEAST_RATE < gamma < 1 + _SAME:
            continue
        sums = r @ gamma ** np.arange(n)
        scale = float(one * sums @ (one * y)) / max(float(one * sums @ (one * sums)), 1e-300)
        size = _ROUNDING * max(1.0, float(np.abs(r).max())) * abs(scale)
        line = np.stack([r[:, 0], np.ones(len(y))], 1)
        apart = np.abs(y - line @ np.linalg.lstsq(line, y)[0]) > 10 * (_SAME * np.abs(y) + size)
        same = np.isclose(y, scale * sums, rtol=_SAME, atol=size)
        if same.mean() >= _RISES and (same & apart).sum() >= _FEWEST:
            return Summed(same, n, gamma)
    return None


@final
class Unexplained:
    """Rows that are not explained: the newest ones, and those that were drawn again."""

    def __init__(self) -> None:
        self._first: dict[int, float] = {}
        self._rows: deque[tuple[float, float]] = deque(maxlen=_KEPT)  # paid, stored
        self._again: deque[tuple[float, float]] = deque(maxlen=_KEPT)  # stored first, and now

    def take(self, keys: NDArray[np.int64], paid: _Array, stored: _Array) -> None:
        """Rows of a batch; keys: of the steps that they are."""
        self._rows += zip(paid.tolist(), stored.tolist(), strict=True)
        for key, now in zip(keys.tolist(), stored.tolist(), strict=True):
            if key in self._first:
                self._again.append((self._first[key], now))
            else:
                self._first[key] = now

    @property
    def unrelated(self) -> bool:
        """Neither like what was paid nor like what the same row had before, by intervals."""
        return _highest(self._rows) < _PAID and _highest(self._again) < _AGAIN


def _highest(pairs: deque[tuple[float, float]]) -> float:
    """The upper end of a rank correlation's interval."""
    if len(pairs) < 2:
        return 1.0
    one, other = np.array(pairs).T
    return _ranks(one, other) + _WIDTH / sqrt(len(pairs) - 1)


def _ranks(one: _Array, other: _Array) -> float:
    """Rank correlation; 0 where one of both does not vary."""
    a, b = (scipy.stats.rankdata(x) - (len(x) + 1) / 2 for x in (one, other))
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else 0.0


def _rising(paid: _Array, stored: _Array) -> _Bools:
    """A longest choice of rows whose stored reward does not fall where the paid one rises, and is
    one and the same where that is equal."""
    order = np.lexsort((-stored, paid)).tolist()
    values, ends, before = stored.tolist(), list[float](), dict[int, int]()
    last: list[int] = []  # row at which the best choice of each length ends
    for row in order:
        at = bisect_right(ends, values[row])
        ends[at : at + 1], last[at : at + 1] = [values[row]], [row]
        before[row] = last[at - 1] if at else -1
    chosen, row = np.zeros(len(order), dtype=bool), last[-1] if last else -1
    while row >= 0:
        chosen[row] = True
        row = before[row]
    return chosen
