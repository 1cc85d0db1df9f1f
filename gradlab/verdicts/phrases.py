"""Ratios, missing samples and ends of intervals, as every form of the verdict says them."""

from __future__ import annotations

from math import exp, log

import numpy as np

from gradlab.runs.decision_rules import LogRatio
from gradlab.runs.profile import Profile
from gradlab.statistics.comparison import more_samples
from gradlab.wording import rounded_up, span, times

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


def more(profile: Profile, gap: float, se: float) -> str:
    """How many more samples would tell a quantity with this gap from what it is compared with."""
    return enough(gap, se, int(profile.config["starts"]))


def enough(gap: float, se: float, samples: int, of: str = "samples") -> str:
    """The same where `samples` of something are behind the quantity."""
    if not np.isfinite(gap) or not np.isfinite(se) or gap <= 0:
        return f"more {of} would"
    missing = more_samples(gap, se, samples)
    if missing is None:
        return f"no affordable number of {of} would"
    return f"about {rounded_up(missing)} more {of} would" if missing else "a few more would"


def capital(text: str) -> str:
    return text[0].upper() + text[1:]
