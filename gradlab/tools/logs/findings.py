"""What logs and a model say of a policy gradient: findings, each with its interval and N.

The recommendation of logs: how far the data support the model's gradient, and what would tell.

What logs and a model said without a simulator: one long table, in one file.

Reading needs neither the data nor torch. `block` names whose number it is, `step` a horizon or a
step, `output` a coordinate. The sections:

    policy      are the actions the policy's own? Standardised residuals, per action
    gradient    of "score" and "model" at every horizon: mean_norm, variance, cosine_self (of the
                mean with its own expectation); of the model also variance_critics and, where it
                sets in, variance_slope per step; of "whole" the score of the whole recorded return
    agreement   the model's gradient less the score's, of one and the same return ("same"), and of
                the whole recorded return ("whole"): bias2, relative_bias2, excess over what is
                called agreement, cosine, variance_ratio; none where the model's is exactly 0
    critic      per critic: Bellman residual, calibration against observed returns, values beyond
                the return bound
    direction   the model's directional derivatives against held-out neighbours, per output
    prediction  the model's error after k steps under the recorded actions

Numbers of a run of logs, as sentences and figures need them.

A horizon's status is agree, disagree or undecided (`logs.agreement`); none agrees where the
score's own norm is not known to be above 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, log, nan, sqrt
from typing import Any, Literal

from gradlab.findings import Finding
from gradlab.runs.long_table import LongTable
from gradlab.statistics.comparison import Number, more_samples
from gradlab.verdicts.phrases import further
from gradlab.verdicts.recommendation import Field, Light, Recommendation, finding
from gradlab.wording import (
    cosines,
    horizons,
    percent,
    rounded_up,
    span,
    steps,
    turned,
    two,
    with_ends,
    with_interval,
)


class LogsRun(LongTable):
    """What `measure_logs` found; its notes: what was left out and why, laws of growth."""

    kind = "logs"
    noun = "comparison of logs with a model"


load = LogsRun.load


_Status = Literal["agree", "disagree", "undecided"]
TOLERANCE = 0.5  # largest difference, relative to the score, that is called agreement
SUPPORTED = 0.9  # cosine of a score's mean with its expectation from which it can referee


@dataclass(frozen=True)
class Agreement:
    """The model's gradient against a score at one horizon.

    Attributes:
        gap: relative difference |E M − E S| / |E S|, squared; cosine: of the means; NaN where the
            score is not distinguishable from zero.
        n: trajectories.
        more: trajectories that would tell, where undecided; None: no affordable number.
    """

    horizon: int
    status: _Status
    gap: Number
    cosine: Number
    n: int
    more: int | None


def numbers(run: LogsRun, section: str, quantity: str, block: str = "") -> dict[int, Number]:
    """Step → number, of one block of a section; those without a value are left out."""
    table = run.table()
    chosen = (table["section"] == section) & (table["quantity"] == quantity)
    rows = table[chosen & (table["block"] == block)].to_dict("records")
    return {int(row["step"]): _number(row) for row in rows if isfinite(row["value"])}


def by_output(run: LogsRun, section: str, quantity: str) -> dict[str, Number]:
    """Coordinate → number."""
    rows = run.rows(section, quantity=quantity).to_dict("records")
    return {str(row["output"]): _number(row) for row in rows if isfinite(row["value"])}


def agreements(run: LogsRun, block: str) -> list[Agreement]:
    """Every horizon against scores of the "same" or of the "whole" return."""
    excess, bias2, gap, cosine = (
        numbers(run, "agreement", quantity, block)
        for quantity in ("excess", "bias2", "relative_bias2", "cosine")
    )
    name = "score" if block == "same" else block
    norms = numbers(run, "gradient", "mean_norm", name)
    lost = Number(nan, nan, nan, 0)
    results = []
    for h in sorted(excess.keys() & bias2.keys()):
        nonzero = norms[h if block == "same" else int(run.config["reach"])].low > 0
        parts = excess[h], bias2[h], gap.get(h, lost)
        nearer = excess[h] if excess[h].value < 0 else bias2[h]  # of the two answers
        results.append(
            Agreement(
                horizon=h,
                status=_status(*parts, nonzero),
                gap=parts[2],
                cosine=cosine.get(h, lost),
                n=excess[h].n,
                more=more_samples(abs(nearer.value), nearer.se, nearer.n),
            )
        )
    return results


def _status(excess: Number, bias2: Number, gap: Number, nonzero: bool) -> _Status:
    if nonzero and excess.high < 0 and gap.high < TOLERANCE**2:
        return "agree"
    return "disagree" if bias2.low > 0 else "undecided"


def supported(results: list[Agreement]) -> int:
    """The longest horizon up to which every one from 1 on agrees; 0: none does."""
    longest = 0
    for each in results:
        if each.horizon == 0:
            continue
        if each.status != "agree":
            return longest
        longest = each.horizon
    return longest


def referee(cosine: Number) -> tuple[int | None, int | None, int | None]:
    """Trajectories at which the mean's cosine with its expectation is `SUPPORTED`: estimate, and
    from the ends of the interval; None: nobody knows."""
    goal = SUPPORTED**2 / (1 - SUPPORTED**2)

    def needed(c: float) -> int | None:
        return None if not 0 < c < 1 else max(1, round(cosine.n * goal * (1 - c**2) / c**2))

    return needed(cosine.value), needed(cosine.high), needed(cosine.low)


def critics(run: LogsRun) -> dict[str, Mapping[str, Number]]:
    """Critic → quantity → number."""
    rows = run.rows("critic")
    return {
        str(name): {str(row["quantity"]): _number(row) for row in own.to_dict("records")}
        for name, own in rows.groupby("block", sort=False)
    }


def _number(row: Mapping[Hashable, Any]) -> Number:
    value, se, low, high = (float(row[name]) for name in ("value", "se", "ci_low", "ci_high"))
    return Number(value, low, high, int(row["n"]), se)


_FIT = 0.05  # of a critic's spread: residuals within it are called small
_BEYOND = 0.01  # share of values outside of the return bound that is worth a word
_LEAST = 0.001  # share that is worth its digits
_NOISY = 0.95  # share of noise from which neighbours are not asked about derivatives


def verdict(run: LogsRun) -> tuple[Finding, ...]:
    """The findings of a report: what the data can support, then why."""
    parts = (
        _policy, _control, _same, _whole, _referee, _noise, _disagreement, _critics, _direction,
        _prediction, _episodes,
    )  # fmt: skip
    return tuple(each for part in parts for each in part(run))


def _policy(run: LogsRun) -> list[Finding]:
    if not run.config["stochastic"]:
        why = "the policy is deterministic, its record has no noise (noise_std)"
        return [finding("policy", False, "Score as a referee", "no score exists", why)]
    p, spread, mean = (by_output(run, "policy", name) for name in ("p_value", "spread", "mean"))
    rows, what = f"{p[''].n:,} rows", "Recorded actions against this policy and its noise"
    if run.notes["on_policy"]:
        return [finding("policy", True, what, f"agree, p = {two(p[''].value)} of all tests", rows)]
    explained = by_output(run, "policy", "explained")
    worst = max(spread, key=lambda name: abs(spread[name].value - 1) + abs(mean[name].value))
    by_state = max(explained, key=lambda name: explained[name].value)
    return [finding(
        "policy", True, what, f"differ, p = {p[''].value:.1g}, so all below is biased",
        f"noise of {worst}: mean {with_interval(*mean[worst].estimate)} for 0, "
        f"spread {with_interval(*spread[worst].estimate)} for 1",
        f"the state explains {percent(max(explained[by_state].value, 0.0))} of {by_state}", rows,
    )]  # fmt: skip


def _control(run: LogsRun) -> list[Finding]:
    """At h = 0 no model is involved: the critic's own gradient, by itself and by scores."""
    same = agreements(run, "same")
    if not same or same[0].horizon > 0 or same[0].status != "disagree":
        return []
    what = "Pathwise gradient and score of the critic alone (h = 0)"
    why = "policy, noise or data are not what they are said to be"
    return [finding("control", True, what, f"differ by {_gap(same[0])}", why, n=same[0].n)]


def _same(run: LogsRun) -> list[Finding]:
    judged = [each for each in agreements(run, "same") if each.horizon > 0]
    if not judged:
        return []
    H, longest = judged[-1].horizon, supported(list(judged))
    later = [each for each in judged if each.horizon > longest]
    refuted, open_, again = (
        [each for each in later if each.status == status]
        for status in ("disagree", "undecided", "agree")
    )
    values = []
    if longest:
        at = next(each for each in judged if each.horizon == longest)
        values.append(f"supported up to h = {longest} of {H} (there {_gap(at)})")
    if refuted:
        worst = max(refuted, key=lambda each: each.gap.value)
        where = horizons([each.horizon for each in refuted])
        values.append(f"refuted at h = {where} (at h = {worst.horizon} {_gap(worst)})")
    if again:
        values.append(f"agrees at h = {horizons([each.horizon for each in again])}, too")
    if open_:
        values.append(f"undecided at h = {horizons([e.horizon for e in open_])}; {_enough(open_)}")
    what = f"Model's gradient against the score of the same returns, below {TOLERANCE:.0%} apart"
    decided = bool(longest) or judged[0].status == "disagree"
    return [finding("support", decided, what, *values, n=judged[0].n)]


def _whole(run: LogsRun) -> list[Finding]:
    """With its critic, against what the trajectories earned to their end."""
    whole = agreements(run, "whole")
    if not whole:
        return []
    agree, differ, open_ = (
        [each for each in whole if each.status == status]
        for status in ("agree", "disagree", "undecided")
    )
    best = min(whole, key=lambda each: each.gap.value if isfinite(each.gap.value) else 1e300)
    T, left = run.config["reach"], percent(float(run.notes["remainder"]))
    who = "Model and critic" if run.config["critics"] else "Model without a critic"
    return [finding(
        "whole", bool(agree or differ),
        f"{who} against the score of the whole return of {T} steps (γ^{T} = {left} left out)",
        *(
            f"{verb} at h = {horizons([each.horizon for each in found])}"
            for verb, found in (("agrees", agree), ("differs", differ), ("undecided", open_))
            if found
        ),
        f"closest at h = {best.horizon}, {_gap(best)}",
        _enough(open_) if open_ and not agree and not differ else "", n=best.n,
    )]  # fmt: skip


def _enough(undecided: Sequence[Agreement]) -> str:
    counts = [each.more for each in undecided if each.more is not None]
    few, most = (rounded_up(end(counts, default=0)) for end in (min, max))
    if few == most:
        return f"{further(max(counts, default=None), 'trajectories')} decide"
    return f"about {few:,}–{most:,} more trajectories would decide"


def _gap(each: Agreement) -> str:
    """42% (CI 31–55%) apart, cosine 0.97 (CI 0.95–0.99)"""
    if not isfinite(each.gap.value):
        return "apart by an unknown share of a score that is not distinguishable from zero"
    ends = _roots(each.gap)
    size = with_interval(*ends, write=percent)
    if each.gap.value <= 0:
        size = f"at most {percent(ends[2])} (95%)"
    turn = each.cosine
    angle = turned(turn.value, turn.low, turn.high)
    return f"{size} apart, cosine {angle if isfinite(turn.value) else 'unknown'}"


def _roots(square: Number) -> tuple[float, float, float]:
    """√ε² and its ends"""
    value, low, high = (sqrt(max(x, 0.0)) for x in square.estimate)
    return value, low, high


def _referee(run: LogsRun) -> list[Finding]:
    """Can the score judge anything: its own noise, before it is used."""
    cosines_at = numbers(run, "gradient", "cosine_self", "score")
    if not cosines_at:
        return []
    h = max(cosines_at)
    own, decided = cosines_at[h], True
    if own.low >= SUPPORTED:
        enough = "enough to referee"
    else:
        size, few, most = referee(own)
        enough = f"{SUPPORTED:g} needs "
        if size is None or most is None:
            few_ = "an unknown number of" if few is None else f"at least {rounded_up(few):,}"
            enough, decided = f"too noisy to referee, {enough}{few_} trajectories", False
        else:
            ends = f"CI {rounded_up(few or 1):,}–{rounded_up(most):,}"
            enough += f"about {rounded_up(size):,} trajectories ({ends})"
            decided = own.high < SUPPORTED
    plain = numbers(run, "gradient", "variance", "score without baseline").get(h)
    variance = numbers(run, "gradient", "variance", "score").get(h)
    value = turned(own.value, own.low, own.high)
    if plain is not None and variance is not None and plain.value > variance.value > 0:
        value += f" (its baseline divides its variance by {two(plain.value / variance.value)})"
    what = f"Cosine of the mean score over {steps(h)} with its expectation"
    return [finding("score", decided, what, value, enough, n=own.n)]


def _noise(run: LogsRun) -> list[Finding]:
    """The model's noise against the score's, and how it grows."""
    ratios = numbers(run, "agreement", "variance_ratio", "same")
    slopes = numbers(run, "gradient", "variance_slope", "model")
    parts, n = [], None
    if ratios:
        each, n = ratios[max(ratios)], ratios[max(ratios)].n
        unit = f"× that of the score at h = {max(ratios)}"
        parts.append(with_interval(*each.estimate, unit))
    if slopes:
        onset, each = next(iter(slopes.items()))
        n = each.n
        if each.low > 0:
            ends = log(2) / each.high, log(2) / each.low
            every = with_interval(log(2) / each.value, *ends, " steps")
            parts.append(f"doubles every {every} beyond h = {onset}")
        else:
            slope = span(each.low, each.high)
            parts.append(f"no exponential growth (slope of its logarithm, CI {slope})")
    what = "Variance of the model's gradient by one trajectory"
    return [finding("noise", True, what, *parts, n=n)] if parts else []


def _disagreement(run: LogsRun) -> list[Finding]:
    """Between-critic standard deviation of the mean gradient, relative to its norm: the largest,
    and that of the longest horizon."""
    between = numbers(run, "gradient", "variance_critics", "model")
    norms = numbers(run, "gradient", "mean_norm", "model")
    nonzero = {h: each for h, each in between.items() if norms.get(h) and norms[h].value > 0}
    if not nonzero:
        return []
    parts = []
    worst = max(nonzero, key=lambda h: nonzero[h].value / norms[h].value ** 2)
    for h in sorted({worst, max(nonzero)}):
        value, low, high = (each / norms[h].value for each in _roots(nonzero[h]))
        parts.append(f"{with_interval(value, low, high, write=percent)} of its norm at h = {h}")
    what = f"Model's mean gradient, deviation between {run.config['critics']} critics"
    return [finding("disagreement", True, what, *parts, n=nonzero[worst].n)]


def _critics(run: LogsRun) -> list[Finding]:
    found = []
    for name, quantities in critics(run).items():
        residual, beyond = quantities["residual"], quantities["beyond"]
        small = residual.low > -_FIT and residual.high < _FIT
        off = residual.low > 0 or residual.high < 0
        value, ends = with_ends(*residual.estimate, percent)
        parts = [f"mean Bellman residual {value} of its spread (CI {ends})"]
        if "slope" in quantities:
            slope = with_interval(*quantities["slope"].estimate)
            parts.append(f"slope of returns over its value {slope} for 1")
        if beyond.low > _BEYOND:
            low, high = run.notes["return_bound"]
            bound = f"beyond what rewards can pay ({low:.3g} to {high:.3g})"
            parts.append(f"{percent(beyond.value)} of its values {bound}")
        found.append(finding("critic", small or off, name.capitalize(), *parts, n=residual.n))
    return found


def _direction(run: LogsRun) -> list[Finding]:
    errors, noise = (by_output(run, "direction", name) for name in ("error", "noise"))
    if run.config["model"] is None:
        return []
    what = "Model's directional derivatives against recorded neighbours"
    if "all" not in errors:
        why = "too few trajectories, or nothing varies"
        return [finding("direction", False, what, f"cannot be tried: {why}")]
    all_, floor = errors["all"], noise["all"]
    outputs = {name: each for name, each in errors.items() if name != "all"}
    worst = max(outputs, key=lambda name: outputs[name].value)
    decided = floor.low < _NOISY and isfinite(all_.low) and all_.high - all_.low < 1.0
    small = percent(floor.value) if floor.value >= _LEAST else f"less than {percent(_LEAST)}"
    return [finding(
        "direction", decided, what, f"off by {_root(all_)}", f"{worst} by {_root(outputs[worst])}",
        f"{small} of the evidence is noise", n=all_.n,
    )]  # fmt: skip


def _root(square: Number) -> str:
    """√ε² with its interval; "at most" where the square may be 0."""
    if not (isfinite(square.low) and isfinite(square.high)):
        return "an unknown share"
    ends = _roots(square)
    if square.low <= 0:
        return f"at most {percent(ends[2])} (95%)"
    return with_interval(*ends, write=percent)


def _prediction(run: LogsRun) -> list[Finding]:
    errors = numbers(run, "prediction", "error")
    if not errors:
        return []
    lost, law = run.notes.get("prediction_lost"), run.notes.get("growth")
    parts = [
        f"{with_interval(*errors[k].estimate, write=percent)} after {steps(k)}"
        for k in dict.fromkeys((min(errors), max(errors)))
    ]
    return [finding(
        "prediction", True, "Model's prediction under recorded actions (100%: no change predicted)",
        *parts, f"growth {law}" if law else "", f"not finite from step {lost} on" if lost else "",
        n=errors[min(errors)].n,
    )]  # fmt: skip


def _episodes(run: LogsRun) -> list[Finding]:
    left, ended = run.notes["left_out"], run.notes["ended"]
    parts = [f"{left:,} shorter than {steps(run.config['reach'])} left out"] if left else []
    if ended > 0:
        parts.append(
            f"{percent(ended)} end: actions move the end, pathwise gradients do not see it"
        )
    n = run.config["trajectories"]
    return [finding("episodes", True, "Trajectories", *parts, n=n)] if parts else []


def advice(run: LogsRun) -> Recommendation:
    """Take the model's gradient so far, refuse it, or record more."""
    rest, found = tuple(verdict(run)), list[Field]()
    judged = [each for each in agreements(run, "same") if each.horizon > 0]
    if judged and isfinite(judged[0].gap.value):  # at the first step
        gap, h = judged[0].gap, judged[0].horizon
        value, ends = with_ends(*_roots(gap), percent)
        ends = f"CI {ends}"
        how = f"|E model − E score| / |E score|, noise-corrected, {judged[0].n:,} trajectories."
        if gap.value <= 0:
            value, ends = f"≤ {percent(_roots(gap)[2])}", "95%"
        found.append(Field("difference", f"{value} ({ends}) off from the score at h = {h}", how))
    cosines_at = numbers(run, "gradient", "cosine_self", "score")
    if cosines_at:
        h = max(cosines_at)
        own = cosines_at[h]
        value, ends = cosines(own.value, own.low, own.high)
        how = f"Cosine of the mean score with its expectation, {own.n:,} trajectories (gradient)."
        found.append(Field("score", f"cosine {value} (CI {ends}) over {steps(h)}", how))
    ratios = numbers(run, "agreement", "variance_ratio", "same")
    if ratios:
        h = max(ratios)
        each = ratios[h]
        how = f"Variance of one trajectory's model gradient over that of its score, N = {each.n:,}."
        ratio = Field.ranged("variance", each.estimate, how)
        found.append(replace(ratio, text=f"{ratio.text} times the score's, at h = {h}"))
    if not run.config["stochastic"]:
        use, todo = "nothing yet: no score exists without noise", "record with known noise"
        light: Light = "none"
    else:
        use, todo, light = _alone(run) if run.config["model"] is None else _judged(run)
    shown = tuple(e for e in (Field("use", use), Field("next", todo), *found) if e.text)
    return Recommendation(light, shown, _figure(run), rest)


def _judged(run: LogsRun) -> tuple[str, str, Light]:
    """How far the data support the model's gradient, what would tell more, the light."""
    same = agreements(run, "same")
    if same and same[0].horizon == 0 and same[0].status == "disagree":
        text = "nothing yet: scores contradict even the critic alone (h = 0)"
        return text, "check policy, noise and data", "none"
    judged = [each for each in same if each.horizon > 0]
    if not judged:
        return "no model step yet: these data judge no horizon", "", "none"
    longest, H = supported(judged), judged[-1].horizon
    refuted = [each for each in judged if each.status == "disagree"]
    if longest:
        far = f"all {steps(H)}" if longest == H else steps(longest)
        text = f"the model's gradient up to {far}: these data support it (95%)"
        text += f"; from {steps(refuted[0].horizon)} on they refute it" if refuted else ""
        open_ = [each for each in judged if each.status == "undecided"]
        return text, _needed(open_), "choose" if open_ else "act"
    if judged[0].status == "disagree":
        text = "no step of this model: it differs from the score from the first on (95%)"
        return text, "refit the model", "act"
    text = "no model step yet: these data do not decide about the model's gradient"
    return text, _needed(judged), "choose"


def _alone(run: LogsRun) -> tuple[str, str, Light]:
    """No model: is the score itself worth following?"""
    cosines_at = numbers(run, "gradient", "cosine_self", "score")
    if not cosines_at:
        return "no score yet: these data give none", "", "none"
    score = cosines_at[max(cosines_at)]
    if score.low >= SUPPORTED:
        return "the score: these trajectories settle its direction", "", "act"
    return "not the score alone: it is too noisy", "record more trajectories", "choose"


def _needed(open_: list[Agreement]) -> str:
    """What would decide about the horizons that are open; "" where none is."""
    if not open_:
        return ""
    counts = [each.more for each in open_ if each.more]
    more = f"; {further(max(counts), 'trajectories')} decide" if counts else ""
    count = "1 horizon is" if len(open_) == 1 else f"{len(open_)} horizons are"
    return f"{count} open{more}"


def _figure(run: LogsRun) -> str:
    if run.config["stochastic"] and run.config["model"] is not None:
        return "agreement"
    return "referee" if run.config["stochastic"] else "direction"
