"""The first screen of logs: how far the data support the model's gradient, and what would tell."""

from __future__ import annotations

from math import isfinite, sqrt

from gradlab.runs.logs import SUPPORTED, Agreement, LogsRun, agreements, numbers, supported
from gradlab.verdicts.logs.sentences import verdict
from gradlab.verdicts.phrases import further
from gradlab.verdicts.screen import Fact, Light, Screen
from gradlab.wording import cosine, cosines, percent, span, steps, two


def screen(run: LogsRun) -> Screen:
    """Take the model's gradient so far, refuse it, or record more."""
    rest, facts = tuple(verdict(run)), (*_gap(run), *_referee(run), *_noise(run))
    if not run.config["stochastic"]:
        text = "Record with known noise: without it nothing here can judge the model's gradient."
        return Screen(text, "none", "no score exists", facts[:3], _figure(run), rest)
    if run.config["model"] is None:
        return Screen(*_alone(run), facts[:3], _figure(run), rest)
    return Screen(*_judged(run), facts[:3], _figure(run), rest)


def _judged(run: LogsRun) -> tuple[str, Light, str]:
    same = agreements(run, "same")
    if same and same[0].horizon == 0 and same[0].status == "disagree":
        text = "Check policy, noise and data first: scores contradict even the critic alone."
        return text, "none", "the control at h = 0 fails"
    judged = [each for each in same if each.horizon > 0]
    if not judged:
        return "No horizon could be judged by these data.", "none", "nothing to compare"
    longest, H = supported(judged), judged[-1].horizon
    refuted = [each for each in judged if each.status == "disagree"]
    if longest:
        far = f"all {steps(H)}" if longest == H else steps(longest)
        text = f"Use the model's gradient up to {far}: these data support it."
        text += f" Beyond, from {steps(refuted[0].horizon)}, they refute it." if refuted else ""
        open_ = [each for each in judged if each.status == "undecided"]
        return text, "choose" if open_ else "act", _sure(open_)
    if judged[0].status == "disagree":
        text = "Do not use this model's gradient: these data refute it from the first step on."
        return f"{text} Refit the model.", "act", "shown (95%)"
    text = "Use no model step yet: these data do not decide about the model's gradient."
    return text, "choose", _sure(judged)


def _alone(run: LogsRun) -> tuple[str, Light, str]:
    """No model: is the score itself worth following?"""
    cosines_at = numbers(run, "gradient", "cosine_self", "score")
    if not cosines_at:
        return "There is no score to judge here.", "none", "nothing measured"
    score = cosines_at[max(cosines_at)]
    ends = f"cosine {cosines(score.low, score.high)}"
    if score.low >= SUPPORTED:
        return "Follow the score: these trajectories settle its direction.", "act", ends
    return "Record more trajectories: the score is too noisy to follow alone.", "choose", ends


def _sure(open_: list[Agreement]) -> str:
    if not open_:
        return "shown (95%)"
    counts = [each.more for each in open_ if each.more]
    more = f"; {further(max(counts), 'trajectories')} decide" if counts else ""
    count = "1 horizon is" if len(open_) == 1 else f"{len(open_)} horizons are"
    return f"{count} open{more}"


def _figure(run: LogsRun) -> str:
    if run.config["stochastic"] and run.config["model"] is not None:
        return "agreement"
    return "referee" if run.config["stochastic"] else "direction"


def _gap(run: LogsRun) -> list[Fact]:
    """The model's difference from the score at the first step."""
    judged = [each for each in agreements(run, "same") if each.horizon > 0]
    if not judged or not isfinite(judged[0].gap.value):
        return []
    gap, h = judged[0].gap, judged[0].horizon
    value, low, high = (percent(sqrt(max(x, 0.0))) for x in (gap.value, gap.low, gap.high))
    how = f"|E model − E score| / |E score|, noise-corrected, {judged[0].n} trajectories."
    return [Fact(f"off from the score at h = {h}, {low}–{high}", value, how)]


def _referee(run: LogsRun) -> list[Fact]:
    cosines_at = numbers(run, "gradient", "cosine_self", "score")
    if not cosines_at:
        return []
    h = max(cosines_at)
    own = cosines_at[h]
    how = f"Cosine of the mean score with its expectation, {own.n} trajectories (gradient)."
    ends = cosines(own.low, own.high)
    return [Fact(f"the score's own cosine over {steps(h)}, {ends}", cosine(own.value), how)]


def _noise(run: LogsRun) -> list[Fact]:
    ratios = numbers(run, "agreement", "variance_ratio", "same")
    if not ratios:
        return []
    h = max(ratios)
    each = ratios[h]
    how = f"Variance of one trajectory's model gradient over that of its score, N = {each.n}."
    ends = span(each.low, each.high)
    return [Fact(f"of the score's variance at h = {h}, {ends}", two(each.value), how)]
