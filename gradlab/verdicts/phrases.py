"""Findings of numbers; and gains, changes and gradients as fields of a recommendation have them."""

from __future__ import annotations

from dataclasses import replace
from math import log, nan
from typing import Literal

from gradlab.findings import Decision, Finding
from gradlab.runs.decision_rules import LogRatio, Range
from gradlab.runs.identity import Identity
from gradlab.runs.realised import Realised
from gradlab.statistics import comparison
from gradlab.statistics.comparison import Number, decide
from gradlab.wording import describe, rounded_up, share, with_interval

_Side = Literal["above", "below", "either"]
SAME = 1.05  # errors within 5% of one another are called the same


def row(
    code: str, decision: Decision, number: Number, subject: str = "", at: str = "", unit: str = "",
    threshold: float = nan,
) -> Finding:  # fmt: skip
    """The finding of a measured number."""
    ends = number.low, number.high
    return Finding(code, decision, subject, number.value, *ends, threshold, unit, number.n, at)


def held(
    code: str, number: Number, limit: float, good: _Side,
    subject: str = "", at: str = "", unit: str = "",
) -> Finding:  # fmt: skip
    """The same, held against a limit: it passes where its whole interval lies on the good side."""
    found = decide(number, limit)
    decision: Decision = "pass" if good in ("either", found.kind) else "fail"
    shown = row(code, decision if found.decided else "undecided", number, subject, at, unit, limit)
    return replace(shown, more=more_of(found.more))


def more_of(count: int | None) -> int:
    """Further samples as a finding has them, rounded up: −1 where no affordable number is known."""
    return -1 if count is None else rounded_up(count)


def held_ratio(
    code: str, ratio: LogRatio, samples: int, limit: float, good: _Side,
    subject: str = "", at: str = "",
) -> Finding:  # fmt: skip
    """The same of a ratio, decided by its logarithm."""
    logs = Number(ratio.value, ratio.low, ratio.high, samples, ratio.se)
    found = held(code, logs, log(limit), good, subject, at, "×")
    value, low, high = ratio.estimate
    return replace(found, value=value, low=low, high=high, threshold=limit)


def same(ratio: LogRatio) -> bool:
    return -log(SAME) < ratio.low and ratio.high < log(SAME)


def inverse(ratio: LogRatio) -> LogRatio:
    """The same ratio the other way round."""
    return LogRatio(-ratio.value, -ratio.high, -ratio.low, ratio.se)


def missing(decision: comparison.Decision, of: str = "starts") -> str:
    """about 120 more starts would: what an undecided number lacks."""
    return f"more {of} would" if decision.guess == "unknown" else further(decision.more, of)


def further(more: int | None, of: str = "starts") -> str:
    """The same of a count: 0 where the present ones should do, None where none is affordable."""
    if more is None:
        return f"no affordable number of {of} would"
    return f"about {rounded_up(more):,} more {of} would" if more else "a few more would"


def capital(text: str) -> str:
    """With a capital, but for a name of the user's, as actor.0.weight or log_std."""
    named = {".", "_"} & set(text.split()[0].rstrip(".:,"))
    return text if named else text[0].upper() + text[1:]


def ranges(over: tuple[Range, ...]) -> str:
    """1–3, 7"""
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in over)


_FULL = 0.985  # from which on both ends round to 99%
_WIDE = 0.5  # both ends beyond this say nothing


def gain_text(gain: Number) -> str:
    """77% (CI 74–80%); an unknown share where anything between harm and help is possible."""
    if gain.low < -_WIDE and gain.high > _WIDE:
        return f"an unknown share ({gain.n:,} starts)"
    if gain.low >= _FULL:
        return f"over {min(int(100 * gain.low), 99)}%"
    return with_interval(gain.clipped, gain.low, gain.high, write=share)


def with_sign(value: float, low: float, high: float) -> str:
    """+0.31 (CI 0.25–0.37), as of changes of the return."""
    return f"{'+' if value >= 0 else ''}{with_interval(value, low, high)}".replace("-", "−")


def change(
    taken: Realised, cell: tuple[str, int], length: int | None = None, chosen: bool = False
) -> str:
    """+0.31 (CI 0.25–0.37), in units of return, by the user's update or another length.

    Args:
        chosen: whether the cell is mentioned because its gain is among the largest.
    """
    ends = taken.chosen_ends(cell) if chosen else taken.ends(cell, length)
    return with_sign(taken.change(cell, length).value, ends.low, ends.high)


def named(identity: Identity) -> str:
    """What an estimator differentiates, and how, as a reader would say it: your model (BPTT)."""
    who, how = describe(identity)
    return f"{who} ({how})" if how else who
