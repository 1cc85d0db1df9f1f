"""What an alarm is, and what its test may look at: the rows of one table, and this look's level.

Every test has a false-alarm rate of at most `ALPHA` over a whole run, however often it is made:
look k is tested at level α / (k (k + 1)), which sums to α over all k (a union bound, so that looks
may depend on each other).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy

ALPHA = 0.01
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Alarm:
    """One sentence that ends with what to do, and the kind by which it is rate-limited."""

    kind: str
    message: str


@dataclass(frozen=True)
class Look:
    """The rows of one table, the newest last, and what is needed to judge them.

    Attributes:
        count: rows of this table so far, those that are no longer here included.
        names: of the parameters.
    """

    rows: Sequence[Row]
    count: int
    names: Sequence[str] = ()

    @property
    def new(self) -> Row:
        return self.rows[-1]

    @property
    def level(self) -> float:
        """Probability of a false alarm at this look."""
        return ALPHA / (self.count * (self.count + 1))

    def reach(self, freedom: float, tests: int = 1) -> float:
        """Standard errors that chance may reach: Student's quantile at this look's level.

        Args:
            freedom: degrees of it, independent parts less one; tests: made at this look.
        """
        return _quantile(self.level / tests, freedom)

    def at(self, name: str) -> float:
        """A number of the newest row; NaN where it has none."""
        return float(self.new.get(name, np.nan))


@lru_cache(maxsize=4096)
def _quantile(level: float, freedom: float) -> float:
    return -float(scipy.special.stdtrit(freedom, level))


def listed(which: Any, names: Sequence[str]) -> str:
    """At most three names, and how many more."""
    found = [names[int(k)] if k < len(names) else f"parameter {k}" for k in np.flatnonzero(which)]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more
