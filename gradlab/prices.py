"""What a stage of long work costs, before it begins.

price = work / rate        work from known counts, the rate from a short timed probe
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

from gradlab.wording import duration


@dataclass(frozen=True)
class Price:
    """The predicted price of one stage.

    Attributes:
        work: the counts that it is made of, in words; empty where they are not known.
        seconds: NaN where it cannot be predicted.
        at_most: the stage may end earlier, as soon as its answer stands.
    """

    stage: str
    work: str = ""
    seconds: float = nan
    at_most: bool = False

    def __str__(self) -> str:
        if not isfinite(self.seconds):
            return ", ".join(filter(None, (self.work, "price unknown")))
        bound = "at most" if self.at_most else "about"
        return ", ".join(filter(None, (self.work, f"{bound} {duration(self.seconds)}")))


def left_after(prices: Sequence[Price], stage: str) -> float:
    """Predicted seconds of the stages planned after `stage`; NaN where one of them, or the stage's
    place in the plan, is unknown."""
    names = [each.stage for each in prices]
    if stage not in names:
        return nan
    return sum((each.seconds for each in prices[names.index(stage) + 1 :]), 0.0)
