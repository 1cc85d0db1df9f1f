"""What a race found: where each candidate leads in K updates, and for how long to follow it.

The changes of the return are those of a rehearsal (`runs.rehearsal`) whose critic, and model where
asked for, were fitted again on the way; branches whose interval excluded the best were dropped.

What a step found (`gradlab.step`): did the step from one policy to another raise the return?

    after      J(θ₁) − J(θ₀)            opposite   J(2θ₀ − θ₁) − J(θ₀)

from the same resets, whole episodes. Where both are lower the step was too long, or θ₀ stands on a
ridge. One step that lowers the return is no fault: most short ones of sound loops do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.findings import Decision, Finding
from gradlab.runs.identity import Identity, by_known_name, mark_ambiguous
from gradlab.runs.layout import attribute, nested, stored
from gradlab.runs.rehearsal import Rehearsal
from gradlab.runs.run import Run
from gradlab.statistics.comparison import Number, decide
from gradlab.verdicts.phrases import with_sign
from gradlab.verdicts.recommendation import Field, Light, Recommendation
from gradlab.wording import at_horizon, label, listed, percent, stepping, two, updates

KIND = "race"
ALONE = -1  # horizon of a candidate that has none: a mixture, or a user's own loss
FIGURE, CHANGES = "race", "step_changes"
_NAMED = 2  # candidates in a field


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
        return mark_ambiguous(list(known.values()))

    def _estimator(self, name: str) -> str:
        """model_all:5 follows model_all; a mixture or a user's own follows itself."""
        base = name.partition(":")[0]
        alone = (name, ALONE) in self.results.cells or not by_known_name([base])
        return name if alone else base

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
    def recommendation(self) -> Recommendation:
        """What to follow, for how long, and what else may be as good."""
        results, best = self.results, self.results.best
        stopped, rest = self.config.get("interrupted"), tuple(self._findings())
        notice = f"Stopped {stopped}: what comes from there on is missing." if stopped else ""
        if best is None or results.hold:
            why = f"within {updates(self.updates)} no candidate is shown to raise the return"
            fit = Field("next", "fit critic and model further, then race again")
            fields = [Field("use", "no update yet"), Field("why", why), fit]
            return Recommendation("none", tuple(fields), FIGURE, rest, notice)
        length, gain = updates(best.updates), best.gain
        more = " or more" if best.updates == self.updates else ""
        rule = ""
        if results.rate == results.rate:  # else all candidates bring their own
            assumed = " (rate assumed)" if results.assumed else ""
            rule = f" of {stepping(results.optimizer, results.rate)}{assumed}"
        start = results.present(gain)
        tested = f"{with_sign(*gain.estimate)} return, from {start}, after {length}{rule}"
        how = f"J(θ_k) − J(θ_0) from the same {results.judges} starts; place and candidate chosen."
        first = with_sign(*results.after(best.cell, results.lengths[0]).estimate)
        others = [self.called(name) for name in self.may_be_best() if name != best.cell[0]]
        fields = [
            Field("use", f"{self.called(best.cell[0])}, for {length}{more}"),
            Field("tested", tested, how),
            Field("first update", first),
            *([Field("not excluded", listed(others, _NAMED))] if others else []),
            Field("next", "make these updates, refit the critic, race again"),
        ]
        light: Light = "choose" if others else "act"
        return Recommendation(light, tuple(fields), FIGURE, rest, notice)

    def _findings(self) -> Iterator[Finding]:
        """Where each candidate led, and whether it was dropped."""
        for cell, dropped in zip(self.results.cells, self.dropped, strict=True):
            name, peak = self.called(cell[0]), self.results.peak_of(cell)
            if peak is None:
                yield Finding("race_lost", "fail", name)
                continue
            raised: Decision = "pass" if self.results.holds(cell) else "undecided"
            yield Finding("race_peak", raised, name, *peak.gain.estimate, at=updates(peak.updates))
            if dropped:
                yield Finding("race_dropped", "skipped", name, at=updates(dropped))
        if "pairing" in self.notes:
            yield Finding("no_seed", "skipped", n=self.results.judges)

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
        return str(self.recommendation)

    __repr__ = __str__


load = Race.load


POLICIES = ("before", "after", "opposite")
# TD3, SAC and PPO on Pendulum, InvertedPendulum and Hopper, 14 cells.
_NORMAL = f"{percent(9 / 14)} of sound steps of 10 updates do this, {percent(3 / 14)} of 250"
_STEPS: Mapping[bool | None, tuple[Light, str, str]] = {
    True: ("act", "raised the return", "train on"),
    False: ("choose", "lowered the return", "judge it by more updates"),
    None: ("choose", "not shown to change the return", "measure more starts"),
}


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
        findings: what a reader must know: why returns are not paired, what was lost or cut.
    """

    returns: NDArray[np.float64]
    after: Number
    opposite: Number
    paired: bool
    updates: int | None
    findings: tuple[Finding, ...] = ()

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
    def recommendation(self) -> Recommendation:
        """What the step did to the return, what the opposite one would have done, and what next;
        one step that lowers the return is never red."""
        starts = "the same resets" if self.paired else "other resets"
        how = f"Mean of {self.starts} whole episodes without noise, from {starts}."
        after, helped = decide(self.after, 0.0), self.helped
        light, did, todo = _STEPS[helped]
        if helped is None and after.more is not None:
            todo = f"measure about {two(self.starts + after.more)} starts"
        findings = self.findings
        if not np.ptp(self.returns, axis=0).any():
            todo = "check that the two differ"
            findings = (*findings, Finding("step_same", "undecided", n=self.starts))
        elif helped is not None and decide(self.opposite, 0.0).kind == after.kind:
            findings = (*findings, Finding(f"step_both_{after.kind}", "undecided"))
        count = "" if self.updates is None else f", after {updates(self.updates)}"
        size = f"{with_sign(*self.after.estimate)}, {self.starts} starts"
        fields = [
            Field("step", f"{did}: {size}{count}", how),
            Field("opposite step", with_sign(*self.opposite.estimate), f"2θ₀ − θ₁. {how}"),
            Field("return before", two(float(self.returns[0].mean())), how),
            *([Field("normal", _NORMAL)] if helped is False else []),
            Field("next", todo),
        ]
        return Recommendation(light, tuple(fields), CHANGES, findings)

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
        return str(self.recommendation)

    __repr__ = __str__
