"""The sentences of a probe's verdict that rest on the task, by its newest measurement."""

from __future__ import annotations

from dataclasses import replace
from math import inf, log

import numpy as np

from gradlab.probe.alarms.catalogue import HALF
from gradlab.probe.alarms.evidence import FEWEST
from gradlab.runs.decision_rules import COSINE, EXCESS, LogRatio, in_ranges
from gradlab.runs.identity import by_default
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.schema import ESTIMATORS
from gradlab.runs.probe.tables import jacobian_ratio
from gradlab.statistics.growth import DECISIVE
from gradlab.statistics.intervals import Z
from gradlab.statistics.number import Number, decide
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.measurement.verdict import Sentence
from gradlab.verdicts.phrases import SAME, capital, missing, usable_text
from gradlab.verdicts.probe.followed import facts_of, followed, void
from gradlab.wording import gradient, horizons, span, times, two
from gradlab.wording import ratio as sized

_MODEL = ESTIMATORS.index("model")
DATA_GRADIENT, MODEL_GRADIENT = (gradient(by_default(ESTIMATORS)[e]) for e in ESTIMATORS[:2])
OF_INTERVALS = (
    "gain", "other horizons", "horizon", "rivals", "weights", "source", "critic", "variance",
    "growth",
)  # fmt: skip


def on_the_task(run: ProbeRun) -> list[Sentence]:
    """What to set, what to mend, and why; nothing without a measurement."""
    if not run.measured:
        return []
    if reasons := void(run):
        return [Sentence("premises", True, reason) for reason in reasons]
    parts = (
        _own, _step, _lost, _horizon, _rivals, _weights, _source, _bound, _jacobians, _variance,
        _exponent,
    )  # fmt: skip
    sentences = [sentence for part in parts if (sentence := part(run)) is not None]
    if too_few(run):  # what rests on an interval decides nothing
        sentences = [
            replace(each, decided=False, text=f"Not reliable below {FEWEST} starts: {each.text}")
            if each.about in OF_INTERVALS
            else each
            for each in sentences
        ]
    if np.isfinite(run.measured["variance"][-1]).any():
        # What no probe looks for: a pilot of many starts may be dearer than its budget.
        text = (
            f"Starts rarer than 1 in {2 * _count(run)} are not looked for here (`gradlab measure` "
            f"does it): where the law of the starts has tails, variances and errors are larger "
            f"than these ({_starts(run)})."
        )
        sentences.append(Sentence("tails", True, text))
    return sentences


def too_few(run: ProbeRun) -> bool:
    """Whether the newest measurement has fewer starts than intervals were tested with."""
    return _count(run) < FEWEST


def _step(run: ProbeRun) -> Sentence | None:
    """The step that the newest measurement recommends, from the facts that a report reads."""
    facts = facts_of(run)
    if facts is None or facts.best is None or (run.critic_alone and facts.best == facts.data):
        return None
    screen = recommendation(facts)
    text = f"{screen.headline} How sure: {screen.sure} ({_starts(run)}, at visited states)."
    if run.critic_alone:
        text = f"In a loop that has a model, by the same measurement: {text}"
    about = "other horizons" if run.critic_alone else "gain"
    return Sentence(about, screen.light == "act", text)


def _own(run: ProbeRun) -> Sentence | None:
    """What the gradient that the loop follows does to the return, where that is known."""
    own = followed(run)
    return None if own is None else Sentence("gain", own.direction != "unknown", own.text)


def _horizon(run: ProbeRun) -> Sentence | None:
    """Form 1: the horizon of the smallest error, its 95% set, and the usable ones."""
    if not np.isfinite(run.measured["variance"][-1]).any():
        return None  # no critic, no gradient
    at = _newest(run, "chosen_horizon")
    if not np.isfinite(at):
        text = "Undecided which horizon is best: no admissible truth at the newest measurement"
        return Sentence("horizon", False, f"{text} ({_starts(run)}).")
    low, high = int(_newest(run, "kept_low")), int(_newest(run, "kept_high"))
    chosen = by_default(run.estimators)[run.estimators[int(_newest(run, "chosen_estimator"))]]
    who = gradient(chosen) if chosen.data else f"{gradient(chosen)} at h = {at:.0f}"
    best = (
        f"the error of one batch of {_newest(run, 'batch'):.0f} is smallest for {who} (95% set: "
        f"{_set(run)}; {_starts(run)}){_before(run, low, high)}"
    )
    if (low, high) == (0, run.horizon):
        text = f"Undecided which horizon is best, 0 and {high} may both be: {best}"
        more = "more starts decide (gradlab.measure)"
        return Sentence("horizon", False, f"{text}; {more}.{_usable(run)}")
    yours = "The horizon of your own loop is not known to the probe: compare it with this."
    if run.critic_alone:
        yours = "Your loop follows the critic alone, the data gradient (h = 0)."
    return Sentence("horizon", True, f"{capital(best)}.{_usable(run)} {yours}")


def _set(run: ProbeRun) -> str:
    """Every estimator with its horizons that may be best."""
    kept = {
        name: np.flatnonzero(row == 1).tolist()
        for name, row in zip(run.estimators, run.measured["kept"][-1], strict=True)
    }
    named = [f"{name} {horizons(over)}" for name, over in kept.items() if over]
    if not named:  # files of older versions say the ends only
        return _range(int(_newest(run, "kept_low")), int(_newest(run, "kept_high")))
    return "; ".join("data" if each == "data 0" else each for each in named)


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}–{high}"


def _before(run: ProbeRun, low: int, high: int) -> str:
    """Where the choice was at first, if that is certainly another."""
    finite = np.flatnonzero(np.isfinite(run.measured["chosen_horizon"]))
    first = {k: int(run.measured[k][finite[0]]) for k in ("kept_low", "kept_high", "step")}
    if first["kept_low"] <= high and low <= first["kept_high"]:
        return ""
    ends = _range(first["kept_low"], first["kept_high"])
    return f"; at step {first['step']:,} it was at h = {ends}"


def _usable(run: ProbeRun) -> str:
    """Horizons at which the model gradient's cosine is at least .7 and its error at most twice
    the least, by the lower ends of both intervals and by the upper ones."""
    cosine, error = (
        {end: run.measured[f"{name}_{end}"][-1, _MODEL] for end in ("low", "high")}
        for name in ("cosine", "mse")
    )
    if not all(np.isfinite(each["low"][1:]).any() for each in (cosine, error)):
        return ""
    mse = run.measured["mse"][-1, _MODEL]
    surely = (cosine["low"] >= COSINE) & (mse <= EXCESS * np.nanmin(mse))
    perhaps = (cosine["high"] >= COSINE) & (error["low"] <= EXCESS * np.nanmin(error["high"]))
    usable = in_ranges(range(len(mse)), surely.tolist(), perhaps.tolist())
    rule = f"cosine ≥ {COSINE:g}, at most {times(EXCESS)} the least error, 95% each"
    return f" {usable_text(MODEL_GRADIENT, usable, rule)}."


def _weights(run: ProbeRun) -> Sentence | None:
    """Form 5: the weight of the data gradient beside the longest horizon."""
    value, low, high = (_newest(run, f"weight_zero{end}") for end in ("", "_low", "_high"))
    if not np.isfinite([value, low, high]).all():
        return None
    text = f"{two(value)} (CI {span(low, high)}, {_starts(run)})"
    decision = decide(Number(value, low, high, _count(run), (high - low) / (2 * Z)), HALF)
    if decision.decided:
        most = "the longer one" if decision.kind == "below" else "the critic's own gradient"
        told = f"Of horizons 0 and {run.horizon} mixed, {most} deserves more weight: the least "
        return Sentence("weights", True, f"{told}error has horizon 0 at the weight {text}.")
    which = f"Undecided whether horizon 0 or {run.horizon} deserves more weight"
    enough = missing(decision, "starts")
    return Sentence("weights", False, f"{which}: that of 0 is {text}; {enough} decide.")


def _rivals(run: ProbeRun) -> Sentence | None:
    """Form 4: the model gradient at the longest horizon against the data gradient."""
    gap, se = (run.measured[name] for name in ("over_data", "over_data_se"))
    low, high = gap - Z * se, gap + Z * se
    if not np.isfinite([low[-1], high[-1]]).all():
        return None
    ratio = sized(_exp(gap[-1]), _exp(low[-1]), _exp(high[-1]), _starts(run))
    text = f"one batch of {MODEL_GRADIENT} at h = {run.horizon} has {ratio} the error of one of "
    text += DATA_GRADIENT
    decision = decide(_number(run, "over_data"), 0.0)
    if not decision.decided:
        text = f"Undecided whether model or data is nearer to the truth: {text}; "
        return Sentence("rivals", False, f"{text}{missing(decision, 'starts')} decide.")
    turned = run.measured["step"][(high < 0) if gap[-1] > 0 else (low > 0)]
    at = f"; at step {turned[-1]:,.0f} it was the other way round" if len(turned) else ""
    return Sentence("rivals", True, f"{capital(text)}{at}.")


def _source(run: ProbeRun) -> Sentence | None:
    """Form 3: does the critic or the model make the bias of the longest gradient?"""
    gap = _number(run, "critic_gap")
    if not np.isfinite([gap.value, gap.se]).all():
        return None
    numbers = (
        f"the squared bias that stays with the simulator's own dynamics, less half of the model "
        f"gradient's, is {two(gap.value)} (CI {span(gap.low, gap.high)}, h = {run.horizon}, "
        f"{_starts(run)})"
    )
    decision = decide(gap, 0.0)
    if decision.kind == "above":
        return Sentence("source", True, f"The critic makes most of the bias: {numbers}.")
    if decision.kind == "below":
        text = f"The model makes most of the bias, not the critic: {numbers}."
        return Sentence("source", True, text)
    text = f"Undecided whether critic or model makes most of the bias: {numbers}; "
    return Sentence("source", False, f"{text}{missing(decision, 'starts')} decide.")


def _bound(run: ProbeRun) -> Sentence | None:
    """The critic against the largest return that the rewards seen allow."""
    mean, bound = _number(run, "value"), _newest(run, "return_bound")
    if not np.isfinite([mean.value, mean.se, bound]).all():
        return None
    numbers = f"its mean value is {two(mean.value)} (CI {span(mean.low, mean.high)}, "
    numbers += f"{_starts(run)}), the largest |reward| so far allows ± {two(bound)}"
    decision = decide(mean if mean.value >= 0 else mean.negative, bound)
    if decision.decided:
        where = "beyond" if decision.kind == "above" else "within"
        return Sentence("critic", True, f"The critic is {where} its bound: {numbers}.")
    text = f"Undecided whether the critic is within its bound: {numbers}; "
    return Sentence("critic", False, f"{text}{missing(decision, 'starts')} decide.")


def _jacobians(run: ProbeRun) -> Sentence | None:
    """How the prior's Jacobians fare where the policy goes now."""
    error, se = _newest(run, "jacobian_error"), _newest(run, "jacobian_error_se")
    if error == -inf:
        return Sentence("jacobians", True, f"The model's Jacobians are exact ({_starts(run)}).")
    if not np.isfinite([error, se]).all():
        return None
    ends = span(_exp(error - Z * se), _exp(error + Z * se))
    text = f"The model's Jacobians on fresh states are off by {two(_exp(error))} of their size "
    text += f"(CI {ends}, {_starts(run)})"
    ratio, low, high = (float(each[-1]) for each in jacobian_ratio(run.measured))
    if not np.isfinite([low, high]).all():
        return Sentence("jacobians", True, f"{text}.")
    text += f": {times(ratio)} the first measurement's error (CI {span(low, high)})"
    if low > 1 / SAME and high < SAME:
        return Sentence("jacobians", True, f"{text}, the same.")
    if low > 1 or high < 1:
        worse = "worse than at first; refit the model there" if low > 1 else "better than at first"
        return Sentence("jacobians", True, f"{text}, {worse}.")
    se = (log(high) - log(low)) / (2 * Z)
    decision = LogRatio(log(ratio), log(low), log(high), se).against(_count(run))
    drift = f"undecided whether they drift: {missing(decision, 'starts')} decide"
    return Sentence("jacobians", False, f"{text}; {drift}.")


def _lost(run: ProbeRun) -> Sentence | None:
    """Form 8: states whose Jacobians are not finite; nothing to say where there are none."""
    lost, of = _newest(run, "jacobian_nonfinite"), _newest(run, "jacobian_states")
    if not lost > 0:
        return None
    dropped = f"{_newest(run, 'starts_lost'):.0f} of {_count(run)} starts"
    where = str(run.measured["nonfinite_where"][-1])
    text = f"{lost:.0f} of {of:.0f} states have Jacobians that are not finite ({where}): leaving "
    text += f"them out drops {dropped} (step {run.measured['step'][-1]:,.0f})."
    return Sentence("lost jacobians", True, text)


def _variance(run: ProbeRun) -> Sentence | None:
    """Form 2: does the variance explode with the horizon?"""
    slope, se = _newest(run, "growth"), _newest(run, "growth_se")
    if not np.isfinite([slope, se]).all():
        return None
    low, high = slope - Z * se, slope + Z * se
    n = f"slope of its logarithm {two(slope)} per step, CI {span(low, high)}, {_starts(run)}"
    who, evidence = MODEL_GRADIENT, _newest(run, "growth_evidence")
    if low <= 0:
        text = f"No exponential growth of the variance of {who} detected up to h = {run.horizon}"
        return Sentence("variance", high < 0, f"{text} ({n}).")
    if evidence < -DECISIVE:
        text = f"The variance of {who} grows with h, but like a power of it ({n})."
        return Sentence("variance", True, text)
    ends = span(log(2) / high, log(2) / low)
    text = f"The variance of {who} doubles every {two(log(2) / slope)} steps of the horizon "
    doubt = "" if evidence > DECISIVE else "; a power law fits as well, so do not extrapolate"
    return Sentence("variance", True, f"{text}(CI {ends}, {_starts(run)}){doubt}.")


def _exponent(run: ProbeRun) -> Sentence | None:
    """Do perturbations of the closed loop grow?"""
    rate = _number(run, "lyapunov")
    if not np.isfinite([rate.value, rate.se]).all():
        return None
    numbers = f"λ = {two(rate.value)} per step (CI {span(rate.low, rate.high)}, {_starts(run)})"
    decision = decide(rate, 0.0)
    if decision.kind == "above":
        ends = span(1 / rate.high, 1 / rate.low)
        grown = f"e-fold in {two(1 / rate.value)} steps (CI {ends})"
        text = f"Perturbations of the closed loop grow, {grown}: {numbers}."
        return Sentence("growth", True, text)
    if decision.kind == "below":
        return Sentence("growth", True, f"Perturbations of the closed loop die out: {numbers}.")
    text = f"Undecided whether perturbations of the closed loop grow: {numbers}; "
    return Sentence("growth", False, f"{text}{missing(decision, 'starts')} decide.")


def _exp(x: float) -> float:
    """e^x, and infinite where that is no number: intervals of logarithms may be as wide."""
    with np.errstate(over="ignore"):
        return float(np.exp(x))


def _newest(run: ProbeRun, name: str) -> float:
    """A number of the newest measurement; NaN where it has none."""
    return float(run.measured[name][-1]) if name in run.measured else float("nan")


def _number(run: ProbeRun, name: str) -> Number:
    """A number of the newest measurement with its interval, from its standard error."""
    value, se = _newest(run, name), _newest(run, f"{name}_se")
    return Number(value, value - Z * se, value + Z * se, _count(run), se)


def _count(run: ProbeRun) -> int:
    return int(_newest(run, "starts"))


def _starts(run: ProbeRun) -> str:
    return f"N = {_count(run)} starts, step {run.measured['step'][-1]:,.0f}"
