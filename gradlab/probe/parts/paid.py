"""Which stored rewards the paid ones explain, and whether the rest has anything to do with them.

A reward is explained where it equals the paid one; where it rises with it over nine tenths of a
batch (scaled, moved, clipped); or in a batch of rank correlation .9 (divided by a running
deviation). Shaped rewards and sums of several steps are not explained, and come again with a row
that is drawn again. Noise, and rewards of other rows, are not like the earlier one of their row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from math import sqrt
from typing import final

import numpy as np
import scipy
from numpy.typing import NDArray

_SAME, _ROUNDING = 1e-4, 1e-6  # relative and absolute
_RISES, _RANKS = 0.9, 0.9  # share of a batch; rank correlation of one
_PAID, _AGAIN = 0.3, 0.5  # upper ends of rank correlations, below which nothing is in common
_FEWEST, _LEAST_RATE = 8, 0.5  # rows that are no line of what was paid; γ
_WIDTH = 3.0  # deviations of an interval
_KEPT = 1024  # rows
_Array = NDArray[np.float64]
_Bools = NDArray[np.bool_]


def explained(paid: _Array, stored: _Array) -> tuple[_Bools, bool]:
    """Rows of one batch that are explained, and whether most of them are not the paid numbers."""
    same = np.isclose(stored, paid, rtol=_SAME, atol=_ROUNDING)
    if same.all():
        return same, False
    rising = _rising(paid, stored)
    if rising.mean() >= _RISES:
        return rising | same, bool(2 * same.sum() < len(same))
    if 2 * same.sum() < len(same) and _ranks(paid, stored) >= _RANKS:
        return np.ones_like(same), True
    return same, False


def cut_to_whole(paid: _Array, stored: _Array) -> bool:
    """Are they the paid numbers without their fractions, and not their signs?"""
    if 2 * np.sum(paid == np.round(paid)) > len(paid) or np.array_equal(np.sign(paid), stored):
        return False
    return any(np.array_equal(cut(paid), stored) for cut in (np.trunc, np.floor, np.rint))


def summed(paid: _Array, stored: _Array) -> _Bools:
    """Rows that are Σ γᵏ r_{t+k}, k < n, if most are, of one n > 1 and one γ from ½ to 1.

    Args:
        paid: r_t, r_{t+1}, …, [K, N]; NaN where unknown.
    """
    none = np.zeros(len(stored), dtype=bool)
    for n in range(2, paid.shape[1] + 1):
        known = np.isfinite(paid[:, :n]).all(1)
        if known.sum() < _FEWEST:
            return none
        r, y = paid[known, :n], stored[known]
        totals = r.sum(0)
        totals[0] -= y.sum()
        roots = np.roots(totals[::-1])
        rates = roots[np.isreal(roots)].real
        size = _ROUNDING * max(1.0, float(np.abs(r).max()))
        line = np.stack([r[:, 0], np.ones(len(y))], 1)
        apart = np.abs(y - line @ np.linalg.lstsq(line, y)[0]) > 10 * (_SAME * np.abs(y) + size)
        for gamma in rates[(rates > _LEAST_RATE) & (rates < 1 + _SAME)]:
            same = np.isclose(y, r @ gamma ** np.arange(n), rtol=_SAME, atol=size)
            if same.mean() >= _RISES and (same & apart).sum() >= _FEWEST:
                found = none.copy()
                found[known] = same
                return found
    return none


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
