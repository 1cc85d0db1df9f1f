"""Events and progress of a run: plain values that both views show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
RECENT = 20  # rows from which the pace is taken


@dataclass(frozen=True)
class Event:
    """One sentence, at an iteration or update, with the kind of alarm that it is."""

    at: int
    kind: str
    text: str


def last_of_each_kind(events: Sequence[Event]) -> list[tuple[Event, int]]:
    """The last event of each kind of alarm and how many there were, in order; every other event."""
    last: dict[str, Event] = {}
    often = Counter(_kind(each) for each in events)
    for each in events:
        last.pop(_kind(each), None)
        last[_kind(each)] = each
    return [(each, often[kind]) for kind, each in last.items()]


def _kind(event: Event) -> str:
    return event.text if event.kind == "run" else event.kind


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        across: what is counted; done: of them; total: None where unknown.
        rate: of the latest rows, per second, NaN where unknown; seconds: since the run began.
        beat: seconds between the latest rows, 0 where unknown.
    """

    across: str
    done: int
    total: int | None
    rate: float = nan
    seconds: float = 0.0
    beat: float = 0.0

    @property
    def share(self) -> float | None:
        return None if self.total is None else min(self.done / max(self.total, 1), 1.0)

    @property
    def left(self) -> float | None:
        """Seconds to the end at the present rate; None where unknown."""
        if self.total is None or not isfinite(self.rate) or self.rate <= 0:
            return None
        return max(self.total - self.done, 0) / self.rate


def paced(across: str, total: int | None, at: Numbers, seconds: Numbers) -> Progress:
    """From the rows of a table: what was counted, [R], and when, [R]."""
    if not len(at):
        return Progress(across, 0, total)
    late, when = at[-RECENT:], seconds[-RECENT:].astype(np.float64)
    took = float(when[-1] - when[0])
    rate = float(late[-1] - late[0]) / took if took > 0 else nan
    beat = float(np.median(np.diff(when))) if len(when) > 1 else 0.0
    return Progress(across, int(at[-1]), total, rate, float(when[-1]), beat)


@dataclass(frozen=True)
class Layer:
    """One tensor of a policy, in the last row of the probe (medians over seeds)."""

    name: str
    norm: float
    ratio: float
    nonfinite: float
    zero: float
