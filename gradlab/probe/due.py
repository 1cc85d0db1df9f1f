"""The probe's next measurement and its time, in one line for log, page and terminal.

start: 0.29 s, within 5% after 6 seconds of training
task: first measurement in about 4 minutes (it takes 9 seconds)
task: first measurement in about 2 hours (it takes 5 minutes; within an hour at 10%)
task: no measurement, not affordable at 5%: 12% would do        (once the run is over)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from gradlab.probe.budget import Budget

HOUR = 3600.0


@dataclass(frozen=True)
class Due:
    """Something that waits until there is time for it.

    Attributes:
        what: "task" or "signal"; which: of them.
        first: is it the first of its kind?
        price: seconds that it takes; wait: seconds until there is time, 0 at the next update.
        sure: the price is known; else it takes as much at least.
        hour: the share at which it would be made within an hour.
    """

    what: str
    which: str
    first: bool
    price: float
    wait: float
    sure: bool
    hour: float = 0.0

    def __str__(self) -> str:
        when = f"in about {span(self.wait)}" if self.wait > 0 else "with the next updates"
        if not self.sure:
            when = f"in {span(self.wait)} or more, its price is not known yet"
        text = f"{self.what}: {'first' if self.first else 'next'} {self.which} {when}"
        if not self.first or not self.hour:
            return text
        more = "" if self.sure else " or more"
        cheap = f"; within an hour at {ceil(100 * self.hour)}%" if self.wait > HOUR else ""
        return f"{text} (it takes {span(self.price)}{more}{cheap})"

    def missed(self, budget: Budget) -> str:
        """The same when no more updates come; "" where there have been some."""
        if not self.first:
            return ""
        text = f"{self.what}: no {self.which}, "
        if self.wait <= 0:
            return f"{text}the run ended before there was one"
        needed = f"{ceil(100 * budget.needed(self.price))}% would do"
        needed = needed if self.sure else f"more than {needed.removesuffix(' do')} be needed"
        return f"{text}not affordable at {100 * budget.share:.3g}%: {needed}"


def overdrawn(budget: Budget) -> str:
    """The cost of setting up beyond the share, and from when on the share holds again."""
    own = budget.governed
    if not own > budget.share * budget.elapsed > 0:
        return ""
    again = span(own / budget.share)
    return f"start: {own:.2g} s, within {100 * budget.share:.3g}% after {again} of training"


def span(seconds: float) -> str:
    """A time to wait, in words."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {name}s"
    whole = max(round(seconds), 1)
    return f"{whole} second{'s' * (whole > 1)}"
