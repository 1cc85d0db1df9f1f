"""Alarms of the loop's own parts, which are checked where they happen (`gradlab.probe.parts`).

They name causes. Where one is raised, a symptom such as an exploding critic comes second, and of
several the one that lies upstream comes first: rows, the targets' algebra, who moved what, the
actor's step, its density.
"""

from __future__ import annotations

REPLACED = "another policy is trained"
SWAPPED = "targets follow too fast"
FROZEN = "targets do not move"
OUTSIDE = "network moves without a step"
LEAKED = "actor's steps move the critic"
DESCENT = "actor's steps lower their objective"
DISCOUNT = "wrong targets"
ADVANTAGE = "wrong advantages"
STORED = "stored rows differ"
DENSITY = "wrong density"
IMPLIED = "critic learns another reward"
CAUSES = (
    REPLACED, STORED, DISCOUNT, ADVANTAGE, OUTSIDE, SWAPPED, FROZEN, LEAKED, DESCENT, DENSITY,
    IMPLIED,
)  # fmt: skip
