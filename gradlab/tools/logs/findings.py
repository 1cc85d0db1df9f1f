"""What logs and a model say of a policy gradient: how far the data support it, and what would tell.

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

A horizon's status is agree, disagree or undecided (`logs.agreement`); none agrees where the
score's own norm is not known to be above 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from math import inf, isfinite, log, nan, sqrt
from typing import Any, Literal

from gradlab.findings import Decision, Finding
from gradlab.findings.tools import phrase
from gradlab.runs.long_table import LongTable
from gradlab.statistics.comparison import Number, more_samples
from gradlab.verdicts.recommendation import Field, Light, Recommendation
from gradlab.wording import percent, rounded_up, steps, turned


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


def _by_output(run: LogsRun, section: str, quantity: str) -> dict[str, Number]:
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


def _of_critics(run: LogsRun) -> dict[str, Mapping[str, Number]]:
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
_NOISY = 0.95  # share of noise from which neighbours are not asked about derivatives
_DECISIONS: Mapping[_Status, Decision] = {
    "agree": "pass",
    "disagree": "fail",
    "undecided": "undecided",
}


def verdict(run: LogsRun) -> tuple[Finding, ...]:
    """The rows of a report: what the data can support, then why."""
    parts = (_policy, _support, _score, _noise, _critics, _direction, _prediction, _episodes)
    return tuple(each for part in parts for each in part(run))


def _finding(code: str, decision: Decision, found: Number, subject: str = "", at: str = "",
             **more: Any) -> Finding:  # fmt: skip
    return Finding(code, decision, subject, *found.estimate, n=found.n, at=at, **more)


def _policy(run: LogsRun) -> list[Finding]:
    if not run.config["stochastic"]:
        return []
    p = _by_output(run, "policy", "p_value")[""]
    decision: Decision = "pass" if run.notes["on_policy"] else "fail"
    return [Finding("logs.policy", decision, value=p.value, n=p.n)]


def _support(run: LogsRun) -> list[Finding]:
    """A row a horizon against scores of the same returns, and where the whole return is nearest.

    At h = 0 no model is involved: the critic's own gradient, by itself and by scores.
    """
    same, whole = (agreements(run, block) for block in ("same", "whole"))
    found = [_agreement("logs.support", each) for each in same if each.horizon > 0]
    if same and _contradicted(same):
        found.insert(0, _agreement("logs.control", same[0]))
    if whole:
        nearest = min(whole, key=lambda each: each.gap.value if isfinite(each.gap.value) else inf)
        subject = steps(int(run.config["reach"]))
        found.append(replace(_agreement("logs.whole", nearest), subject=subject))
    return found


def _contradicted(same: list[Agreement]) -> bool:
    return same[0].horizon == 0 and same[0].status == "disagree"


def _agreement(code: str, each: Agreement) -> Finding:
    known = isfinite(each.gap.value)
    more = -1 if each.more is None else rounded_up(each.more)
    decision = _DECISIONS[each.status]
    found = _finding(
        code if known else "logs.unknown", decision, _rooted(each.gap), at=f"h = {each.horizon}"
    )
    return replace(found, threshold=TOLERANCE, more=more if decision == "undecided" else 0)


def _rooted(square: Number, unit: float = 1.0) -> Number:
    """√ε² in some unit, and its ends; NaN where it is lost."""
    ends = (each if each != each else sqrt(max(each, 0.0)) / unit for each in square.estimate)
    value, low, high = ends
    return Number(value, low, high, square.n)


def _score(run: LogsRun) -> list[Finding]:
    """Can the score judge anything: its own noise, before it is used."""
    at = numbers(run, "gradient", "cosine_self", "score")
    if not at:
        return []
    h, own = max(at), at[max(at)]
    if own.low >= SUPPORTED:
        return [_finding("logs.score", "pass", own, steps(h), threshold=SUPPORTED)]
    c, goal = own.value, SUPPORTED**2 / (1 - SUPPORTED**2)
    needed = own.n * goal * (1 - c**2) / c**2 if 0 < c < 1 and own.low > 0 else 0
    more = rounded_up(max(round(needed) - own.n, 1)) if needed else -1
    return [_finding("logs.score", "undecided", own, steps(h), threshold=SUPPORTED, more=more)]


def _noise(run: LogsRun) -> list[Finding]:
    """How the noise of the model's gradient grows, and how far critics move its mean."""
    found = []
    for onset, slope in numbers(run, "gradient", "variance_slope", "model").items():
        if slope.low > 0:
            value, high, low = (log(2) / each for each in slope.estimate)
            every = Number(value, low, high, slope.n)
            found.append(_finding("logs.growth", "pass", every, at=f"h = {onset}", unit=" steps"))
    norms = numbers(run, "gradient", "mean_norm", "model")
    between = [
        (h, _rooted(square, norms[h].value))
        for h, square in numbers(run, "gradient", "variance_critics", "model").items()
        if h in norms and norms[h].value > 0
    ]
    if between:
        h, most = max(between, key=lambda each: each[1].value)
        found.append(_finding("logs.disagreement", "pass", most, at=f"h = {h}"))
    return found


def _critics(run: LogsRun) -> list[Finding]:
    found = []
    for name, quantities in _of_critics(run).items():
        residual, beyond = quantities["residual"], quantities["beyond"]
        small = residual.low > -_FIT and residual.high < _FIT
        off = residual.low > 0 or residual.high < 0
        decision: Decision = "pass" if small else "fail" if off else "undecided"
        found.append(_finding("logs.critic", decision, residual, name))
        if beyond.low > _BEYOND:
            low, high = run.notes["return_bound"]
            found.append(_finding("logs.beyond", "fail", beyond, name, f"{low:.3g} to {high:.3g}"))
    return found


def _direction(run: LogsRun) -> list[Finding]:
    errors, noise = (_by_output(run, "direction", name) for name in ("error", "noise"))
    if run.config["model"] is None:
        return []
    if "all" not in errors:
        return [Finding("logs.no neighbours", "skipped")]
    together, floor = errors.pop("all"), noise["all"]
    worst = max(errors, key=lambda name: errors[name].value)
    known = isfinite(together.low) and together.high - together.low < 1.0
    decision: Decision = "pass" if known and floor.low < _NOISY else "undecided"
    return [_finding("logs.direction", decision, _rooted(together), worst)]


def _prediction(run: LogsRun) -> list[Finding]:
    errors, lost = numbers(run, "prediction", "error"), run.notes.get("prediction_lost")
    found = [Finding("logs.lost", "fail", value=lost)] if lost else []
    if errors:
        last = errors[max(errors)]
        decision: Decision = "pass" if last.high < 1 else "fail" if last.low > 1 else "undecided"
        found.append(_finding("logs.prediction", decision, last, steps(max(errors))))
    return found


def _episodes(run: LogsRun) -> list[Finding]:
    left, ended, subject = run.notes["left_out"], run.notes["ended"], steps(run.config["reach"])
    found = [Finding("logs.left out", "skipped", subject, value=left)] if left else []
    return found + ([Finding("logs.ended", "skipped", value=ended)] if ended > 0 else [])


_Said = tuple[str, str, Light]  # use, next


def advice(run: LogsRun) -> Recommendation:
    """Take the model's gradient so far, refuse it, or record more."""
    with_model, found = run.config["model"] is not None, list[Field]()
    judged = [each for each in agreements(run, "same") if each.horizon > 0]
    if judged and isfinite(judged[0].gap.value):  # at the first step
        gap, root = judged[0].gap, _rooted(judged[0].gap)
        shown = Field.ranged("difference", root.estimate, phrase("logs.how difference"), percent)
        if gap.value <= 0:
            shown = replace(shown, text=f"≤ {percent(root.high)} (95%)")
        at = f"h = {judged[0].horizon}"
        found.append(replace(shown, text=phrase("logs.difference", subject=shown.text, at=at)))
    if cosines := numbers(run, "gradient", "cosine_self", "score"):
        h = max(cosines)
        text = phrase("logs.cosine", subject=turned(*cosines[h].estimate), at=steps(h))
        found.append(Field("score", text, phrase("logs.how score")))
    if ratios := numbers(run, "agreement", "variance_ratio", "same"):
        h = max(ratios)
        shown = Field.ranged("variance", ratios[h].estimate, phrase("logs.how variance"))
        text = phrase("logs.ratio", subject=shown.text, at=f"h = {h}")
        found.append(replace(shown, text=text))
    if not run.config["stochastic"]:
        figure, (use, todo, light) = "direction", _said("deterministic", "with noise", "none")
    elif with_model:
        figure, (use, todo, light) = "agreement", _judged(run)
    else:
        figure, (use, todo, light) = "referee", _alone(run)
    fields = tuple(e for e in (Field("use", use), Field("next", todo), *found) if e.text)
    return Recommendation(light, fields, figure, verdict(run))


def _said(use: str, todo: str, light: Light, **known: Any) -> _Said:
    return phrase(f"logs.{use}", **known), phrase(f"logs.{todo}") if todo else "", light


def _judged(run: LogsRun) -> _Said:
    """How far the data support the model's gradient, what would tell more, the light."""
    same = agreements(run, "same")
    if same and _contradicted(same):
        return _said("contradicted", "check", "none")
    judged = [each for each in same if each.horizon > 0]
    if not judged:
        return _said("no horizon", "", "none")
    longest, H = supported(judged), judged[-1].horizon
    refuted = [each for each in judged if each.status == "disagree"]
    open_ = _open(judged)
    if longest:
        far = f"all {steps(H)}" if longest == H else steps(longest)
        code, at = ("until", steps(refuted[0].horizon)) if refuted else ("supported", "")
        use, _, _ = _said(code, "", "act", subject=far, at=at)
        return use, open_, "choose" if open_ else "act"
    if judged[0].status == "disagree":
        return _said("refuted", "refit", "act")
    return _said("undecided", "", "choose")[0], open_, "choose"


def _alone(run: LogsRun) -> _Said:
    """No model: is the score itself worth following?"""
    at = numbers(run, "gradient", "cosine_self", "score")
    if not at:
        return _said("no data", "", "none")
    if at[max(at)].low >= SUPPORTED:
        return _said("settled", "", "act")
    return _said("noisy", "record", "choose")


def _open(judged: list[Agreement]) -> str:
    """What would decide about the horizons that are open; "" where none is."""
    open_ = [each for each in judged if each.status == "undecided"]
    if not open_:
        return ""
    most = max((each.more or 0 for each in open_), default=0)
    code = "logs.open more" if most else "logs.open"
    return phrase(code, value=len(open_), threshold=rounded_up(most) if most else 0)
