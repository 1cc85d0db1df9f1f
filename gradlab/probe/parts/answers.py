"""A check of a loop's parts: what it is asked, and its answer as one line of the log."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Literal

State = Literal["sound", "fault", "waiting", "off"]


@dataclass(frozen=True)
class Answer:
    """What a check knows so far.

    Attributes:
        state: "waiting": too few looks; "off": the loop does not hand over what it needs.
        proof: the number against its threshold in words; of "off" the reason and the way out.
        value, threshold: NaN where there are none.
        looks: that it rests on.
        kind, message: of the alarm, where it is a fault; the message ends with where to look.
    """

    state: State
    proof: str
    value: float = nan
    threshold: float = nan
    looks: int = 0
    kind: str = ""
    message: str = ""


def off(reason: str) -> Answer:
    return Answer("off", reason)
