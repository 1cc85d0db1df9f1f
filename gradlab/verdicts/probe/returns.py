"""Do updates raise the return: the last ones by windows of episodes, the next one by its gain?

    Over the last 1,600 updates the return rose by 210 ± 60.
    DDPG, TD3, SAC    E[J_θπᵀ ∂_a Q(s, π_θ(s))]: the critic alone, the cell (data, h = 0)

Of the gradient that the watched loop follows the newest measurement decides. At states that the
policy visits the matched truth of first-action gradients is the gradient of the return,
E_ν[J_θπᵀ ∂_a Q^π] = (1 − γ) ∇_θ E_ζ[V^π]: the cosine with it is the gain of a step. A horizon of a
model is no choice of such a loop, and comes second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan

import numpy as np
import scipy

from gradlab.runs.competing import CLOSE, best_shown
from gradlab.runs.identity import by_default, competing
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.returns import LEAST, RECENT, TRAINED, WINDOW, Change, Returns
from gradlab.runs.probe.schema import ESTIMATORS, LAW
from gradlab.statistics.comparison import Number
from gradlab.statistics.intervals import Z
from gradlab.statistics.selection import COVERAGE
from gradlab.verdicts.facts import Cell, Facts
from gradlab.wording import horizons, turned, two

_TENTH = 0.1  # of the rise since the first window, from which on the last one's fall is told
# Table → episodes of a window, whose return it is, what is counted.
_SOURCES = {
    "returns": (WINDOW, "", "episodes"),
    "episodes": (TRAINED, " of training episodes", "training episodes"),
}


@dataclass(frozen=True)
class Seen:
    """Windows of one source, "returns" or "episodes".

    Attributes:
        changes: of the newest windows; since: the newest window against the first.
        best: the best window, where the newest one is known to be below it.
        risen: is that one known to be above, beyond what one window in many shows by chance?
        sizes: episodes in every window.
    """

    source: str
    changes: tuple[Change, ...]
    since: Change
    best: Change | None
    risen: bool
    sizes: tuple[int, ...]

    @property
    def short(self) -> bool:
        """Are windows so short that of all of them some rise by chance?"""
        return self.changes[-1].updates < LEAST

    @property
    def newest(self) -> Change:
        """The change that is told: since the first window, where they are short."""
        return self.since if self.short else self.changes[-1]

    @property
    def window(self) -> int:
        return _SOURCES[self.source][0]

    @property
    def counted(self) -> str:
        """What a window has."""
        return _SOURCES[self.source][2]

    @property
    def dropped(self) -> bool:
        """Did it fall in the newest of several short windows, by a tenth of its rise or more?"""
        return (
            self.best is None
            and self.short
            and -self.changes[-1].number.high > _TENTH * max(self.since.number.value, 0)
        )

    @property
    def raised(self) -> bool:
        """Is the return above where it began, without having fallen lately?"""
        return self.risen and not (self.lower or self.dropped)

    @property
    def lower(self) -> bool:
        """Is it below where it began, where it was lately, or where it was best?"""
        return self.newest.direction == "fell" or self.best is not None

    @property
    def text(self) -> str:
        """The newest change, and where it is not known that of all windows together."""
        whose = f"the return{_SOURCES[self.source][1]}"
        if len(self.changes) > 1 and self.short:
            text = f"Since the first window {whose} {told(self.since)}."
            last = self.changes[-1]
            lately = f" Over the last {last.updates:,} updates it {told(last)}."
            return text + lately * self.dropped
        text = f"Over the last {self.newest.updates:,} updates {whose} {told(self.newest)}."
        if len(self.changes) > 1 and not (self.risen and self.newest.direction == "rose"):
            text += f" Since the first window it {told(self.since)}."
        return text

    @property
    def fall(self) -> str:
        """From the best window; "" where the newest change is that, too."""
        if self.best is None or self.best.number.value == self.newest.number.value:
            return ""
        by = told(self.best).replace("fell", "fallen")
        return f"It has {by} since step {self.best.step:,}, its best."

    @property
    def warned(self) -> str:
        """All of it, what fell first."""
        both = (self.text, self.fall) if self.newest.direction == "fell" else (self.fall, self.text)
        return " ".join(filter(None, both))

    @property
    def count(self) -> str:
        """It fell in 2 of the last 3 windows; "" where there is one only."""
        ways, n = [each.direction for each in self.changes], len(self.changes)
        if n < 2 or self.short or not {"fell", "rose"} & set(ways):
            return ""
        counts = [f"{way} in {ways.count(way)}" for way in ("rose", "fell") if way in ways]
        return f"It {' and '.join(counts)} of the last {n} windows."


def seen(run: ProbeRun) -> Seen | None:
    """The policy's own episodes, else those of training; None before two windows are full."""
    for source, (size, *_) in _SOURCES.items():
        windows = Returns.of(getattr(run, source), size)
        changes, since = tuple(windows.changes(RECENT)), windows.since_begin()
        if since is not None:
            sizes = tuple(map(len, windows.windows))
            return Seen(source, changes, since, windows.below_best(), windows.risen, sizes)
    return None


def waiting(run: ProbeRun) -> str:
    """What is lacking while nothing is known of the return, and when it will be."""
    parts = run.due.split("; ")
    due = next((part for part in parts if part.startswith("returns: ")), "")
    _, found, when = due.partition("first answer ")
    if found:
        return f"unknown so far: first answer {when}."
    if due.startswith("returns: no answer"):
        return f"unknown, train longer: {due.removeprefix('returns: no answer, ')}."
    if due.startswith("returns: no Record"):
        return (
            "unknown: pass env=make_env, call note(episode_return=…), or wrap the environment in "
            "RecordEpisodeStatistics (none was found)."
        )
    measured = next((part for part in parts if part.startswith("task: ")), "")
    if run.task and measured:
        why = measured.removeprefix("task: ")
        return f"unknown: {why}."
    lacking = Returns.of(run.episodes, TRAINED).lacking
    if len(run.episodes.get("value", ())):
        when = f"after {lacking} more training episodes"
        return f"unknown so far: first answer {when}."
    return "unknown: pass env=make_env, or call note(episode_return=…)."


def told(change: Change) -> str:
    """rose by 210 ± 60"""
    value, half = change.number.value, two((change.number.high - change.number.low) / 2)
    if change.direction == "open":
        return f"is not shown to have changed ({two(value)} ± {half})".replace("-", "−")
    return f"{change.direction} by {two(abs(value))} ± {half}"


def facts_of(run: ProbeRun) -> Facts | None:
    """None where nothing was measured on a task, at visited states."""
    if not run.measured or run.config.get("law") != LAW:
        return None
    row = {name: column[-1] for name, column in run.measured.items()}
    starts = int(row["starts"])
    gains: dict[Cell, Number] = {}
    identities = by_default(run.estimators)
    for e, name in enumerate(run.estimators):
        for h in range((run.horizon or 0) + 1):
            value, low, high = (float(row[f"cosine{end}"][e, h]) for end in ("", "_low", "_high"))
            if np.isfinite([value, low, high]).all() and (h or identities[name].data):
                gains[name, h] = Number(value, low, high, starts)
    known = {name: each for name, each in identities.items() if any(n == name for n, _ in gains)}
    own = competing(known)
    best = best_shown(gains, [cell for cell in gains if cell[0] in own])
    kept: tuple[Cell, ...] = ()
    chosen = None
    if best is not None:
        gain = gains[best]
        # Cells whose interval reaches that of the best: a row keeps nothing that is paired. Its own
        # interval holds for all that may be best at once (Šidák), as if independent.
        kept = tuple(cell for cell in gains if cell[0] in own and gains[cell].high >= gain.low)
        wider = scipy.stats.norm.ppf((1 + COVERAGE ** (1 / len(kept))) / 2) / Z
        low = gain.value - wider * (gain.value - gain.low)
        high = gain.value + wider * (gain.high - gain.value)
        chosen = replace(gain, low=max(low, -1.0), high=min(high, 1.0))
    return Facts(
        samples=starts,
        seconds=nan,
        batch=int(row["batch"]),
        law=LAW,
        truth="converged" if gains else "none",
        why="no admissible truth at the newest measurement",
        own=own,
        identities=identities,
        gains=gains,
        batch_gains={},
        errors={},
        cosines=gains,
        best=best,
        chosen=chosen,
        kept=kept,
        realised=None,
        disagreements=(),
    )


def void(run: ProbeRun) -> tuple[str, ...]:
    """Why nothing can be decided: no reward but 0, or a true gradient of exactly 0."""
    if not run.measured:
        return ()
    row = {name: column[-1] for name, column in run.measured.items()}
    reasons = []
    if float(row.get("reward_max", np.nan)) == 0:
        reasons.append(
            "Fix the reward: it is 0 on every path of the task so far, and so is the true gradient."
        )
    elif float(row.get("truth_norm", np.nan)) == 0:
        reasons.append(
            "Look for a dead output, ignored actions or a constant reward: the true gradient is "
            "exactly 0, this policy does not move the return."
        )
    return tuple(reasons)


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
        ends = self.cosine.low, self.cosine.high
        numbers = f"cosine {turned(self.cosine.value, *ends)}".replace("-", "−")
        age = "one measurement"
        if self.measurements > 1:
            age = f"the newest of {self.measurements} measurements"
        if self.since:
            age += f", not measured since ({self.since:,} steps ago)"
        return (
            f"At step {self.step:,} a step along the actor's gradient {did[self.direction]} the "
            f"return: {numbers}; {age}."
        )


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
