"""An alarm, its test, and the evidence of a test: the rows of one table and the level of this test.

Every test has a false-alarm rate of at most `ALPHA` over a whole run, however often it is made:
test k has level α / (k (k + 1)), which sums to α over all k (`reports/loops`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import scipy

from gradlab.findings import Finding
from gradlab.wording import signed, unnumbered

REPLACED = "another policy is trained"
SWAPPED = "targets follow too fast"
STEPPED = "targets are stepped"
RESTING = "critic does not move"
ALIKE = "twin critics are one"
FROZEN = "targets do not move"
CROSSED = "targets are crossed"
UNUSED = "targets are not used"
BELOW = "learning rate below 0"
MISAPPLIED = "optimiser's step is another formula's"
OUTSIDE = "network moves without a step"
LEAKED = "actor's steps move another network"
UNCLEARED = "gradients are not cleared"
WEIGHTED = "wrong weights of actions"
DESCENT = "actor's steps lower their objective"
DISCOUNT = "wrong targets"
ADVANTAGE = "wrong advantages"
STORED = "stored rows differ"
UNRESET = "environment is not reset"
UNFOLLOWED = "actor does not follow its critic"
DENSITY = "wrong density"
IMPLIED = "critic learns another reward"
# What is compared bit by bit, then what presumes steps along which a loss is a line.
CAUSES = (
    REPLACED, UNRESET, STORED, DISCOUNT, ADVANTAGE, BELOW, MISAPPLIED, "actor does not move",
    STEPPED, RESTING, ALIKE, OUTSIDE, CROSSED, SWAPPED, FROZEN, UNUSED, UNCLEARED, LEAKED,
    UNFOLLOWED, "learning rate too large", WEIGHTED, DESCENT, DENSITY, IMPLIED,
)  # fmt: skip
# Proofs of checks that no row of their kind has reached.
UNTERMINATED = "no row of a step that terminated was drawn so far"
NOT_DRAWN = "such steps were recorded, none of them was in a batch that was looked at"
UNCUT = "no row that a time limit alone ended was drawn so far"
# Kinds of several checks, or optimisers, whose faults differ.
_OF_SEVERAL = (STORED, ADVANTAGE, UNCLEARED, BELOW)


def fault(kind: str, message: str) -> str:
    """What is reported and shown apart: a kind, or a message of a kind of several."""
    return unnumbered(message) if kind in _OF_SEVERAL else kind


ALPHA = 0.01
FEWEST = 64  # starts from which intervals cover what they promise (`reports/coverage`)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Alarm:
    """What was found and what to do, and the kind by which it is rate-limited.

    Attributes:
        step: at which it was reported; None before.
    """

    kind: str
    message: str
    step: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, kind: str, code: str = "", **found: Any) -> Alarm:
        """The alarm with the words of its kind, or of one of several codes.

        Args:
            found: fields of the finding.
        """
        return cls(kind, signed(Finding(code or kind, "fail", **found).said))


@dataclass(frozen=True)
class AlarmEvidence:
    """The rows of one table, the newest last.

    Attributes:
        count: rows of this table so far, those that are no longer here included.
        names: of the parameters.
        critic_alone: the loop's actor follows the critic alone, without a step of a model.
    """

    rows: Sequence[Row]
    count: int
    names: Sequence[str] = ()
    critic_alone: bool = False

    @property
    def new(self) -> Row:
        return self.rows[-1]

    @property
    def level(self) -> float:
        """Probability of a false alarm in this test."""
        return ALPHA / (self.count * (self.count + 1))

    def reach(self, freedom: float, tests: int = 1) -> float:
        """Standard errors that chance may reach: Student's quantile at this test's level.

        Args:
            freedom: degrees of it, independent parts less one; tests: made of this row.
        """
        return _quantile(self.level / tests, freedom)

    def at(self, name: str) -> float:
        """A number of the newest row; NaN where it has none."""
        return float(self.new.get(name, np.nan))


@dataclass(frozen=True)
class AlarmTest:
    """What raises an alarm of one kind.

    Attributes:
        kind: the alarm's; table: whose rows are tested.
        columns: of the newest row; where it lacks one, nothing is tested.
        found: the fields of its finding; None where nothing is wrong.
        unrolled: about steps of a model, which a loop that follows the critic alone has not.
    """

    kind: str
    table: str
    columns: tuple[str, ...]
    found: Callable[[AlarmEvidence], dict[str, Any] | None]
    unrolled: bool = False

    def __call__(self, evidence: AlarmEvidence) -> Alarm | None:
        """The alarm that the newest row raises."""
        if not all(name in evidence.new for name in self.columns):
            return None
        if self.unrolled and evidence.critic_alone:
            return None
        found = self.found(evidence)
        return None if found is None else Alarm.of(self.kind, **found)


@lru_cache(maxsize=4096)
def _quantile(level: float, freedom: float) -> float:
    return -float(scipy.special.stdtrit(freedom, level))


def excluded(looks: Any, sound: float, asked: int) -> bool:
    """Whether the mean of independent looks is known to be below what every sound loop has.

    mean + q s / √n < sound, q Student's quantile at the level α / k (k + 1) of the k-th question

    Args:
        looks: [n], the newest; asked: k, all that there were.
    """
    values, level = np.asarray(looks, dtype=np.float64), ALPHA / (asked * (asked + 1))
    half = _quantile(level, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return bool(values.mean() + half < sound)


def listed(which: Any, names: Sequence[str]) -> str:
    """At most three names, and how many more."""
    chosen = [names[int(k)] if k < len(names) else f"parameter {k}" for k in np.flatnonzero(which)]
    more = f" and {len(chosen) - 3} more" if len(chosen) > 3 else ""
    return ", ".join(chosen[:3]) + more
