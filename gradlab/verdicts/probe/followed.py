"""Whether a step along the gradient that the watched loop follows raises the return.

    DDPG, TD3, SAC    E[J_θπᵀ ∂_a Q(s, π_θ(s))]: the critic alone, the cell (data, h = 0)

Its cosine with ∇_θ J at visited states decides, by the newest measurement that has one. A horizon
of a model is no choice of such a loop, and comes second.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradlab.runs.probe.measured_columns import LAW
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.schema import ESTIMATORS
from gradlab.statistics.number import Number
from gradlab.verdicts.facts import CLOSE
from gradlab.verdicts.probe.gains import facts_of
from gradlab.wording import cosine, cosines, horizons

DATA = ESTIMATORS.index("data")


@dataclass(frozen=True)
class Followed:
    """The direction of the loop's own gradient.

    Attributes:
        cosine: with the gradient of the return.
        step: of the loop, at which it was measured; since: steps that were made after it.
        measurements: that have one, so far.
    """

    cosine: Number
    step: int
    since: int
    measurements: int

    @property
    def direction(self) -> str:
        """ "raised", "lowered" or "unknown": what a step along it did to the return, with 95%."""
        if self.cosine.high < 0:
            return "lowered"
        return "raised" if self.cosine.low > 0 else "unknown"

    @property
    def text(self) -> str:
        """At step 1,708 a step along the actor's gradient lowered the return: cosine −0.71 …"""
        did = {"unknown": "is not shown to have raised", "raised": "raised", "lowered": "lowered"}
        value, ends = cosine(self.cosine.value), cosines(self.cosine.low, self.cosine.high)
        numbers = f"cosine {value} (CI {ends})".replace("-", "−")
        return (
            f"At step {self.step:,} a step along the actor's gradient {did[self.direction]} the "
            f"return: {numbers}; {self._age()}."
        )

    def _age(self) -> str:
        many = self.measurements > 1
        count = f"the newest of {self.measurements} measurements" if many else "one measurement"
        return f"{count}, not measured since ({self.since:,} steps ago)" if self.since else count


def followed(run: ProbeRun) -> Followed | None:
    """None where the loop has not declared that it follows the critic alone, or where no
    measurement at visited states has this cosine."""
    if not run.critic_alone or not run.measured or run.config.get("law") != LAW:
        return None
    ends = [run.measured[f"cosine{end}"][:, DATA, 0] for end in ("", "_low", "_high")]
    known = np.flatnonzero(np.isfinite(ends).all(axis=0))
    if not len(known):
        return None
    newest = known[-1]
    value, low, high = (float(each[newest]) for each in ends)
    step = int(run.measured["step"][newest])
    starts = int(run.measured["starts"][newest])
    return Followed(Number(value, low, high, starts), step, max(run.step - step, 0), len(known))


def other_horizons(run: ProbeRun) -> str:
    """5–10 model steps would raise it; "" where none is shown to, or where the
    critic alone does as well."""
    facts = facts_of(run)
    if facts is None or facts.best is None or facts.best == facts.data:
        return ""
    best, own = facts.gains[facts.best], facts.data_gain
    if not best.low > 0 or (own is not None and own.value >= CLOSE * best.value):
        return ""
    system = facts.identities[facts.best[0]].states
    over = facts.close(facts.best)
    return f"{horizons(over)} {system} step{'s' * (over != [1])} would raise it."
