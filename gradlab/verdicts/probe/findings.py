"""What a probe's run shows, one finding each: number, 95% interval, threshold, what it decides.

What was not measured has none: the page says how to get it. Findings on the task are those of the
newest measurement, whose step and starts stand once, in front.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from math import inf, log, sqrt

import numpy as np

from gradlab.findings import Finding
from gradlab.probe.alarms.catalogue import HALF, NOISE
from gradlab.probe.alarms.evidence import ALPHA, FEWEST
from gradlab.runs.decision_rules import COSINE, EXCESS, LogRatio, in_ranges
from gradlab.runs.identity import by_default
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.schema import ESTIMATORS, judged
from gradlab.runs.probe.tables import jacobian_ratio, signals
from gradlab.statistics.comparison import Number, decide
from gradlab.statistics.growth import DECISIVE
from gradlab.statistics.intervals import Z
from gradlab.statistics.successive import pooled
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.phrases import SAME, capital, missing, usable_text
from gradlab.verdicts.probe.returns import facts_of, followed, seen, void
from gradlab.verdicts.recommendation import finding, worded
from gradlab.wording import (
    duration,
    gradient,
    horizons,
    percent,
    times,
    turned,
    two,
    updates,
    with_interval,
)
from gradlab.wording import ratio as sized

_RISK = 0.05  # of an interval
RECENT = 10  # windows, or bursts: a signal of long ago says nothing of now
MODEL = ESTIMATORS.index("model")
_NAMED = {name: gradient(each) for name, each in by_default(ESTIMATORS).items()}
OF_INTERVALS = (
    "gain", "other horizons", "horizon", "rivals", "weights", "source", "critic", "variance",
    "growth",
)  # fmt: skip
_OF_ROLLOUTS = (
    "advantages are ", "time limits are bootstrapped", "values at ends", "values are fitted",
    "actions are weighed",
)  # fmt: skip
_OF_REPLAYS = (
    "targets ", "actor's steps raise", "log π is", "the critic's implied reward",
    "batches are drawn", "next observations are", "episodes end with",
)  # fmt: skip
_STATES = {"off": "not looked at", "waiting": "undecided so far", "open": "open", "fault": "fault"}


def verdict(run: ProbeRun) -> list[Finding]:
    """What to stop for, then what to set, what to fix, why, and what the probe cost."""
    first = (_alarms(run), _returns(run), _lost(run), _saturation(run), _signal(run))
    every = (*first, *_checked(run), *_on_the_task(run), _cost(run))
    found = [each for each in every if each is not None]
    return sorted(found, key=lambda each: each.code != "premises")


def _alarms(run: ProbeRun) -> Finding:
    names = [str(each) for each in run.alarms.get("alarm", ())]
    if not names:
        rate = f"each is raised in at most {percent(ALPHA)} of sound runs"
        made, looked = updates(run.updates), int(run.vitals["looked"].sum()) if run.vitals else 0
        if 2 * looked < run.updates:
            made += f", of which {looked:,} were looked at; what came and went between is not known"
        return finding("alarms", True, "Alarms", f"none in {made}", rate)
    told = [
        f"{kind} (step {int(run.alarms['step'][names.index(kind)]):,}"
        + (")" if n == 1 else f", {n} times)")
        for kind, n in Counter(names).items()
    ]
    return finding("alarms", True, f"Alarms, {len(told)} kind{'s' * (len(told) > 1)}", *told)


def _returns(run: ProbeRun) -> Finding | None:
    """The newest change with its count."""
    found = seen(run)
    if found is None:
        return None
    text, size = " ".join(filter(None, (found.text, found.fall, found.count))), found.window
    best = ", from the best 99.8%" if found.fall else ""
    least = "at least " if max(found.sizes) > size else ""  # an update's are not parted
    n = found.sizes[-1] + found.sizes[0 if found.short else -2]
    text += f" Windows of {least}{size} {found.counted} (Welch, 95%{best}, N = {n})."
    return worded("returns", found.newest.direction != "open" or found.lower, text)


def _lost(run: ProbeRun) -> Finding | None:
    """Gradients that are not finite, with an upper end where none was seen (Clopper–Pearson)."""
    if not run.vitals:
        return None
    looked, lost = (int(run.vitals[name].sum()) for name in ("looked", "nonfinite_updates"))
    what = "Gradients that are not finite"
    of, made = f"{looked:,} look{'s' * (looked != 1)}", updates(run.updates)
    if lost:
        since = int(run.vitals["step"][np.flatnonzero(run.vitals["nonfinite_updates"])[0]])
        share = f"{lost:,} of {of} ({percent(lost / looked)})"
        return finding(
            "health", True, what, share, f"first in the window up to step {since:,}", made
        )
    most = percent(1 - _RISK ** (1 / max(looked, 1)))
    return finding("health", True, what, f"none of {of}", f"at most {most} (95%)", made)


def _saturation(run: ProbeRun) -> Finding | None:
    """The action that is most at its limit lately (Hoeffding, passes taken as independent)."""
    share = run.vitals.get("saturation", np.empty((0, 0)))
    finite = np.flatnonzero(np.isfinite(share).any(axis=1))[-RECENT:]
    if not len(finite):
        return None
    passes = run.vitals["watched"][finite]
    mean, n = passes @ share[finite] / passes.sum(), int(passes.sum())
    j, margin = int(np.argmax(mean)), sqrt(log(2 / _RISK) / (2 * n))
    low, high = max(mean[j] - margin, 0.0), min(mean[j] + margin, 1.0)
    decision = decide(Number(mean[j], low, high, n, margin / Z), HALF)
    said = {"above": "the actor is saturated", "below": "not saturated"}
    return finding(
        "saturation", decision.decided, f"Action {j} at its limit, the most of all actions",
        with_interval(mean[j], low, high, write=percent),
        said.get(decision.kind, f"undecided, {missing(decision, 'passes')} decide"), n=n,
    )  # fmt: skip


def _signal(run: ProbeRun) -> Finding | None:
    """How much of one batch's gradient is signal lately."""
    at, found = signals(run)
    if not found:
        return None
    whole, lately = pooled(found[-RECENT:]), at[-RECENT:]
    low, high = whole.ends
    decision = decide(Number(whole.share, low, high, whole.pairs, whole.se), 0.0)
    where = f"step {lately[0]:,.0f}"
    if len(lately) > 1:
        where = f"steps {lately[0]:,.0f}–{lately[-1]:,.0f}"
    where += "; none since was finite" if run.successive["step"][-1] > at[-1] else ""
    if decision.kind == "above":
        value = turned(whole.cosine, sqrt(low), sqrt(high))
        what = "Cosine of one batch's gradient with the mean gradient"
        return finding("signal", True, what, value, where, n=whole.pairs)
    share = with_interval(whole.share, low, high, write=percent)
    # An estimate below 0 is no estimate of how many pairs it takes.
    enough = missing(decision, "pairs") if whole.share > 0 else "more pairs would"
    noise = high < NOISE
    said = "no better than noise" if noise else f"undecided, {enough} decide"
    what = "Signal in the squared norm of one batch's gradient"
    return finding("signal", noise, what, share, said, where, n=whole.pairs)


def _checked(run: ProbeRun) -> Iterator[Finding]:
    """Of every check of the loop's parts its answer, its proof, on how many looks, and its cost;
    those that have not looked for one and the same reason in one line."""
    rows = [
        {name: str(column[k]) for name, column in run.checks.items()}
        for k in range(len(run.checks.get("number", ())))
    ]
    off: dict[str, list[str]] = {}
    others = of_other_loops(run)
    for row in rows:
        if row["state"] == "off":
            row["proof"] = others.get(row["check"]) or row["proof"]
            off.setdefault(row["proof"], []).append(row["check"])
    for row in rows:
        alike = off.get(row["proof"], [row["check"]])
        if row["check"] != alike[0]:
            continue
        state, looks = row["state"], int(float(row["looks"]))
        share = float(row["seconds"]) / run.seconds if run.seconds > 0 else np.nan
        known = looks and np.isfinite(share)
        cost = f"{looks} looks, {percent(share)} of the time" if known else ""
        answer = f"{_STATES.get(state, 'yes')}, {row['proof']}"
        yield finding("part", state in ("sound", "fault"), capital("; ".join(alike)), answer, cost)


def of_other_loops(run: ProbeRun) -> dict[str, str]:
    """Checks of parts that such a loop lacks, and why they do not look, "" where their own proof
    says it: those of rollouts in a loop of replays, and of replays in one of rollouts, and those of
    networks beside policy and critic."""
    of = {name: str(run.checks["state"][k]) for k, name in enumerate(run.checks.get("check", ()))}
    looked = [name for name, state in of.items() if state != "off"]
    found = {name: "" for name in of if name.startswith("other network's")}
    if any(name.startswith(_OF_ROLLOUTS) for name in looked):
        replays = [name for name in of if name.startswith(_OF_REPLAYS)]
        return found | dict.fromkeys(replays, "a loop of rollouts has no such part")
    if any(name.startswith(("targets are ", "batches are drawn")) for name in looked):
        rollouts = [name for name in of if name.startswith(_OF_ROLLOUTS)]
        return found | dict.fromkeys(rollouts, "a loop of replayed batches has no such part")
    return found


def _cost(run: ProbeRun) -> Finding | None:
    """The share of the time that the probe took: counted, not estimated."""
    if not np.isfinite(run.spent):
        return None
    budget = f"{'within' if run.spent <= run.budget else 'above'} its budget of"
    return finding(
        "cost", True, "Cost of the probe", f"{percent(run.spent)} of {duration(run.seconds)}",
        f"{budget} {percent(run.budget)}", updates(run.updates),
    )  # fmt: skip


def _on_the_task(run: ProbeRun) -> list[Finding]:
    if not run.measured:
        return []
    if reasons := void(run):
        return [worded("premises", True, reason) for reason in reasons]
    parts = (
        _own, _step, _lost_jacobians, _horizon, _rivals, _weights, _source, _bound, _jacobians,
        _variance, _exponent,
    )  # fmt: skip
    found = [each for part in parts if (each := part(run)) is not None]
    if too_few(run):  # what rests on an interval decides nothing
        found = [
            replace(
                each, decision="undecided", text=f"Not reliable below {FEWEST} starts: {each.text}"
            )
            if each.code in OF_INTERVALS
            else each
            for each in found
        ]
    where = f"step {run.measured['step'][-1]:,.0f}", f"{_count(run)} starts", "visited states"
    first = finding("measurement", True, "Newest measurement on the task", *where)
    if np.isfinite(run.measured["variance"][-1]).any():
        # What no probe looks for: a pilot of many starts may be dearer than its budget.
        rare = f"Starts rarer than 1 in {2 * _count(run)}"
        found.append(finding("tails", True, rare, "not looked for, as `gradlab measure` does"))
    return [first, *found]


def too_few(run: ProbeRun) -> bool:
    """Whether the newest measurement has fewer starts than intervals were tested with."""
    return _count(run) < FEWEST


def _own(run: ProbeRun) -> Finding | None:
    """What the gradient that the loop follows does to the return, where that is known."""
    own = followed(run)
    return None if own is None else worded("gain", own.direction != "unknown", own.text)


def _step(run: ProbeRun) -> Finding | None:
    """The step that the newest measurement recommends, from the facts that a report reads."""
    facts = facts_of(run)
    if facts is None or facts.best is None or (run.critic_alone and facts.best == facts.data):
        return None
    step = recommendation(facts)
    about = "other horizons" if run.critic_alone else "gain"
    lead = "In a loop that has a model: " if run.critic_alone else ""
    said = "; ".join(f"{each.name}: {each.text}" for each in step.fields)
    return worded(about, step.light == "act", f"{lead}{said}.")


def _lost_jacobians(run: ProbeRun) -> Finding | None:
    """States whose Jacobians are not finite; nothing to say where there are none."""
    lost, of = _newest(run, "jacobian_nonfinite"), _newest(run, "jacobian_states")
    if not lost > 0:
        return None
    return finding(
        "lost jacobians", True, "States whose Jacobians are not finite",
        f"{lost:.0f} of {of:.0f} ({run.measured['nonfinite_where'][-1]})",
        f"masking drops {_newest(run, 'starts_lost'):.0f} of {_count(run)} starts",
    )  # fmt: skip


def _horizon(run: ProbeRun) -> Finding | None:
    """The horizon of the smallest error, those that may have it, and the usable ones."""
    if not np.isfinite(run.measured["variance"][-1]).any():
        return None  # no critic, no gradient
    what = f"Smallest error of one batch of {_newest(run, 'batch'):.0f}"
    at = _newest(run, "chosen_horizon")
    if not np.isfinite(at):
        return finding("horizon", False, what, "undecided, no admissible truth", n=_count(run))
    low, high = int(_newest(run, "kept_low")), int(_newest(run, "kept_high"))
    chosen = by_default(run.estimators)[run.estimators[int(_newest(run, "chosen_estimator"))]]
    who = gradient(chosen) if chosen.data else f"{gradient(chosen)} at h = {at:.0f}"
    decided = (low, high) != (0, run.horizon)
    open_ = "" if decided else f"undecided, 0 and {high} may both be: more starts would decide"
    kept = f"{who} (may be smallest, 95%: {_set(run)})"
    values = (kept, _before(run, low, high), open_, _usable(run))
    return finding("horizon", decided, what, *values, n=_count(run))


def _set(run: ProbeRun) -> str:
    """Every estimator with its horizons that may be best."""
    kept = {
        name: np.flatnonzero(row == 1).tolist()
        for name, row in zip(run.estimators, run.measured["kept"][-1], strict=True)
    }
    named = [f"{name} {horizons(over)}" for name, over in kept.items() if over]
    return "; ".join("data" if each == "data 0" else each for each in named)


def _before(run: ProbeRun, low: int, high: int) -> str:
    """Where the choice was at first, if that is certainly another."""
    finite = np.flatnonzero(np.isfinite(run.measured["chosen_horizon"]))
    first = {k: int(run.measured[k][finite[0]]) for k in ("kept_low", "kept_high", "step")}
    if first["kept_low"] <= high and low <= first["kept_high"]:
        return ""
    kept = horizons(range(first["kept_low"], first["kept_high"] + 1))
    return f"at step {first['step']:,} h = {kept}"


def _usable(run: ProbeRun) -> str:
    """Horizons at which the model gradient's cosine is at least .7 and its error at most twice
    the least, by the lower ends of both intervals and by the upper ones."""
    cosine, error = (
        {end: run.measured[f"{name}_{end}"][-1, MODEL] for end in ("low", "high")}
        for name in ("cosine", "mse")
    )
    if not all(np.isfinite(each["low"][1:]).any() for each in (cosine, error)):
        return ""
    mse = run.measured["mse"][-1, MODEL]
    surely = (cosine["low"] >= COSINE) & (mse <= EXCESS * np.nanmin(mse))
    perhaps = (cosine["high"] >= COSINE) & (error["low"] <= EXCESS * np.nanmin(error["high"]))
    usable = in_ranges(range(len(mse)), surely.tolist(), perhaps.tolist())
    rule = f"cosine ≥ {COSINE:g}, at most {times(EXCESS)} the least error, 95% each"
    text = usable_text(_NAMED["model"], usable, rule)
    return text[0].lower() + text[1:]


def _judged(
    run: ProbeRun, about: str, what: str, number: Number, threshold: float, shown: str,
    above: str, below: str, more: str = "",
) -> Finding | None:  # fmt: skip
    """A number against its threshold; nothing where it is not known."""
    if not np.isfinite(number.estimate).all():
        return None
    decision = decide(number, threshold)
    said = {"above": above, "below": below}.get(decision.kind)
    said = said or f"undecided, {missing(decision, 'starts')} decide"
    return finding(about, decision.decided, what, shown, more, said, n=number.n)


def _rivals(run: ProbeRun) -> Finding | None:
    """The gradient at the longest horizon, through the model where there is one, against the data
    gradient."""
    gap, se = (run.measured[name] for name in ("over_data", "over_data_se"))
    low, high = gap - Z * se, gap + Z * se
    turned = run.measured["step"][(high < 0) if gap[-1] > 0 else (low > 0)]
    before = f"the other way round at step {turned[-1]:,.0f}" if len(turned) else ""
    whole = _longest(run)
    return _judged(
        run, "rivals", f"Error of one batch of {whole}, h = {run.horizon}, over that of "
        f"{_NAMED['data']}", _number(run, "over_data"), 0.0,
        sized(_exp(gap[-1]), _exp(low[-1]), _exp(high[-1])), "the data gradient is better",
        f"{whole} is better", before,
    )  # fmt: skip


def _weights(run: ProbeRun) -> Finding | None:
    """The weight of the data gradient beside the longest horizon."""
    value, low, high = (_newest(run, f"weight_zero{end}") for end in ("", "_low", "_high"))
    return _judged(
        run, "weights", f"Weight of horizon 0 beside horizon {run.horizon} with the least error",
        Number(value, low, high, _count(run), (high - low) / (2 * Z)), HALF,
        with_interval(value, low, high), "the critic's own gradient deserves more",
        "the longer one deserves more",
    )  # fmt: skip


def _source(run: ProbeRun) -> Finding | None:
    """Does the critic or the model make the bias of the longest gradient?"""
    gap = _number(run, "critic_gap")
    return _judged(
        run, "source", f"Squared bias that the critic makes, less half of all, h = {run.horizon}",
        gap, 0.0, with_interval(*gap.estimate), "most of it is the critic's",
        "most of it is the model's",
    )  # fmt: skip


def _bound(run: ProbeRun) -> Finding | None:
    """The critic against the largest return that the rewards seen allow."""
    mean, bound = _number(run, "value"), _newest(run, "return_bound")
    if not np.isfinite(bound):
        return None
    limit = f"the largest |reward| so far allows ± {two(bound)}"
    return _judged(
        run, "critic", "Mean value of the critic", mean if mean.value >= 0 else mean.negative,
        bound, with_interval(*mean.estimate), "beyond its bound: refit the critic",
        "within its bound", limit,
    )  # fmt: skip


def _jacobians(run: ProbeRun) -> Finding | None:
    """How the prior's Jacobians fare where the policy goes now."""
    error = _number(run, "jacobian_error")
    what = "Relative error of the model's Jacobians at fresh states"
    if error.value == -inf:
        return finding("jacobians", True, what, "0, they are exact", n=_count(run))
    if not np.isfinite(error.estimate).all():
        return None
    text = with_interval(_exp(error.value), _exp(error.low), _exp(error.high))
    ratio, low, high = (float(each[-1]) for each in jacobian_ratio(run.measured))
    if not np.isfinite([low, high]).all():
        return finding("jacobians", True, what, text, n=_count(run))
    since = with_interval(ratio, low, high, "× that of the first measurement")
    if low > 1 / SAME and high < SAME:
        decided, said = True, "the same"
    elif low > 1 or high < 1:
        decided, said = True, "worse: refit the model there" if low > 1 else "better"
    else:
        se = (log(high) - log(low)) / (2 * Z)
        decision = LogRatio(log(ratio), log(low), log(high), se).against(_count(run))
        decided, said = False, f"undecided, {missing(decision, 'starts')} decide"
    return finding("jacobians", decided, what, text, since, said, n=_count(run))


def _variance(run: ProbeRun) -> Finding | None:
    """Does the variance explode with the horizon?"""
    slope, low, high = _number(run, "growth").estimate
    if not np.isfinite([slope, low, high]).all():
        return None
    evidence, text = _newest(run, "growth_evidence"), with_interval(slope, low, high)
    what = f"Growth of the variance of {_longest(run)}, log per step, up to h = {run.horizon}"
    if low <= 0:
        said, decided = "no exponential growth", high < 0
    elif evidence < -DECISIVE:
        said, decided = "it grows like a power of h", True
    else:
        every = with_interval(log(2) / slope, log(2) / high, log(2) / low, " steps")
        said, decided = f"it doubles every {every}", True
        said += "" if evidence > DECISIVE else "; a power law fits as well: do not extrapolate"
    return finding("variance", decided, what, text, said, n=_count(run))


def _exponent(run: ProbeRun) -> Finding | None:
    """Do perturbations of the closed loop grow?"""
    rate = _number(run, "lyapunov")
    grown = ""
    if rate.low > 0:
        fold = with_interval(1 / rate.value, 1 / rate.high, 1 / rate.low, " steps")
        grown = f"they grow e-fold in {fold}"
    return _judged(
        run, "growth", "Growth of perturbations of the closed loop, λ per step", rate, 0.0,
        with_interval(*rate.estimate), grown, "they die out",
    )  # fmt: skip


def _longest(run: ProbeRun) -> str:
    """The gradient that is judged at the longest horizon."""
    return _NAMED[judged({"variance": run.measured["variance"][-1]})]


def _exp(x: float) -> float:
    """e^x, and infinite where that is no number: intervals of logarithms may be as wide."""
    with np.errstate(over="ignore"):
        return float(np.exp(x))


def _newest(run: ProbeRun, name: str) -> float:
    """A number of the newest measurement; NaN where it has none."""
    return float(run.measured[name][-1]) if name in run.measured else float("nan")


def _number(run: ProbeRun, name: str) -> Number:
    """The same with its interval, from its standard error."""
    value, se = _newest(run, name), _newest(run, f"{name}_se")
    return Number(value, value - Z * se, value + Z * se, _count(run), se)


def _count(run: ProbeRun) -> int:
    return int(_newest(run, "starts"))
