"""Stored rows beside the recorded steps: which steps a row is of, and which rewards these paid.

A row is found by its observation, and is of as many steps as come before its next one; where more
of a row's action, next observation and reward is of one other step, it is a row of this one, and
the observation is what differs.

A reward is explained where it equals the paid one; where it rises with it over nine tenths of a
batch (scaled, moved, clipped); or in a batch of rank correlation .9 (divided by a running
deviation). Shaped rewards are not explained, nor sums of several steps beside what one step paid,
and come again with a row that is drawn again. Noise, and rewards of other rows, are not like the
earlier one of their row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import TYPE_CHECKING, Any, NamedTuple, final

import numpy as np
import scipy
from numpy.typing import NDArray

from gradlab.probe.parts.recorder import keys

if TYPE_CHECKING:
    from gradlab.probe.parts.recorder import Found, Ring

ROWS = 64  # of a batch, beside those that end
SAME, _ROUNDING = 1e-4, 1e-6  # relative, of rewards and of an action's size; absolute
_SUM, _SPAN = 10, 32  # steps of a reward; of a row
_FIRST, _RATE = 0.75, 0.99  # share of rows of one step; γ of sums that are not as paid
_HALF = 0.5
_RISES, _RANKS = 0.9, 0.9  # share of a batch; rank correlation of one
_OF_SUMS = 0.5  # of sums: clipped ones .63 to .86, those of other rows 0
_PAID, _AGAIN = 0.3, 0.5  # upper ends of rank correlations, below which nothing is in common
_FEWEST, _LEAST_RATE = 8, 0.5  # rows that are no line of what was paid; γ
_MORE = 1.4  # times one reward, above which a number is a sum of equal ones: 1 + γ and more
_WIDTH = 3.0  # deviations of an interval
_KEPT = 1024  # rows
_Array = NDArray[np.float64]
_Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Matched:
    """Stored rows beside the recorded steps, [K] each; None: not handed over.

    Attributes:
        begun, following: keys of the stored observations; ring: where they come from.
        places: of the steps that begin at these; sure: whether the rest of a row is of one step.
        at: places in the batch.
        on: places of the found steps and of those after them, [K, n], −1 beyond an episode; spans:
            how many of these a row is of, 1 where that is not known.
    """

    found: Found
    ring: Ring
    begun: NDArray[np.int64]
    places: NDArray[np.intp]
    sure: NDArray[np.bool_]
    following: NDArray[np.int64] | None
    action: _Array | None
    reward: _Array | None
    terminated: _Array | None
    at: NDArray[np.intp]
    on: NDArray[np.intp]
    spans: NDArray[np.intp]

    @property
    def steps(self) -> int:
        """Of most rows."""
        return int(np.bincount(self.spans).argmax()) if len(self.spans) else 1

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Whether an episode ended within the steps of most rows."""
        return np.asarray(self.ring.ends(self.on[:, : self.steps]).any((1, 2)))

    @property
    def ends(self) -> NDArray[np.bool_]:
        """Terminated and truncated, [K, 2], of the last of a row's steps."""
        return self.ring.ends(self.on[np.arange(len(self.on)), self.spans - 1])

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether the next observation came in the row's episode."""
        return (self.spans > 1) | (self.following == self.found.following)

    @cached_property
    def sums(self) -> Summed | None:
        """What sums the stored rewards of most rows are, from the found steps on."""
        if self.reward is None or self.following is None:
            return None
        most = self.known & (self.spans == self.steps)
        return summed(self.ring.paid_from(self.found.steps[most], _SUM), self.reward[most])

    def paid(self, earlier: int = 0) -> _Array:
        """Σ γᵏ r of a row's steps, or of as many that began one step `earlier`, [K]."""
        rewards = self._rewards(earlier)
        k = np.arange(rewards.shape[1])
        own = k < self.spans[:, None]
        return np.asarray(np.where(own, rewards * self._rate**k, 0.0).sum(1))

    def _rewards(self, earlier: int) -> _Array:
        paid = self.ring.paid_from(self.found.steps, self.on.shape[1])
        before = self.found.earlier[:, None]
        return np.concatenate([before, paid[:, :-1]], axis=1) if earlier else paid

    @cached_property
    def _rate(self) -> float:
        """γ of the sums, also of those that began one step earlier."""
        found = self.sums
        if found is None and self.steps > 1 and self.reward is not None:
            most = self.spans == self.steps
            found = summed(self._rewards(1)[most, : self.steps], self.reward[most])
        return _RATE if found is None else found.rate


def matched(
    ring: Ring, given: Mapping[str, NDArray[Any]], limits: tuple[Any, Any], some: int = ROWS
) -> tuple[Matched, int]:
    """Rows of a batch that were found, and how many were looked for: some, and those that end.

    Args:
        limits: of the environment's actions, None: unknown.
    """
    observation, following = given["observation"], given.get("next_observation")
    ends = np.zeros(len(observation), dtype=bool)
    if "terminated" in given:
        ends |= given["terminated"].reshape(len(ends), -1).any(1)
    rows = np.union1d(np.arange(min(some, len(observation))), np.flatnonzero(ends))
    begun = keys(observation)
    ending = ring.ending
    last = [k for k, each in enumerate(begun) if each in ending]
    rows = np.union1d(rows, np.array(last, dtype=np.intp))
    after = None if following is None else np.array(keys(following), np.int64)
    if after is not None:
        closing = ring.last
        last = [k for k, each in enumerate(after.tolist()) if each in closing]
        rows = np.union1d(rows, np.array(last, dtype=np.intp))
    places = ring.places(observation[rows])
    at, places = rows[places >= 0], places[places >= 0]

    def of(name: str) -> _Array | None:
        if name not in given:
            return None
        values = given[name]
        return values.reshape(len(values), -1)[at].astype(float)

    reward, ended = (None if x is None else x[:, 0] for x in (of("reward"), of("terminated")))
    after = None if after is None else after[at]
    mine, action = np.array(begun, np.int64)[at], of("action")
    steps, sure = _shared(ring, places, after, action, reward, limits)
    found = ring.found(at, steps)
    on, spans = _spans(ring, found, after, reward)
    return (
        Matched(found, ring, mine, places, sure, after, action, reward, ended, at, on, spans),
        len(rows),
    )


def _spans(
    ring: Ring, found: Found, following: NDArray[np.int64] | None, reward: _Array | None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places from the found steps on, and how many of them each row is of: those before its next
    observation, unless its reward is that of the first alone."""
    alone = found.steps[:, None], np.ones(len(found.steps), np.intp)
    if following is None or reward is None:
        return alone
    if np.sum(following == found.following) >= _FIRST * len(following):
        return alone
    on = ring.on_from(found.steps, _SPAN)
    after = (on >= 0) & (ring.gives(on) == following[:, None])
    spans = np.where(after.any(1), after.argmax(1) + 1, 1)
    later = (np.arange(_SPAN) > 0) & (np.arange(_SPAN) < spans[:, None])
    more = (later & (ring.rewards(on) != 0)).any(1)  # rows whose sums are not what the first paid
    several = more & ~of_one(found.reward, reward)
    return (on, spans) if several.sum() > _HALF * more.sum() else alone


def _shared(
    ring: Ring, places: NDArray[np.intp], following: NDArray[np.int64] | None,
    action: _Array | None, reward: _Array | None, limits: tuple[Any, Any],
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:  # fmt: skip
    """The steps that rows share most with, first those at their observations; and whether no other
    one is as good, and an end is of it for certain."""
    sure = np.ones(len(places), bool)
    if action is None or action.shape != ring.actions(places).shape:
        return places, sure
    own = np.zeros(len(places), bool)

    def alike(steps: NDArray[np.intp], at: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Action, next observation and reward, [3, K]."""
        other, same = ring.found(at, np.maximum(steps, 0)), np.zeros((3, len(at)), bool)
        same[0] = np.any(as_sent_or_scaled(action[at], other.action, *limits, ring.valued), axis=0)
        if following is not None:
            same[1] = following[at] == other.following
        if reward is not None:
            same[2] = own[at] & np.isclose(reward[at], other.reward, rtol=SAME)
        return same & (steps >= 0)

    every = np.arange(len(places))
    by_action, after, _ = alike(places, every)
    lost = ~by_action
    if following is not None:  # rows of several steps share their action alone
        alone = by_action & ~after
        lost |= alone & (alone.sum() < (~by_action & ~after).sum())
    at = np.flatnonzero(lost)
    if not len(at):
        return places, sure
    own = own if reward is None else ring.pays(reward)
    best, steps = 1 + alike(places[at], at).sum(0), places[at]
    sure[at] = best > 1
    ways = [ring.sent(action[at])]
    ways += [] if following is None else [ring.before(following[at])]
    for way in ways:
        same = alike(way, at)
        votes, others = same.sum(0), way != steps
        sure[at] = np.where(votes > best, same[1], sure[at] & ((votes < best) | ~others))
        best, steps = np.maximum(best, votes), np.where(votes > best, way, steps)
    shared = places.copy()
    shared[at] = steps
    return shared, sure


def as_sent_or_scaled(
    stored: _Array, sent: _Array, low: _Array | None, high: _Array | None, valued: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Stored actions that are those that were sent, within the limits of the environment, and those
    that are in shares of the limits."""
    size = SAME * max(float(np.abs(sent).max(initial=0.0)), 1e-12)

    def same(form: _Array) -> NDArray[np.bool_]:
        return np.asarray((np.abs(form - sent) <= size).all(1))

    plain, scaled = same(stored), np.zeros(len(sent), dtype=bool)
    if low is not None and high is not None:
        if not valued:  # PPO keeps what it has drawn, a critic of actions may not
            plain |= same(np.clip(stored, low, high))
        if np.isfinite(low).all() and np.isfinite(high).all():
            within = (np.abs(stored) <= 1 + SAME).all(1)
            scaled = within & same(low + (stored + 1) * (high - low) / 2)
            if not (within | plain).all():  # neither as sent nor in shares of the limits
                scaled[:] = False
    return plain, scaled


def explained(paid: _Array, stored: _Array, sums: bool = False) -> tuple[_Bools, bool]:
    """Rows of one batch that are explained, and whether most of them are not the paid numbers.

    Args:
        sums: of several steps, which rise only about as those of the paid numbers do.
    """
    same = np.isclose(stored, paid, rtol=SAME, atol=_ROUNDING)
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
    return np.asarray(np.abs(stored - slope * paid) <= SAME * size * max(abs(slope), SAME))


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
        if not _LEAST_RATE < gamma < 1 + SAME:
            continue
        sums = r @ gamma ** np.arange(n)
        scale = float(one * sums @ (one * y)) / max(float(one * sums @ (one * sums)), 1e-300)
        size = _ROUNDING * max(1.0, float(np.abs(r).max())) * abs(scale)
        line = np.stack([r[:, 0], np.ones(len(y))], 1)
        apart = np.abs(y - line @ np.linalg.lstsq(line, y)[0]) > 10 * (SAME * np.abs(y) + size)
        same = np.isclose(y, scale * sums, rtol=SAME, atol=size)
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
