"""What a probe's run shows, one finding each: failures, returns, gradients, checks, cost.

Those on the task are of its newest measurement. At states that the policy visits the matched truth
of first-action gradients is the gradient of the return,

    E_ν[J_θπᵀ ∂_a Q^π] = (1 − γ) ∇_θ E_ζ[V^π]

so that the cosine with it is the gain of a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import log, log10, nan, sqrt
from typing import Any

import numpy as np

from gradlab.findings import Decision, Finding
from gradlab.runs.identity import by_default
from gradlab.runs.probe.results import ProbeRun, Reported
from gradlab.runs.probe.returns import LEAST, TRAINED, WINDOW, Change, Returns
from gradlab.runs.probe.schema import ALPHA, ASKED, ESTIMATORS, FEWEST, HALF, NOISE
from gradlab.runs.probe.tables import signals
from gradlab.statistics.comparison import Number, decide
from gradlab.statistics.intervals import Z
from gradlab.statistics.successive import pooled
from gradlab.wording import gradient, horizons, rounded_up

_RISK = 0.05  # of an interval
_LATELY = 10  # windows, or bursts: a signal of long ago says nothing of now
DATA, MODEL = ESTIMATORS.index("data"), ESTIMATORS.index("model")
_NAMED = {name: gradient(each) for name, each in by_default(ESTIMATORS).items()}
OF_INTERVALS = ("probe.step raised", "probe.step lowered", "probe.horizon")
# What is upstream comes first: of several failures a later one may be the symptom of another.
UPSTREAM = (
    "nan.*", "loss.finite*", "actor.finite*", "non-finite gradient*", "non-finite*", "gae.*",
    "stored_next*", "stored_[!v]*", "loss.repeats*",
    "critic.precision*", "critic.predictions*", "actor.gradient*", "actor.lost*", "actor.reached*",
    "actor.values*", "actor.score*", "moved_twins*", "moved_still", "no optimiser's step",
    "moved_by_another", "moved_between", "moved_target*", "critic.detached*", "critic.rows*",
    "actor.rows*", "critic.mask*", "critic.reward*", "critic.entropy*", "actor.entropy*",
    "critic.discount*", "critic.targets*", "critic.next_value*",
    "critic.descends*", "actor.sign*", "actor.density*", "critic.weights*", "policy.weights*",
    "policy.ratio*", "policy.clip*", "policy.value*", "critic.*", "actor.*", "policy.*", "loss.*",
    "moved_mixed", "moved_uncleared", "moved_in_part", "moved_*", "stored_values*",
    "dead path", "falling return", "*",
)  # fmt: skip


LAWS = ("critic.", "actor.", "policy.", "loss.", "gae.")


def rank(finding: Finding) -> int:
    """How far upstream: 0 is first."""
    return next(k for k, each in enumerate(UPSTREAM) if fnmatchcase(finding.code, each))


def verdict(run: ProbeRun) -> list[Finding]:
    """What leaves nothing to decide, what to stop for, what to set, what to fix, what it cost."""
    lately = seen(run)
    own = followed(run)
    of_task = [] if void(run) else [*([own] if own else []), *on_the_task(run)]
    others = [each.finding for each in run.reported if each.finding.decision != "fail"]
    return [
        *void(run), *([each.finding for each in failures(run)] or _quiet(run)),
        *(lately.findings if lately else ()), *_of_updates(run), *signal(run), *others, *of_task,
        *_cost(run),
    ]  # fmt: skip


def failures(run: ProbeRun) -> list[Reported]:
    """What has failed, upstream first; of equals what was first seen.

    Losses are asked after 20, 200, 2,000 … updates. A law that held at first and breaks later
    follows from what had failed before, as that of a ruined actor does.
    """
    failed = [each for each in run.reported if each.finding.decision == "fail"]
    steps, updates = (np.asarray(run.vitals.get(name, ())) for name in ("step", "update"))

    def asked(each: Reported) -> int:
        if not each.code.startswith(LAWS):
            return 0
        seen = updates[steps >= each.since]
        return int(log10(max(seen.min(initial=run.updates), ASKED) / ASKED))

    return sorted(failed, key=lambda each: (asked(each), rank(each.finding), each.since))


def _quiet(run: ProbeRun) -> list[Finding]:
    return [Finding("probe.no alarm", "pass", value=ALPHA, n=run.updates)]


# Returns, by windows of episodes.


@dataclass(frozen=True)
class Seen:
    """Windows of one table, "returns" or "episodes".

    Attributes:
        last: the newest window against the one before; since: against the first.
        best: the best window, where the newest one is known to be below it.
        risen: is the newest above the first, beyond what one window in many shows by chance?
        sizes: episodes in every window.
    """

    source: str
    last: Change
    since: Change
    best: Change | None
    risen: bool
    sizes: tuple[int, ...]

    @property
    def short(self) -> bool:
        """Are windows so short that of all of them some rise by chance?"""
        return self.last.updates < LEAST

    @property
    def newest(self) -> Change:
        """The change that is told: since the first window, where they are short."""
        return self.since if self.short else self.last

    @property
    def lower(self) -> bool:
        """Is it below where it began, where it was lately, or where it was best?"""
        return self.newest.direction == "fell" or self.best is not None

    @property
    def raised(self) -> bool:
        """Is the return above where it began, without having fallen lately?"""
        return self.risen and not self.lower

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What fell first; the newest change, and where that does not tell all the one since the
        first window."""
        begun = self.told(self.since, "since the first window")
        found = [self.told(self.last, f"over the last {self.last.updates:,} updates")]
        if len(self.sizes) > 2 and self.short:
            found = [begun]
        elif len(self.sizes) > 2 and not (self.risen and self.last.direction == "rose"):
            found.append(begun)
        if self.best is not None and self.best.number.value != self.newest.number.value:
            found.append(self.told(self.best, f"step {self.best.step:,}", " below its best"))
        if self.raised:
            found.append(Finding("probe.return risen", "pass"))
        elif self.since.direction == "rose" and not self.lower:
            found.append(Finding("probe.return not risen", "undecided"))
        return tuple(sorted(found, key=lambda each: each.decision != "fail"))

    def told(self, change: Change, at: str, how: str = "") -> Finding:
        """A change of the mean return of two windows."""
        fell, number = change.direction == "fell", change.number
        low, value, high = sorted((number.negative if fell else number).estimate)
        decision: Decision = "undecided" if change.direction == "open" else "pass"
        return Finding(
            f"probe.return{how or f' {change.direction}'}", "fail" if fell else decision,
            "the return" if self.source == "returns" else "the return of training episodes",
            value, low, high, n=self.sizes[-1] + self.sizes[0 if self.short else -2], at=at,
        )  # fmt: skip


def seen(run: ProbeRun) -> Seen | None:
    """The policy's own episodes, else those of training; None before two windows are full."""
    for source, size in (("returns", WINDOW), ("episodes", TRAINED)):
        windows = Returns.of(getattr(run, source), size)
        since = windows.since_begin()
        if since is not None:
            (last,), sizes = windows.changes(1), tuple(map(len, windows.windows))
            return Seen(source, last, since, windows.below_best(), windows.risen, sizes)
    return None


# Of the updates themselves.


def _of_updates(run: ProbeRun) -> list[Finding]:
    """Gradients that are not finite, with an upper end (Clopper–Pearson) where none was seen, and
    the action that is most at its limit lately (Hoeffding, passes taken as independent)."""
    if not run.vitals:
        return []
    looked, lost = (int(run.vitals[name].sum()) for name in ("looked", "nonfinite_updates"))
    share = lost / max(looked, 1)
    most = share if lost else 1 - _RISK ** (1 / max(looked, 1))
    about: dict[str, Any] = dict(value=share, high=most, n=looked)
    found = [Finding("probe.non-finite gradients", "fail" if lost else "pass", **about)]
    if not np.isfinite(run.vitals["update_ratio"]).any():
        found.append(Finding("probe.no optimiser", "skipped"))
    shares = run.vitals.get("saturation", np.empty((0, 0)))
    finite = np.flatnonzero(np.isfinite(shares).any(axis=1))[-_LATELY:]
    if not len(finite):
        return [*found, Finding("probe.no limit", "skipped")]
    passes = run.vitals["watched"][finite]
    mean, n = passes @ shares[finite] / passes.sum(), int(passes.sum())
    j, margin = int(np.argmax(mean)), sqrt(log(2 / _RISK) / (2 * n))
    ends = max(mean[j] - margin, 0.0), min(mean[j] + margin, 1.0)
    number = Number(mean[j], *ends, n, margin / Z)
    return found + _held("probe.saturation", number, HALF, "fail", at=str(j))


def signal(run: ProbeRun) -> list[Finding]:
    """How much of one batch's gradient is signal lately."""
    at, found = signals(run)
    if not found:
        return []
    whole, lately = pooled(found[-_LATELY:]), at[-_LATELY:]
    low, high = whole.ends
    where = f"step {lately[0]:,.0f}"
    if len(lately) > 1:
        where = f"steps {lately[0]:,.0f}–{lately[-1]:,.0f}"
    if low > 0:
        about: dict[str, Any] = dict(value=whole.cosine, low=sqrt(low), high=sqrt(high))
        return [Finding("probe.batch", "pass", **about, n=whole.pairs, at=where)]
    number = Number(whole.share, low, high, whole.pairs, whole.se)
    (told,) = _held("probe.signal", number, 0.0, at=where)
    if high < NOISE:
        return [replace(told, decision="fail", more=0)]
    # An estimate below 0 is no estimate of how many pairs it takes.
    return [told if whole.share > 0 else replace(told, more=-1)]


def _cost(run: ProbeRun) -> list[Finding]:
    """The share of the time that the probe took: counted, not estimated."""
    if not np.isfinite(run.spent):
        return []
    return [Finding("probe.cost", "pass", value=run.spent, n=run.every)]


# On the task.


def void(run: ProbeRun) -> list[Finding]:
    """Why nothing can be decided: no reward but 0, or a true gradient of exactly 0."""
    zero = {"reward_max": "probe.reward is 0", "truth_norm": "probe.gradient is 0"}
    return [Finding(zero[name], "fail", value=0.0) for name in zero if _newest(run, name) == 0][:1]


def on_the_task(run: ProbeRun) -> list[Finding]:
    if not run.measured:
        return []
    found = _horizon(run)
    lacking = FEWEST - _count(run)
    if lacking <= 0:
        return found
    return [
        replace(each, decision="undecided", more=lacking) if each.code in OF_INTERVALS else each
        for each in found
    ]


def followed(run: ProbeRun) -> Finding | None:
    """What the gradient that the loop follows does to the return, at the newest measurement that
    has its cosine; None where the loop has not declared that it follows the critic alone."""
    if not run.critic_alone or not run.measured:
        return None
    ends = [run.measured[f"cosine{end}"][:, DATA, 0] for end in ("", "_low", "_high")]
    known = np.flatnonzero(np.isfinite(ends).all(axis=0))
    if not len(known):
        return None
    value, low, high = (float(each[known[-1]]) for each in ends)
    step, starts = (int(run.measured[name][known[-1]]) for name in ("step", "starts"))
    what, decision = "open", "undecided"
    if low > 0 or high < 0:
        what, decision = ("raised", "pass") if low > 0 else ("lowered", "fail")
    about: dict[str, Any] = dict(value=value, low=low, high=high, n=starts, at=f"step {step:,}")
    return Finding(f"probe.step {what}", decision, **about)  # type: ignore[arg-type]


def _horizon(run: ProbeRun) -> list[Finding]:
    """The horizon of the smallest error, those that may have it, and the usable ones."""
    if not np.isfinite(run.measured["variance"][-1]).any():
        return [Finding("probe.no critic", "skipped")]
    at = _newest(run, "chosen_horizon")
    if not np.isfinite(at):
        return [Finding("probe.no truth", "undecided")]
    low, high = (_newest(run, f"kept_{end}") for end in ("low", "high"))
    name = run.estimators[int(_newest(run, "chosen_estimator"))]
    kept = {
        each: np.flatnonzero(row == 1).tolist()
        for each, row in zip(run.estimators, run.measured["kept"][-1], strict=True)
    }
    decided = (low, high) != (0, run.horizon)
    chosen = Finding(
        "probe.horizon", "pass" if decided else "undecided",
        gradient(by_default(run.estimators)[name]), at, low, high, n=_count(run),
        at="; ".join(f"{each} {horizons(over)}" for each, over in kept.items() if over),
        more=0 if decided else -1,
    )  # fmt: skip
    return [chosen]


def _held(
    code: str, number: Number, threshold: float, above: Decision = "pass", **about: Any
) -> list[Finding]:
    """A number against its threshold, above which it passes or fails; nothing where it is lost."""
    if not np.isfinite(number.estimate).all():
        return []
    told = decide(number, threshold)
    decisions: Mapping[str, Decision] = {"above": above, "below": "pass", "undecided": "undecided"}
    lost = told.guess == "unknown" or told.more is None
    more = -1 if lost else max(rounded_up(told.more or 0), 1)
    value, low, high = number.estimate
    ends: dict[str, Any] = dict(value=value, low=low, high=high, threshold=threshold)
    return [Finding(
        code, decisions[told.kind], **ends, n=number.n, more=0 if told.decided else more, **about
    )]  # fmt: skip


def _newest(run: ProbeRun, name: str) -> float:
    """A number of the newest measurement; NaN where it has none."""
    return float(run.measured[name][-1]) if name in run.measured else nan


def _count(run: ProbeRun) -> int:
    return int(_newest(run, "starts"))
