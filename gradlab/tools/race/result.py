"""What a race found: where each candidate leads in K updates, and for how long to follow it.

The changes of the return are those of a rehearsal (`runs.rehearsal`) whose critic, and model where
asked for, were fitted again on the way; branches whose interval excluded the best were dropped.

What a step found (`gradlab.step`): did the step from one policy to another raise the return?

    after      J(θ₁) − J(θ₀)            opposite   J(2θ₀ − θ₁) − J(θ₀)

from the same resets, whole episodes. Where both are lower the step was too long, or θ₀ stands on a
ridge. One step that lowers the return is no fault: most short ones of sound loops do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.runs.identity import Identity, by_known_name, told_apart
from gradlab.runs.layout import attribute, nested, stored
from gradlab.runs.rehearsal import Rehearsal
from gradlab.runs.run import Run
from gradlab.statistics.comparison import Decision, Number, decide
from gradlab.wording import at_horizon, label, listed, percent, two, updates, with_interval

KIND = "race"
ALONE = -1  # horizon of a candidate that has none: a mixture, or a user's own loss
_SHOWN = 3  # names in a sentence


@dataclass(frozen=True, eq=False, repr=False)
class Race(Run):
    """What `gradlab.race` found.

    Attributes:
        results: changes of the return, their intervals, lengths and the best of all; cells are
            names of candidates with their horizons (`ALONE` where there is none).
        dropped: updates after which each was dropped, 0: it ran to the end, or as far as all did.
        config: what was asked for; environment: what it ran on.
        notes: what a reader must know, by topic.
        file: where it was read from; None: it was run here.
    """

    results: Annotated[Rehearsal, nested(KIND)]
    dropped: Annotated[tuple[int, ...], stored("cell", name="dropped", unit="updates")]
    config: Annotated[Mapping[str, Any], attribute()]
    environment: Annotated[Mapping[str, str], attribute()]
    notes: Annotated[Mapping[str, Any], attribute()]
    file: Path | None = None

    kind = KIND
    noun = "race"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.results.cells)

    @property
    def updates(self) -> int:
        """How many updates the longest branch made."""
        results = self.results
        there = (results.low[:, at] for at in range(len(results.lengths)))
        made = [k for k, low in zip(results.lengths, there, strict=True) if np.isfinite(low).any()]
        return max(made, default=0)

    def called(self, name: str) -> str:
        """A candidate as figures and sentences call it: model_all:5 is `model, BPTT at h = 5`."""
        _, horizon = self.results.cells[self.names.index(name)]
        known, estimator = self.identities, self._estimator(name)
        if estimator not in known:
            return name
        if known[estimator].data:
            return label(estimator, known)
        return at_horizon(estimator, horizon, known)

    @property
    def identities(self) -> dict[str, Identity]:
        """Who the estimators of the candidates are; not a user's own losses."""
        known = by_known_name([self._estimator(name) for name in self.names])
        return told_apart(list(known.values()))

    def _estimator(self, name: str) -> str:
        """model_all:5 follows model_all; a mixture or a user's own follows itself."""
        base = name.partition(":")[0]
        alone = (name, ALONE) in self.results.cells or not by_known_name([base])
        return name if alone else base

    def after_one(self, name: str) -> Number:
        """What one step had promised: the change of the return after the first update."""
        cell = self.results.cells[self.names.index(name)]
        return self.results.after(cell, self.results.lengths[0])

    def may_be_best(self) -> tuple[str, ...]:
        """Candidates that are not excluded as the best, with 95% together."""
        return tuple(name for name, _ in self.results.not_excluded())

    @property
    def chosen(self) -> tuple[str, int] | None:
        """Estimator and horizon to follow; None where the policy is to be kept."""
        best = self.results.best
        if best is None or self.results.hold:
            return None
        return self._estimator(best.cell[0]), best.cell[1]

    @property
    def recommendation(self) -> str:
        """What to follow, for how long, and what else may be as good."""
        best = self.results.best
        if best is None or self.results.hold:
            return (
                f"Keep the policy: within {updates(self.updates)} no candidate is shown to raise "
                f"the return."
            )
        name, made = best.cell[0], updates(best.updates)
        more = " or more" if best.updates == self.updates else ""
        text = f"Follow {self.called(name)} for {made}{more}: the return of "
        text += f"{self.results.present(best.gain)} rises by {with_interval(*best.gain.estimate)}."
        others = [self.called(other) for other in self.may_be_best() if other != name]
        return f"{text} Not excluded: {listed(others, _SHOWN)}." if others else text

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Where each candidate led, and its first update."""
        found = []
        for cell, at in zip(self.results.cells, self.dropped, strict=True):
            peak = self.results.peak_of(cell)
            outcome = "lost"
            if peak is not None:
                outcome = f"highest after {peak.updates}: {with_interval(*peak.gain.estimate)}"
            dropped = f", dropped after {at}" if at else ""
            one = with_interval(*self.after_one(cell[0]).estimate)
            found.append(f"{self.called(cell[0])}: {outcome}{dropped}; one update: {one}")
        return tuple(found)

    def table(self, name: str | None = None) -> pd.DataFrame:
        """One row per candidate and evaluation.

        Columns: candidate, horizon (−1: none), updates, value, ci_low, ci_high (change of the
        return), may_be_best, holds (follow it for so long?), n, dropped (after so many updates; 0:
        never), estimator (that the candidate follows).
        """
        if name is not None:
            return super().table(name)
        table = self.results.table().rename(columns={"estimator": "candidate"})
        dropped = dict(zip(self.names, self.dropped, strict=True))
        who = table["candidate"]
        table = table.assign(dropped=who.map(dropped), estimator=who.map(self._estimator))
        known = self.identities
        table.attrs["identities"] = {each: asdict(identity) for each, identity in known.items()}
        return table

    def __str__(self) -> str:
        return "\n  ".join((self.recommendation, *self.outcomes))

    __repr__ = __str__


load = Race.load


POLICIES = ("before", "after", "opposite")
# Updates of a sound loop, and the share of such steps that lower its return: TD3, SAC and PPO on
# Pendulum, InvertedPendulum and Hopper, 14 cells.
_NORMAL = {10: 9 / 14, 250: 3 / 14}


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """Returns of three policies, and what they say of the step.

    Attributes:
        returns: [3, n], of whole episodes of the policies before and after it, and of the opposite
            step's; each column from one reset where `paired`.
        after, opposite: changes of the return, with intervals that hold at every comparison
            together.
        paired: whether the three begin from the same resets.
        updates: their number in the step; None: not given.
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
            are = "is" if self.updates == 1 else "are"
            size = with_interval(*self.after.estimate, more=f"{self.starts} starts")
            text = f"{subject} {are} not shown to change the return: {size}."
            if forward.more is None:
                return text
            return f"{text} About {two(self.starts + forward.more)} starts would decide."
        verb = "raised" if forward.kind == "above" else "lowered"
        return f"{subject} {verb} the return by {self._beside(forward, back)}"

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
        low, high = sorted((abs(self.after.low), abs(self.after.high)))  # a verb has the sign
        size = with_interval(abs(self.after.value), low, high, more=f"{self.starts} starts")
        if not back.decided:
            return f"{size}. The effect of the opposite step is not known."
        if forward.kind == back.kind == "below":
            return f"{size}. So would the opposite step: too long a step, or a ridge."
        if forward.kind == back.kind:
            return f"{size}. So would the opposite step: any move helps here."
        other = "raise" if back.kind == "above" else "lower"
        return f"{size}. The opposite step would {other} it."
