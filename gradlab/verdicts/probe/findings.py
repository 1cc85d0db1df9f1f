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
from math import inf, log, nan, sqrt
from typing import Any

import numpy as np
import scipy

from gradlab.choice.best import best_shown
from gradlab.choice.values import Best
from gradlab.findings import Decision, Finding
from gradlab.runs.decision_rules import COSINE, EXCESS, in_ranges
from gradlab.runs.identity import Cell, by_default, competing
from gradlab.runs.probe.results import ProbeRun, Reported
from gradlab.runs.probe.returns import LEAST, RECENT, TRAINED, WINDOW, Change, Returns
from gradlab.runs.probe.schema import ALPHA, ESTIMATORS, FEWEST, HALF, LAW, NOISE, judged
from gradlab.runs.probe.tables import jacobian_ratio, signals
from gradlab.runs.profile import CLOSE
from gradlab.statistics.comparison import Number, decide
from gradlab.statistics.growth import DECISIVE
from gradlab.statistics.intervals import Z
from gradlab.statistics.selection import COVERAGE
from gradlab.statistics.successive import pooled
from gradlab.verdicts.facts import Facts
from gradlab.verdicts.phrases import SAME, ranges
from gradlab.wording import gradient, horizons, rounded_up

_RISK = 0.05  # of an interval
_LATELY = 10  # windows, or bursts: a signal of long ago says nothing of now
_WIDE = 20  # of a logarithm, beyond which its interval says nothing
_TENTH = 0.1  # of the rise since the first window, from which on the last one's fall is told
DATA, MODEL = ESTIMATORS.index("data"), ESTIMATORS.index("model")
_NAMED = {name: gradient(each) for name, each in by_default(ESTIMATORS).items()}
OF_INTERVALS = (
    "probe.best", "probe.longer", "probe.step raised", "probe.step lowered", "probe.horizon",
    "probe.usable",
    "probe.not usable", "probe.against data", "probe.weight", "probe.source", "probe.critic",
    "probe.doubling", "probe.power law", "probe.growth", "probe.Lyapunov",
)  # fmt: skip
# What is upstream comes first: of several failures a later one may be the symptom of another.
UPSTREAM = (
    "nan.*", "loss.finite*", "actor.finite*", "non-finite gradient*", "non-finite*", "gae.*",
    "stored_unreset", "stored_next*", "stored_[!v]*", "loss.repeats*",
    "critic.precision*", "critic.predictions*", "actor.gradient*", "actor.lost*", "actor.reached*",
    "actor.values*", "actor.score*", "moved_twins*", "moved_still", "no optimiser's step",
    "moved_by_another", "moved_between", "moved_target*", "critic.detached*", "critic.rows*",
    "actor.rows*", "critic.mask*", "critic.reward*", "critic.entropy*", "actor.entropy*",
    "critic.discount*", "critic.targets*", "critic.target_actors*", "critic.next_value*",
    "critic.descends*", "actor.sign*", "actor.density*", "critic.weights*", "policy.weights*",
    "policy.ratio*", "policy.clip*", "policy.value*", "critic.*", "actor.*", "policy.*", "loss.*",
    "moved_mixed", "moved_uncleared", "moved_in_part", "moved_*", "stored_values*",
    "learning rate below 0", "dead *",
    "falling return", "exploding gradient", "*",
)  # fmt: skip


def rank(finding: Finding) -> int:
    """How far upstream: 0 is first."""
    return next(k for k, each in enumerate(UPSTREAM) if fnmatchcase(finding.code, each))


def verdict(run: ProbeRun) -> list[Finding]:
    """What leaves nothing to decide, what to stop for, what to set, what to fix, what it cost."""
    lately = seen(run)
    own = followed(run)
    of_task = [] if void(run) else [*([own] if own else []), *_on_the_task(run)]
    others = [each.finding for each in run.reported if each.finding.decision != "fail"]
    return [
        *void(run), *([each.finding for each in failures(run)] or _quiet(run)),
        *(lately.findings if lately else ()), *_of_updates(run), *signal(run), *others, *of_task,
        *_cost(run),
    ]  # fmt: skip


def failures(run: ProbeRun) -> list[Reported]:
    """What has failed, upstream first; of equals what was first seen."""
    failed = [each for each in run.reported if each.finding.decision == "fail"]
    return sorted(failed, key=lambda each: (rank(each.finding), each.since))


def _quiet(run: ProbeRun) -> list[Finding]:
    return [Finding("probe.no alarm", "pass", value=ALPHA, n=run.updates)]


# Returns, by windows of episodes.


@dataclass(frozen=True)
class Seen:
    """Windows of one table, "returns" or "episodes".

    Attributes:
        changes: of the newest windows; since: the newest window against the first.
        best: the best window, where the newest one is known to be below it.
        risen: is the newest above the first, beyond what one window in many shows by chance?
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
    def findings(self) -> tuple[Finding, ...]:
        """What fell first; the newest change, and where that does not tell all the one since the
        first window."""
        last, several = self.changes[-1], len(self.changes) > 1
        lately = self.told(last, f"over the last {last.updates:,} updates")
        begun = self.told(self.since, "since the first window")
        if several and self.short:
            found = [begun, lately] if self.dropped else [begun]
        elif several and not (self.risen and last.direction == "rose"):
            found = [lately, begun]
        else:
            found = [lately]
        if self.best is not None and self.best.number.value != self.newest.number.value:
            found.append(self.told(self.best, f"step {self.best.step:,}", " below its best"))
        if self.raised:
            found.append(Finding("probe.return risen", "pass"))
        elif self.since.direction == "rose" and not (self.lower or self.dropped):
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
        changes, since = tuple(windows.changes(RECENT)), windows.since_begin()
        if since is not None:
            sizes = tuple(map(len, windows.windows))
            return Seen(source, changes, since, windows.below_best(), windows.risen, sizes)
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


def _on_the_task(run: ProbeRun) -> list[Finding]:
    if not run.measured:
        return []
    parts = (
        longer, _lost_jacobians, _horizon, _rivals, _weights, _source, _bound, _jacobians,
        _variance, _exponent,
    )  # fmt: skip
    found = [each for part in parts for each in part(run)]
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


def facts_of(run: ProbeRun) -> Facts | None:
    """None where nothing was measured on a task."""
    if not run.measured:
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
    cells, leading = [cell for cell in gains if cell[0] in own], None
    if cells:
        best = best_shown(gains, cells)
        gain = gains[best]
        # Cells whose interval reaches that of the best: a row keeps nothing that is paired. Its own
        # interval holds for all that may be best at once (Šidák), as if independent.
        kept = tuple(cell for cell in cells if cell == best or gains[cell].high >= gain.low)
        wider = scipy.stats.norm.ppf((1 + COVERAGE ** (1 / len(kept))) / 2) / Z
        low = gain.value - wider * (gain.value - gain.low)
        high = gain.value + wider * (gain.high - gain.value)
        leading = Best("gain", best, replace(gain, low=max(low, -1.0), high=min(high, 1.0)), kept)
    return Facts(
        samples=starts, batch=int(row["batch"]), law=LAW, truth="converged" if gains else "none",
        why="no admissible truth at the newest measurement", own=own, identities=identities,
        gains=gains, cosines=gains, leading=leading,
    )  # fmt: skip


def longer(run: ProbeRun) -> list[Finding]:
    """The best gradient of the task, which no update has followed; in a loop that follows the
    critic alone where it is shown to raise the return by more than that."""
    facts = facts_of(run)
    if facts is None or facts.best is None or facts.chosen is None:
        return []
    about: dict[str, Any] = {
        "subject": _NAMED[facts.best[0]], "at": f"h = {horizons(facts.close(facts.best))}"
    }  # fmt: skip
    best, own = facts.gains[facts.best], facts.data_gain
    if not run.critic_alone:
        found = _held("probe.best", facts.chosen, 0.0, "undecided", **about)
        return [replace(each, decision="undecided") for each in found]
    near = own is not None and own.value >= CLOSE * best.value
    if facts.best == facts.data or near or not best.low > 0:
        return []
    return _held("probe.longer", best, 0.0, **about)


def _lost_jacobians(run: ProbeRun) -> list[Finding]:
    """States whose Jacobians are not finite; nothing where there are none."""
    lost, of = _newest(run, "jacobian_nonfinite"), _newest(run, "jacobian_states")
    where, masked = str(run.measured["nonfinite_where"][-1]), _newest(run, "starts_lost")
    about: dict[str, Any] = dict(value=lost, threshold=of, n=int(masked), at=where)
    return [Finding("probe.lost Jacobians", "fail", **about)] if lost > 0 else []


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
    return [chosen, *_usable(run)]


def _usable(run: ProbeRun) -> list[Finding]:
    """Horizons at which the model gradient's cosine is at least .7 and its error at most twice
    the least, by the lower ends of both intervals and by the upper ones."""
    cosine, error = (
        {end: run.measured[f"{name}_{end}"][-1, MODEL] for end in ("low", "high")}
        for name in ("cosine", "mse")
    )
    if not all(np.isfinite(each["low"][1:]).any() for each in (cosine, error)):
        return []
    mse = run.measured["mse"][-1, MODEL]
    surely = (cosine["low"] >= COSINE) & (mse <= EXCESS * np.nanmin(mse))
    perhaps = (cosine["high"] >= COSINE) & (error["low"] <= EXCESS * np.nanmin(error["high"]))
    told = in_ranges(range(len(mse)), surely.tolist(), perhaps.tolist())
    spans: tuple[tuple[str, Decision, Any], ...] = (
        ("probe.usable", "pass", told.usable),
        ("probe.perhaps usable", "undecided", told.undecided),
    )
    about: dict[str, Any] = dict(subject=_NAMED["model"], threshold=COSINE, n=_count(run))
    found = [
        Finding(code, decision, **about, at=f"h = {ranges(over)}")
        for code, decision, over in spans
        if over
    ]
    return found or [Finding("probe.not usable", "fail", **about)]


def _rivals(run: ProbeRun) -> list[Finding]:
    """The gradient at the longest horizon, through the model where there is one, against the data
    gradient."""
    gap, about = _number(run, "over_data"), {"subject": _longest(run), "at": f"h = {run.horizon}"}
    value, low, high = map(float, np.exp(np.clip(gap.estimate, -_WIDE, _WIDE)))
    return [
        replace(each, value=value, low=low, high=high, threshold=1.0)
        for each in _held("probe.against data", gap, 0.0, "fail", **about)
    ]


def _weights(run: ProbeRun) -> list[Finding]:
    """The weight of the data gradient beside the longest horizon."""
    value, low, high = (_newest(run, f"weight_zero{end}") for end in ("", "_low", "_high"))
    number = Number(value, low, high, _count(run), (high - low) / (2 * Z))
    return _held("probe.weight", number, HALF, at=f"h = {run.horizon}")


def _source(run: ProbeRun) -> list[Finding]:
    """Does the critic or the model make the bias of the longest gradient?"""
    gap = _number(run, "critic_gap")
    who, number = ("the critic", gap) if gap.value >= 0 else ("the model", gap.negative)
    return _held("probe.source", number, 0.0, subject=who, at=f"h = {run.horizon}")


def _bound(run: ProbeRun) -> list[Finding]:
    """The critic against the largest return that the rewards seen allow."""
    mean, bound = _number(run, "value"), _newest(run, "return_bound")
    if not np.isfinite(bound):
        return []
    found = _held("probe.critic", mean if mean.value >= 0 else mean.negative, bound, "fail")
    value, low, high = mean.estimate
    return [replace(each, value=value, low=low, high=high) for each in found]


def _jacobians(run: ProbeRun) -> list[Finding]:
    """How the prior's Jacobians fare where the policy goes now."""
    error = _number(run, "jacobian_error")
    if error.value == -inf:
        return [Finding("probe.Jacobians", "pass", value=0.0, n=_count(run))]
    if not np.isfinite(error.estimate).all():
        return []
    value, low, high = map(float, np.exp(np.clip(error.estimate, -_WIDE, _WIDE)))
    now = Finding("probe.Jacobians", "pass", "", value, low, high, n=_count(run))
    ratio, low, high = (float(each[-1]) for each in jacobian_ratio(run.measured))
    if not np.isfinite([low, high]).all():
        return [now]
    same = low > 1 / SAME and high < SAME
    number = Number(log(ratio), log(low), log(high), _count(run), (log(high) - log(low)) / (2 * Z))
    (since,) = _held("probe.Jacobian drift", number, 0.0, "fail")
    since = replace(since, decision="pass", more=0) if same else since
    return [now, replace(since, value=ratio, low=low, high=high, threshold=1.0)]


def _variance(run: ProbeRun) -> list[Finding]:
    """Does the variance explode with the horizon?"""
    slope = _number(run, "growth")
    evidence = _newest(run, "growth_evidence")
    about: dict[str, Any] = dict(subject=_longest(run), at=f"h = {run.horizon}")
    found = _held("probe.growth", slope, 0.0, **about)
    if not slope.low > 0:
        return found
    if evidence < -DECISIVE:
        return [replace(each, code="probe.power law") for each in found]
    value, low, high = (log(2) / each for each in (slope.value, slope.high, slope.low))
    steps = dict(value=value, low=low, high=high, threshold=nan, code="probe.doubling")
    return [replace(each, **steps) for each in found]  # type: ignore[arg-type]


def _exponent(run: ProbeRun) -> list[Finding]:
    """Do perturbations of the closed loop grow?"""
    return _held("probe.Lyapunov", _number(run, "lyapunov"), 0.0)


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


def _longest(run: ProbeRun) -> str:
    """The gradient that is judged at the longest horizon."""
    return _NAMED[judged({"variance": run.measured["variance"][-1]})]


def _newest(run: ProbeRun, name: str) -> float:
    """A number of the newest measurement; NaN where it has none."""
    return float(run.measured[name][-1]) if name in run.measured else nan


def _number(run: ProbeRun, name: str) -> Number:
    """The same with its interval, from its standard error."""
    value, se = _newest(run, name), _newest(run, f"{name}_se")
    return Number(value, value - Z * se, value + Z * se, _count(run), se)


def _count(run: ProbeRun) -> int:
    return int(_newest(run, "starts"))
