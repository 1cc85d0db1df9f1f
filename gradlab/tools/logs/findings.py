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
    critic      per critic: Bellman residual, values beyond the return bound
    direction   the model's directional derivatives against held-out neighbours, per output

A horizon passes, fails or is undecided by the ends of these (`logs.agreement`); none passes where
the score's own norm is not known to be above 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf, isfinite, log, nan, sqrt
from typing import Any

from gradlab.findings import Decision, Finding
from gradlab.findings.tools import phrase
from gradlab.runs.long_table import LongTable
from gradlab.statistics.comparison import Number, more_samples
from gradlab.verdicts.phrases import row
from gradlab.verdicts.recommendation import Field, Light, Recommendation
from gradlab.wording import percent, rounded_up, steps, turned


class LogsRun(LongTable):
    """What `measure_logs` found; its notes: what was left out and why, laws of growth."""

    kind = "logs"
    noun = "comparison of logs with a model"


load = LogsRun.load


TOLERANCE = 0.5  # largest difference, relative to the score, that is called agreement
SUPPORTED = 0.9  # cosine of a score's mean with its expectation from which it can referee
_LOST = Number(nan, nan, nan, 0)


@dataclass(frozen=True)
class Agreement:
    """The model's gradient against a score at one horizon.

    Attributes:
        gap: relative difference |E M − E S| / |E S|, squared; NaN where the score is not
            distinguishable from zero.
        more: trajectories that would tell, where undecided; None: no affordable number.
    """

    horizon: int
    decision: Decision
    gap: Number
    more: int | None


def numbers(run: LogsRun, section: str, quantity: str, block: str = "") -> dict[int, Number]:
    """Step → number, of one block of a section; those without a value are left out."""
    found = run.numbers(section, quantity, "step", block=block)
    return {int(step): each for step, each in found.items()}


def agreements(run: LogsRun, block: str) -> list[Agreement]:
    """Every horizon against scores of the "same" or of the "whole" return."""
    excess, bias2, gap = (
        numbers(run, "agreement", quantity, block)
        for quantity in ("excess", "bias2", "relative_bias2")
    )
    norms = numbers(run, "gradient", "mean_norm", "score" if block == "same" else block)
    results = []
    for h in sorted(excess.keys() & bias2.keys()):
        nonzero = norms[h if block == "same" else int(run.config["reach"])].low > 0
        parts = excess[h], bias2[h], gap.get(h, _LOST)
        nearer = excess[h] if excess[h].value < 0 else bias2[h]  # of the two answers
        more = more_samples(abs(nearer.value), nearer.se, nearer.n)
        results.append(Agreement(h, decided(*parts, nonzero), parts[2], more))
    return results


def decided(excess: Number, bias2: Number, gap: Number, nonzero: bool) -> Decision:
    """Do the ends of all three say that model and score agree? `nonzero`: the score is above 0."""
    if nonzero and excess.high < 0 and gap.high < TOLERANCE**2:
        return "pass"
    return "fail" if bias2.low > 0 else "undecided"


def supported(results: list[Agreement]) -> int:
    """The longest horizon up to which every one from 1 on agrees; 0: none does."""
    longest = 0
    for each in (each for each in results if each.horizon > 0):
        if each.decision != "pass":
            return longest
        longest = each.horizon
    return longest


_FIT = 0.05  # of a critic's spread: residuals within it are called small
_BEYOND = 0.01  # share of values outside of the return bound that is worth a word
_NOISY = 0.95  # share of noise from which neighbours are not asked about derivatives


def verdict(run: LogsRun) -> tuple[Finding, ...]:
    """The rows of a report: what the data can support, then why."""
    return tuple(each for part in (_support, _gradients, _networks, _data) for each in part(run))


def _support(run: LogsRun) -> Iterator[Finding]:
    """Is it this policy's record; a row a horizon against scores of the same returns, and where the
    whole return is nearest.

    At h = 0 no model is involved: the critic's own gradient, by itself and by scores.
    """
    if run.config["stochastic"]:
        p = run.numbers("policy", "p_value", "output")[""]
        on_policy: Decision = "pass" if run.notes["on_policy"] else "fail"
        yield Finding("logs.policy", on_policy, value=p.value, n=p.n)
    same, whole = (agreements(run, block) for block in ("same", "whole"))
    if same and _contradicted(same):
        yield _agreement("logs.control", same[0])
    yield from (_agreement("logs.support", each) for each in same if each.horizon > 0)
    if whole:
        nearest = min(whole, key=lambda each: each.gap.value if isfinite(each.gap.value) else inf)
        subject = steps(int(run.config["reach"]))
        yield replace(_agreement("logs.whole", nearest), subject=subject)


def _contradicted(same: list[Agreement]) -> bool:
    return same[0].horizon == 0 and same[0].decision == "fail"


def _agreement(code: str, each: Agreement) -> Finding:
    more = -1 if each.more is None else rounded_up(each.more)
    found = row(
        code if isfinite(each.gap.value) else "logs.unknown", each.decision, _rooted(each.gap),
        at=f"h = {each.horizon}",
    )  # fmt: skip
    return replace(found, threshold=TOLERANCE, more=more if each.decision == "undecided" else 0)


def _rooted(square: Number, unit: float = 1.0) -> Number:
    """√ε² in some unit, and its ends; NaN where it is lost."""
    ends = (each if each != each else sqrt(max(each, 0.0)) / unit for each in square.estimate)
    value, low, high = ends
    return Number(value, low, high, square.n)


def _gradients(run: LogsRun) -> Iterator[Finding]:
    """Can the score judge anything, by its own noise; how the noise of the model's gradient grows,
    and how far critics move its mean."""
    at = numbers(run, "gradient", "cosine_self", "score")
    if at:
        h, own = max(at), at[max(at)]
        more, c = 0, own.value
        if own.low < SUPPORTED:
            goal = SUPPORTED**2 / (1 - SUPPORTED**2)
            needed = own.n * goal * (1 - c**2) / c**2 if 0 < c < 1 and own.low > 0 else 0
            more = rounded_up(max(round(needed) - own.n, 1)) if needed else -1
        known: Decision = "undecided" if more else "pass"
        yield replace(row("logs.score", known, own, steps(h), threshold=SUPPORTED), more=more)
    for onset, slope in numbers(run, "gradient", "variance_slope", "model").items():
        if slope.low > 0:
            value, high, low = (log(2) / each for each in slope.estimate)
            every = Number(value, low, high, slope.n)
            yield row("logs.growth", "pass", every, at=f"h = {onset}", unit=" steps")
    norms = numbers(run, "gradient", "mean_norm", "model")
    between = [
        (h, _rooted(square, norms[h].value))
        for h, square in numbers(run, "gradient", "variance_critics", "model").items()
        if h in norms and norms[h].value > 0
    ]
    if between:
        h, most = max(between, key=lambda each: each[1].value)
        yield row("logs.disagreement", "pass", most, at=f"h = {h}")


def _networks(run: LogsRun) -> Iterator[Finding]:
    """Critics, and the model's derivatives and predictions, on these data."""
    outside = run.numbers("critic", "beyond")
    for name, residual in run.numbers("critic", "residual").items():
        small = residual.low > -_FIT and residual.high < _FIT
        off = residual.low > 0 or residual.high < 0
        decision: Decision = "pass" if small else "fail" if off else "undecided"
        yield row("logs.critic", decision, residual, name)
        if name in outside and outside[name].low > _BEYOND:
            at = "{:.3g} to {:.3g}".format(*run.notes["return_bound"])
            yield row("logs.beyond", "fail", outside[name], name, at)
    errors, noise = (run.numbers("direction", name, "output") for name in ("error", "noise"))
    if "all" in errors:
        together, floor = errors.pop("all"), noise["all"]
        known = isfinite(together.low) and together.high - together.low < 1.0
        decision = "pass" if known and floor.low < _NOISY else "undecided"
        worst = max(errors, key=lambda name: errors[name].value)
        yield row("logs.direction", decision, _rooted(together), worst)
    elif run.config["model"] is not None:
        yield Finding("logs.no neighbours", "skipped")


def _data(run: LogsRun) -> Iterator[Finding]:
    if left := run.notes["left_out"]:
        yield Finding("logs.left out", "skipped", steps(run.config["reach"]), value=left)
    if (ended := run.notes["ended"]) > 0:
        yield Finding("logs.ended", "skipped", value=ended)


_Said = tuple[str, str, Light]  # use, next


def advice(run: LogsRun) -> Recommendation:
    """Take the model's gradient so far, refuse it, or record more."""
    found = list[Field]()
    same = agreements(run, "same")
    judged = [each for each in same if each.horizon > 0]
    if judged and isfinite(judged[0].gap.value):  # at the first step
        gap, root = judged[0].gap, _rooted(judged[0].gap)
        shown = Field.ranged("difference", root.estimate, phrase("logs.how difference"), percent)
        if gap.value <= 0:
            shown = replace(shown, text=f"≤ {percent(root.high)} (95%)")
        at = f"h = {judged[0].horizon}"
        found.append(replace(shown, text=phrase("logs.difference", subject=shown.text, at=at)))
    cosines = numbers(run, "gradient", "cosine_self", "score")
    if cosines:
        h = max(cosines)
        text = phrase("logs.cosine", subject=turned(*cosines[h].estimate), at=steps(h))
        found.append(Field("score", text, phrase("logs.how score")))
    if ratios := numbers(run, "agreement", "variance_ratio", "same"):
        h = max(ratios)
        shown = Field.ranged("variance", ratios[h].estimate, phrase("logs.how variance"))
        text = phrase("logs.ratio", subject=shown.text, at=f"h = {h}")
        found.append(replace(shown, text=text))
    figure: str | None = "agreement"
    if not run.config["stochastic"]:
        figure, (use, todo, light) = "direction", _said("deterministic", "with noise", "none")
    elif run.config["model"] is None:  # is the score itself worth following?
        figure, (use, todo, light) = "referee", _said("noisy", "record", "choose")
        if not cosines:
            use, todo, light = _said("no data", "", "none")
        elif cosines[max(cosines)].low >= SUPPORTED:
            use, todo, light = _said("settled", "", "act")
    elif same and _contradicted(same):
        use, todo, light = _said("contradicted", "check", "none")
    elif not judged:
        use, todo, light = _said("no horizon", "", "none")
    else:
        use, todo, light = _reach(judged)
    fields = tuple(e for e in (Field("use", use), Field("next", todo), *found) if e.text)
    return Recommendation(light, fields, figure, verdict(run))


def _said(use: str, todo: str, light: Light, **known: Any) -> _Said:
    return phrase(f"logs.{use}", **known), phrase(f"logs.{todo}") if todo else "", light


def _reach(judged: list[Agreement]) -> _Said:
    """How far the data support the model's gradient, what would tell more, the light."""
    longest, H = supported(judged), judged[-1].horizon
    if not longest and judged[0].decision == "fail":
        return _said("refuted", "refit", "act")
    open_, todo = [each for each in judged if each.decision == "undecided"], ""
    if open_:  # what would decide about these
        most = max(each.more or 0 for each in open_)
        code = "logs.open more" if most else "logs.open"
        todo = phrase(code, value=len(open_), threshold=rounded_up(most) if most else 0)
    if not longest:
        return phrase("logs.undecided"), todo, "choose"
    far = f"all {steps(H)}" if longest == H else steps(longest)
    refuted = [each for each in judged if each.decision == "fail"]
    code, at = ("until", steps(refuted[0].horizon)) if refuted else ("supported", "")
    return phrase(f"logs.{code}", subject=far, at=at), todo, "choose" if todo else "act"
