"""Ratios, missing samples and ends of intervals, as every form of the verdict says them."""

from __future__ import annotations

from math import exp, log

from gradlab.runs.decision_rules import LogRatio
from gradlab.statistics.number import Decision
from gradlab.wording import rounded_up, span, times

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


def missing(decision: Decision, of: str = "samples") -> str:
    """about 120 more samples would: what an undecided number lacks."""
    return f"more {of} would" if decision.guess == "unknown" else further(decision.more, of)


def further(more: int | None, of: str = "samples") -> str:
    """The same of a count: 0 where the present ones should do, None where none is affordable."""
    if more is None:
        return f"no affordable number of {of} would"
    return f"about {rounded_up(more)} more {of} would" if more else "a few more would"


def capital(text: str) -> str:
    return text[0].upper() + text[1:]
