"""What each claim's criterion asks for: numbers beside thresholds, from the frozen outcomes.

A part is one number of a criterion with its 95% interval. It is met where the whole interval lies
on the wanted side, missed where the whole interval lies on the other, else undecided; a number
without an error (a count of violations, a closed form) has an interval of no width. A claim

    holds       where every part is met
    refuted     where a part is missed: criteria say "in every world", "at every horizon"
    undecided   where none is missed and some are undecided
    not tried   without numbers, or where the premise of the claim does not occur
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite, log, nan
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from gradlab.statistics.comparison import more_samples
from gradlab.statistics.intervals import Z

Side = Literal["above", "below"]
State = Literal["met", "missed", "undecided"]
Outcome = Literal["holds", "refuted", "undecided", "not tried"]
Numbers = Mapping[str, float]
VERDICTS = "verdicts.json"  # of all claims of a folder


@dataclass(frozen=True)
class Part:
    """One number of a criterion.

    Attributes:
        label: what it is of; value, low, high: with its interval, NaN where it is lost.
        side, threshold: where it has to lie.
        ratio: its error is even on the logarithm.
        n: trials, seeds or starts behind its interval, where it is not the claim's own number.
    """

    label: str
    value: float
    low: float
    high: float
    side: Side
    threshold: float
    ratio: bool = False
    n: int | None = None

    @property
    def wrong(self) -> bool:
        """Its estimate lies on the side that refutes."""
        gap = self.value - self.threshold
        return gap < 0 if self.side == "above" else gap > 0

    @property
    def state(self) -> State:
        near, far = (self.low, self.high) if self.side == "above" else (-self.high, -self.low)
        threshold = self.threshold if self.side == "above" else -self.threshold
        if near >= threshold:
            return "met"
        return "missed" if far < threshold else "undecided"

    def more(self, n: int) -> int | None:
        """Further trials that would decide, were the value what it is estimated to be.

        Args:
            n: the claim's.
        """
        scale: Callable[[float], float] = log if self.ratio else float
        ends = (self.value, self.low, self.high, self.threshold)
        if not all(map(isfinite, ends)) or (self.ratio and min(ends) <= 0):
            return None
        value, low, high, threshold = map(scale, ends)
        half = value - low if value > threshold else high - value
        return more_samples(abs(value - threshold), half / Z, self.n or n)


def outcome(parts: Iterable[Part]) -> Outcome:
    states = {part.state for part in parts}
    if not states:
        return "not tried"
    if "missed" in states:
        return "refuted"
    return "undecided" if "undecided" in states else "holds"


def read_verdicts(folder: Path) -> dict[str, Any]:
    """The verdicts of a folder, by claim in lower case; none where it has no file of them."""
    place = folder / VERDICTS
    return json.loads(place.read_text()) if place.is_file() else {}


@dataclass(frozen=True)
class Frozen:
    """A frozen verdict: numbers in the folder's file, {stem}.csv with every value behind."""

    stem: Path

    @property
    def numbers(self) -> Numbers:
        numbers: Numbers = read_verdicts(self.stem.parent)[self.stem.name]["numbers"]
        return numbers

    @property
    def rows(self) -> pd.DataFrame:
        return pd.read_csv(self.stem.with_suffix(".csv"))


def exact(label: str, value: float, side: Side, threshold: float) -> Part:
    return Part(label, value, value, value, side, threshold)


def measured(
    numbers: Numbers, name: str, side: Side, threshold: float, label: str = "", joint: str = " "
) -> Part:
    """A number whose ends stand beside it as "name low" and "name high"; without them lost ones."""
    low, high = (numbers.get(f"{name}{joint}{end}", nan) for end in ("low", "high"))
    return Part(label or name, numbers[name], low, high, side, threshold)


def ratio(numbers: Numbers, name: str, side: Side, threshold: float, **more: str) -> Part:
    part = measured(numbers, name, side, threshold, **more)
    return Part(part.label, part.value, part.low, part.high, side, threshold, ratio=True)


def within(
    label: str, ends: tuple[float, float, float], least: float, most: float
) -> Iterator[Part]:
    """Value, low and high between two thresholds."""
    yield Part(label, *ends, "above", least)
    yield Part(label, *ends, "below", most)


def worst(parts: Iterable[Part]) -> Part | None:
    """The part that the outcome rests on: a missed one, else an undecided, else the nearest."""
    order = {"missed": 0, "undecided": 1, "met": 2}
    return min(parts, key=lambda part: order[part.state], default=None)


def deciding(parts: Iterable[Part], n: int) -> tuple[Part, int | None] | None:
    """The undecided part that would settle the claim, and how many trials more it wants.

    One part on the wrong side is enough to refute, so that the cheapest of those settles; where all
    estimates lie on the right side, the dearest has to be met as well. Parts that are lost, or that
    no affordable number decides, come last.
    """
    wanted = [(part, part.more(n)) for part in parts if part.state == "undecided"]
    if not wanted:
        return None
    against = [each for each in wanted if each[0].wrong and each[1] is not None]
    return min(against, key=_dear) if against else max(wanted, key=_dear)


def _dear(wanted: tuple[Part, int | None]) -> float:
    return inf if wanted[1] is None else wanted[1]
