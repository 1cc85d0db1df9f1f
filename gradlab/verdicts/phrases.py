"""Ratios, missing samples and ends of intervals, as every form of the verdict says them."""

from __future__ import annotations

from math import exp, log

from gradlab.runs.decision_rules import LogRatio, Range, UsableHorizons
from gradlab.statistics.number import Decision
from gradlab.wording import horizons, rounded_up, span, times

ZERO = "not distinguishable from zero"
SAME = 1.05  # errors within 5% of one another are called the same


def same(ratio: LogRatio) -> bool:
    return -log(SAME) < ratio.low and ratio.high < log(SAME)


def ratio_of(ratio: LogRatio) -> str:
    """3.2×"""
    return times(exp(ratio.value))


def ratio_span(ratio: LogRatio) -> str:
    """2.1–4.9"""
    return span(exp(ratio.low), exp(ratio.high))


def inverse(ratio: LogRatio) -> LogRatio:
    """The same ratio the other way round."""
    return LogRatio(-ratio.value, -ratio.high, -ratio.low, ratio.se)


def missing(decision: Decision, of: str = "starts") -> str:
    """about 120 more starts would: what an undecided number lacks."""
    return f"more {of} would" if decision.guess == "unknown" else further(decision.more, of)


def further(more: int | None, of: str = "starts") -> str:
    """The same of a count: 0 where the present ones should do, None where none is affordable."""
    if more is None:
        return f"no affordable number of {of} would"
    return f"about {rounded_up(more)} more {of} would" if more else "a few more would"


def capital(text: str) -> str:
    return text[0].upper() + text[1:]


def usable_text(who: str, usable: UsableHorizons, rule: str) -> str:
    """At which of the measured horizons a gradient is usable, and at which it may be.

    Args:
        rule: what "usable" rests on, in the brackets behind the horizons that were measured.
    """
    of = f"of {horizons(usable.measured)} measured, {rule}"
    perhaps = _listed(usable.undecided)
    if usable.usable:
        undecided = f"; undecided: {perhaps}" if perhaps else ""
        return f"Usable horizons of {who}: {_listed(usable.usable)}{undecided} ({of})"
    if perhaps:
        return f"Undecided whether {who} has a usable horizon: {perhaps} may be ({of})"
    return f"No horizon of {who} is usable ({of})"


def _listed(ranges: tuple[Range, ...]) -> str:
    """1–3, 7"""
    return ", ".join(str(low) if low == high else f"{low}–{high}" for low, high in ranges)
