"""What each claim says and what its criterion asks for: numbers beside thresholds.

A part is one number with its 95% interval. It is met where the whole interval lies on the wanted
side, missed where the whole interval lies on the other, else undecided; a number without an error
(a count of violations, a closed form) has an interval of no width. A part is of the paper's
sentence (no violation of a bound, a direction), of our own size ("ten times less"), of equal time
(ours, where the paper has equal data), or stands beside and decides nothing. A claim

    holds                           where every part of the sentence and every size is met
    direction shown, size not       where the sentence is met and a size of ours is not
    refuted                         where a part of the sentence is missed: a violation, the
                                    opposite direction
    undecided                       where none is missed and some are undecided
    not tried                       without numbers, or where its premise does not occur
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite, log, nan
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from gradlab.statistics.comparison import more_samples
from gradlab.statistics.intervals import Z, student

Side = Literal["above", "below"]
State = Literal["met", "missed", "undecided"]
Outcome = Literal["holds", "direction shown, size not", "refuted", "undecided", "not tried"]
Of = Literal["sentence", "size", "time", "beside"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
Numbers = Mapping[str, float]
VERDICTS = "verdicts.json"  # of all claims of a folder


def _three(value: float) -> str:
    """Three digits, whole thousands without an exponent."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e6 else f"{value:.3g}"


@dataclass(frozen=True)
class Part:
    """One number of a criterion.

    Attributes:
        label: what it is of; value, low, high: with its interval, NaN where it is lost.
        side, threshold: where it has to lie.
        ratio: its error is even on the logarithm.
        n: trials, seeds or starts behind its interval, where it is not the claim's own number.
        of: the paper's sentence, a size of ours, equal time, or beside.
    """

    label: str
    value: float
    low: float
    high: float
    side: Side
    threshold: float
    ratio: bool = False
    n: int | None = None
    of: Of = "sentence"

    @property
    def shown(self) -> str:
        """0.52 [0.35, 0.65]; without an error the value alone."""
        value = _three(self.value) if isfinite(self.value) else "lost"
        if self.low == self.high:
            return value
        if not (isfinite(self.low) and isfinite(self.high)):
            return f"{value} [no interval]"
        return f"{value} [{_three(self.low)}, {_three(self.high)}]"

    @property
    def asked(self) -> str:
        return f"{'≥' if self.side == 'above' else '≤'} {self.threshold:g}"

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
        half, n = value - low if value > threshold else high - value, self.n or n
        errors = student(n - 1) if n > 1 else Z  # in half an interval
        return more_samples(abs(value - threshold), half / errors, n)


def outcome(parts: Iterable[Part], of: Of = "sentence") -> Outcome:
    """See above; of "time", by the parts at equal time alone."""
    parts = list(parts)
    states = {part.state for part in parts if part.of == of}
    if not states:
        return "not tried"
    if "missed" in states:
        return "refuted"
    if "undecided" in states:
        return "undecided"
    sized = of == "sentence" and any(part.of == "size" and part.state != "met" for part in parts)
    return "direction shown, size not" if sized else "holds"


def sized(part: Part, size: float) -> Iterator[Part]:
    """A direction, and how far beyond it we ask it to lie."""
    yield part
    yield replace(part, threshold=size, of="size")


def counted(parts: Iterable[Part], of: Of) -> Iterator[Part]:
    """Parts as those of a size, of equal time, or beside."""
    return (replace(part, of=of) for part in parts)


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
        """None where no number was asked for: such a verdict has no file."""
        file = self.stem.with_suffix(".csv")
        return pd.read_csv(file) if file.is_file() else pd.DataFrame()


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
    return replace(part, ratio=True)


def within(
    label: str, ends: tuple[float, float, float], least: float, most: float
) -> Iterator[Part]:
    """Value, low and high between two thresholds."""
    yield Part(label, *ends, "above", least)
    yield Part(label, *ends, "below", most)


def worst(parts: Iterable[Part], of: Of = "sentence") -> Part | None:
    """The part that the outcome rests on: a missed one, else an undecided, else a met one."""
    order = {"missed": 0, "undecided": 1, "met": 2}
    own = (part for part in parts if part.of == of)
    return min(own, key=lambda part: order[part.state], default=None)


def deciding(parts: Iterable[Part], n: int) -> tuple[Part, int | None] | None:
    """The undecided part that would settle the claim, and how many trials more it wants.

    One part on the wrong side is enough to refute, so that the cheapest of those settles; where all
    estimates lie on the right side, the dearest has to be met as well. Parts that are lost, or that
    no affordable number decides, come last.
    """
    own = (part for part in parts if part.of == "sentence" and part.state == "undecided")
    wanted = [(part, part.more(n)) for part in own]
    if not wanted:
        return None
    against = [each for each in wanted if each[0].wrong and each[1] is not None]
    return min(against, key=_dear) if against else max(wanted, key=_dear)


def _dear(wanted: tuple[Part, int | None]) -> float:
    return inf if wanted[1] is None else wanted[1]
