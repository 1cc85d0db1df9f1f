"""What `gradlab.step` found: did the step from one policy to another raise the return?

    after      J(θ₁) − J(θ₀)            opposite   J(2θ₀ − θ₁) − J(θ₀)

from the same resets, whole episodes. Where both are lower the step was too long, or θ₀ stands on a
ridge. One step that lowers the return is no fault: most short ones of sound loops do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.statistics.number import Decision, Number, decide
from gradlab.wording import percent, two

POLICIES = ("before", "after", "opposite")
# Updates of a sound loop, and the share of such steps that lower its return: TD3, SAC and PPO on
# Pendulum, InvertedPendulum and Hopper, 14 cells.
_NORMAL = {10: 9 / 14, 250: 3 / 14}


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """Returns of three policies, and what they say of the step.

    Attributes:
        returns: [3, n], of whole episodes of the policies before and after it, and of the opposite
            step's; column by column from one reset where `paired`.
        after, opposite: changes of the return, with intervals that hold at every look together.
        paired: do the three meet the same resets?
        updates: how many made the step; None: nobody said.
        notes: what a reader must know, by topic.
    """

    returns: NDArray[np.float64]
    after: Number
    opposite: Number
    paired: bool
    updates: int | None
    notes: Mapping[str, Any]

    @property
    def starts(self) -> int:
        """Episodes of each policy."""
        return int(self.returns.shape[1])

    @property
    def helped(self) -> bool | None:
        """Did the step raise the return? None: it is not known."""
        decision = decide(self.after, 0.0)
        return decision.kind == "above" if decision.decided else None

    @property
    def headline(self) -> str:
        """What the step did to the return, and what the opposite one would have done."""
        subject = "These updates" if self.updates is None else f"These {self.updates:,} updates"
        subject = "This update" if self.updates == 1 else subject
        forward, back = decide(self.after, 0.0), decide(self.opposite, 0.0)
        if not np.ptp(self.returns, axis=0).any():
            return f"{subject} changed no return: all {self.starts} episodes are the same."
        if not forward.decided:
            return f"{subject} {self._open(forward)}"
        verb = "raised" if forward.kind == "above" else "lowered"
        return f"{subject} {verb} the return by {_size(self.after)}{self._beside(forward, back)}"

    @property
    def normal(self) -> str:
        """How often sound loops do this; "" where the step is not known to have lowered it."""
        if self.helped is not False:
            return ""
        if self.updates is None:
            shares = [f"{percent(share)} of those of {k}" for k, share in _NORMAL.items()]
            return f"Normal: of a sound loop's steps, {' and '.join(shares)} updates do this."
        k = min(_NORMAL, key=lambda known: abs(np.log(known / max(self.updates or 1, 1))))
        return f"Normal: {percent(_NORMAL[k])} of a sound loop's steps of {k} updates do this."

    def table(self) -> pd.DataFrame:
        """One row per policy.

        Columns: policy (before, after, opposite), mean (return), value, ci_low, ci_high (change of
        the return; of "before" 0), n.
        """
        nothing = Number(0.0, 0.0, 0.0, self.starts)
        changes = (nothing, self.after, self.opposite)
        means = self.returns.mean(axis=1)
        return pd.DataFrame(
            [
                {
                    "policy": name, "mean": float(mean), "value": change.value,
                    "ci_low": change.low, "ci_high": change.high, "n": self.starts,
                }
                for name, mean, change in zip(POLICIES, means, changes, strict=True)
            ]
        )  # fmt: skip

    def __str__(self) -> str:
        notes = [f"{topic}: {text}" for topic, text in self.notes.items()]
        return "\n".join(each for each in (self.headline, self.normal, *notes) if each)

    __repr__ = __str__

    def _beside(self, forward: Decision, back: Decision) -> str:
        count = f" ({self.starts} starts)"
        if not back.decided:
            return f"{count}; what the opposite step would do is not known."
        if forward.kind == back.kind == "below":
            return f", and so would the opposite step{count}: too long, or a ridge."
        if forward.kind == back.kind:
            return f", and so would the opposite step{count}: any move helps here."
        other = "raise" if back.kind == "above" else "lower"
        return f"{count}; the opposite step would {other} it by {_size(self.opposite)}."

    def _open(self, decision: Decision) -> str:
        text = (
            f"are not shown to have changed the return: {two(self.after.value)} ± "
            f"{two(_half(self.after))} from {self.starts} starts"
        )
        text = text.replace("are not", "is not", 1) if self.updates == 1 else text
        text = text.replace("-", "−")
        if decision.more is None:
            return f"{text}."
        return f"{text}; about {two(self.starts + decision.more)} would decide."


def _size(change: Number) -> str:
    return f"{two(abs(change.value))} ± {two(_half(change))}"


def _half(change: Number) -> float:
    return (change.high - change.low) / 2
