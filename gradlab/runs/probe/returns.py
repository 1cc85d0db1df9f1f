"""Did the last updates raise the return? Windows of episodes against the windows before.

    J̄_k − J̄_{k−1}, Welch's interval        windows follow each other and do not overlap
    J̄_n − max_{k<n} J̄_k                    at the level of n − 1 intervals together (Bonferroni)

A window has `WINDOW` iterates of the policy, since iterates differ by more than starts do: of 250
updates of sound loops 21% lower the return. Training episodes have noise, and windows of `TRAINED`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradlab.statistics.comparison import Number
from gradlab.statistics.over_groups import difference_of_means, student_mean

COLUMNS = ("update", "step", "value")  # of a table of returns, of those that windows are made of
WINDOW, TRAINED = 16, 8  # episodes of a window: of iterates, and of the loop's own training
EPISODES_APART = 2  # looks between two episodes of the probe's own
LEAST = 250  # updates of a window, below which nothing is alarming
_SURE = 0.999  # of one end: 95% is shown by one window in forty where nothing changes
RECENT = 3  # windows against the one before each, of which is said how often the return fell

_Direction = Literal["rose", "fell", "open"]
_Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """A window against the one before.

    Attributes:
        number: the change of the mean return, or of a level that mean itself; mean: of this
            window.
        updates: that the window spans; at: its last one, and step the loop's own count there.
    """

    number: Number
    mean: float
    updates: int
    at: int
    step: int

    @property
    def direction(self) -> _Direction:
        if self.number.low > 0:
            return "rose"
        return "fell" if self.number.high < 0 else "open"


@dataclass(frozen=True)
class Returns:
    """Returns in the order of their updates; what is not finite is left out.

    Attributes:
        update, step, value: [n]; window: episodes of a window, at the least: those of one update,
            as of a rollout of PPO, are not parted.
    """

    update: NDArray[np.int64]
    step: NDArray[np.int64]
    value: _Floats
    window: int = WINDOW

    @classmethod
    def of(cls, columns: Any, window: int) -> Returns:
        """Those of a table of the log, by columns; {} has none. Episodes that ended before the
        first update filled a replay, often by random actions: they are no window to begin at."""
        update, step, value = (np.asarray(columns.get(name, ())) for name in COLUMNS)
        finite = np.isfinite(value.astype(float)) & (update > 0)
        return cls(
            update[finite].astype(np.int64), step[finite].astype(np.int64),
            value[finite].astype(float), window,
        )  # fmt: skip

    @cached_property
    def ends(self) -> list[int]:
        """Where windows end, in order: one has as many episodes, and all of its last update."""
        ends, begin = [], 0
        last = np.append(self.update[1:] != self.update[:-1], True)
        for k in np.flatnonzero(last) + 1:
            if k - begin >= self.window:
                ends.append(begin := int(k))
        return ends

    @cached_property
    def windows(self) -> list[_Floats]:
        """The windows that are full, in order."""
        return np.split(self.value, self.ends)[:-1]

    @property
    def lacking(self) -> int:
        """Episodes until the first two windows are full, at the least."""
        full = self.ends[0] if self.ends else self.window
        return 0 if len(self.ends) > 1 else max(full + self.window - len(self.value), 1)

    def levels(self) -> list[Change]:
        """Of every window its mean, with Student's interval."""
        return [self._change(k, student_mean(each)) for k, each in enumerate(self.windows)]

    def changes(self, newest: int | None = None) -> list[Change]:
        """Of every window from the second on, or of the newest ones."""
        held = self.windows
        first = 1 if newest is None else max(len(held) - newest, 1)
        return [
            self._change(k, difference_of_means(held[k], held[k - 1]))
            for k in range(first, len(held))
        ]

    @property
    def risen(self) -> bool:
        """Is the newest window above the first, by more than chance would show now and then?"""
        held = self.windows
        return len(held) > 1 and difference_of_means(held[-1], held[0], _SURE).low > 0

    def since_begin(self) -> Change | None:
        """The newest window against the first; None before there are two."""
        held = self.windows
        if len(held) < 2:
            return None
        return self._change(len(held) - 1, difference_of_means(held[-1], held[0]))

    def below_best(self) -> Change | None:
        """The newest window against the best one before, whose mean and step are told; None where
        it is not lower by more than chance shows of any of them."""
        held = self.windows
        if len(held) < 2:
            return None
        best = int(np.argmax([each.mean() for each in held[:-1]]))
        level = 1 - (1 - _SURE) / (len(held) - 1)
        number = difference_of_means(held[-1], held[best], level)
        return self._change(best, number) if number.high < 0 else None

    def _change(self, k: int, number: Number) -> Change:
        last = self.ends[k] - 1
        spanned = int(self.update[last] - self.update[self.ends[k - 1] - 1 if k else 0])
        mean = float(self.windows[k].mean())
        return Change(number, mean, spanned, int(self.update[last]), int(self.step[last]))
