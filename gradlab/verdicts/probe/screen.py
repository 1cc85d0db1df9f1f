"""The fields of a probe's run: faults first, then what the loop's updates do to the return.

    finding    the failure that is furthest upstream; "no alarm"
    since      when it began; look at: what to do about it
    step       of the loop's own gradient, or of the newest measurement's best, on the return
    return     by windows of episodes, or when it will be known

Green is a measured gradient or a return that rose, with no failure. Signs of health in the
gradients alone are no all-clear.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from gradlab.findings import Finding
from gradlab.runs.probe.results import ProbeRun, Reported
from gradlab.runs.probe.returns import EPISODES_APART, TRAINED, WINDOW, Returns
from gradlab.runs.probe.schema import FEWEST, HALF
from gradlab.verdicts.phrases import capital
from gradlab.verdicts.probe.findings import (
    DATA,
    MODEL,
    Seen,
    failures,
    followed,
    on_the_task,
    seen,
    signal,
    verdict,
    void,
)
from gradlab.verdicts.recommendation import Field, Light, Recommendation

_SATURATED, _DIRECTION, _FALLING = "saturated actor", "wrong direction", "falling return"
# The panel in which a failure shows; one that is not named here is seen in the norms.
SEEN_IN = {
    "dead path": "layer_norm",
    "gradient no better than noise": "signal_share",
    _SATURATED: "saturation",
    _DIRECTION: "cosine",
    "worse than without a model": "errors",
    "critic-dominated bias": "errors",
    "variance doubling time": "parts",
    "diverging sensitivities": "chain",
    "critic beyond its bound": "value",
    "drifting model Jacobian": "jacobian_ratio",
    _FALLING: "returns",
}
# About the gradient with θ in the first action, at states that the policy visits, or what matters
# by it alone: a loop may well follow another (θ in all actions, at replayed states).
OF_FIRST_ACTION = (
    "diverging sensitivities", "variance doubling time", _DIRECTION,
    "worse than without a model", "critic-dominated bias", "drifting model Jacobian",
)  # fmt: skip
_ENV = "pass env=make_env, or call note(episode_return=…)"


def screen(run: ProbeRun) -> Recommendation:
    """Failures first; else what the last updates, or the newest measurement, say of the return."""
    failed, lately, own = failures(run), seen(run), followed(run)
    notice = "This run ended without being closed." if run.abandoned else ""
    rest = tuple(verdict(run))
    lost = any(each.finding.severity == "error" for each in failed)
    if (reasons := void(run)) and not lost:
        fields = (Field("finding", reasons[0].said),)
        return Recommendation("none", fields, "grad_norm", rest, notice)
    # Newer windows say more of the return than the first failure about it, and the newest
    # measurement of a direction.
    stale = {_FALLING} if lately is not None and lately.since.direction != "fell" else set()
    stale |= {_DIRECTION} if own is not None else set()
    failed = [each for each in failed if each.finding.title not in stale]
    titles = {each.finding.title for each in failed}
    rises = lately is not None and lately.newest.direction == "rose"
    harmless = set() if own is not None else set(OF_FIRST_ACTION)
    harmless |= {_SATURATED} if titles == {_SATURATED} and rises else set()
    faulty = bool(titles - harmless)
    shown = _faulty(run, failed, own) if faulty else _sound(run, failed, own)
    return replace(shown, rest=rest, notice=notice)


def _sound(run: ProbeRun, failed: list[Reported], own: Finding | None) -> Recommendation:
    """No fault of the loop: what its updates do to the return."""
    lately = seen(run)
    light, step, todo, figure = _step(run, own, lately)
    if own is None and lately is not None and (lately.lower or failed or not step):
        step, figure = "", lately.source
        light = "act" if lately.raised else "choose"
    if light == "act" and failed:
        light = "choose"
    returns, enough = _waiting(run), "" if failed else _weight(run)
    if lately is not None:
        returns = " ".join(each.sentence for each in lately.findings), ""
    answers = [each.finding.decision for each in run.reported if each not in failed]
    passed = f"{answers.count('pass')} of {len(answers)} checks passed"
    passed = passed if answers else "the loop's parts were not declared"
    fields = (
        Field("finding", f"{_watched(failed) if failed else 'no alarm'}; {passed}"),
        Field("step", step),
        Field("return", returns[0]),
        Field("next", todo or enough or returns[1]),
    )
    return Recommendation(light, tuple(each for each in fields if each.text), figure)


def _step(
    run: ProbeRun, own: Finding | None, lately: Seen | None
) -> tuple[Light, str, str, str]:  # fmt: skip
    """What the newest measurement says of a step: light, text, what to do, figure."""
    few = f"not reliable below {FEWEST} starts"
    if own is not None:
        fell = lately is not None and lately.lower and own.decision == "pass"
        lights: dict[str, Light] = {"pass": "act", "fail": "none", "undecided": "choose"}
        # What was measured of one step does not outweigh what came of many.
        light: Light = "choose" if own.n < FEWEST or fell else lights[own.decision]
        return light, own.sentence, few if own.n < FEWEST else own.remedy, "cosine"
    best = [each for each in on_the_task(run) if each.code == "probe.horizon"]
    if best and not run.critic_alone:
        return "choose", best[0].sentence, few if best[0].n < FEWEST else "", "cosine"
    told = signal(run)
    text = " ".join(each.sentence for each in told if lately is None)
    return "choose", text, "", "signal_share" if told else "grad_norm"


def _waiting(run: ProbeRun) -> tuple[str, str]:
    """While nothing is known of the return: when it will be, and what to do for it."""
    if len(run.returns.get("value", ())):
        lacking = Returns.of(run.returns, WINDOW).lacking * EPISODES_APART * run.every
        return f"unknown so far: first answer after {lacking:,} more updates", ""
    if len(run.episodes.get("value", ())):
        lacking = Returns.of(run.episodes, TRAINED).lacking
        return f"unknown so far: first answer after {lacking} more training episodes", ""
    return "unknown", _ENV


def _watched(failed: list[Reported]) -> str:
    """Failures about a gradient that the loop need not follow, the newest with what to do; actors
    at their limits, as of a task whose best policy switches between them, while the return
    rises."""
    newest = failed[-1]
    if {each.finding.title for each in failed} == {_SATURATED}:
        return f"watch the actor, while the return rises: {_symptom(newest)}"
    about = "if the loop follows first-action gradients at visited states"
    return f"{about}: {_symptom(newest)}, {newest.finding.remedy}".rstrip(", .")


def _faulty(run: ProbeRun, failed: list[Reported], own: Finding | None) -> Recommendation:
    """What is furthest upstream and the line to look at, then the others."""
    first, *others = failed
    lately = seen(run)
    also = [_symptom(each) for each in others[:2]]
    also += [f"{len(others) - 2} more"] if len(others) > 2 else []
    if own is not None and own.decision == "fail":
        also.append(own.sentence)
    told = first.finding.headed
    if first.code == _FALLING and lately is not None:
        told = lately.told(lately.since, "since the first window").sentence
    fields = (
        Field("finding", capital(told)),
        Field("since", _when(first)),
        Field("look at", first.finding.remedy),
        Field("also", "; ".join(also)),
        Field("return", "" if lately is None else lately.findings[0].sentence),
    )
    figure = SEEN_IN.get(first.finding.title, "grad_norm")
    return Recommendation("none", tuple(each for each in fields if each.text), figure)


def _when(answer: Reported) -> str:
    # 0 is also the count of a loop that has marked no update yet.
    return f"step {answer.since:,}" if answer.since else "the beginning"


def _symptom(answer: Reported) -> str:
    """In words, without what to do."""
    return f"{answer.finding.title} at {_when(answer)}"


def _weight(run: ProbeRun) -> str:
    """Where the weights of the task's newest measurement decide, for a gradient that is shown to
    point up the true one: a small gradient has a small error whatever its direction."""
    if not run.measured or run.critic_alone:
        return ""
    low, high = (float(run.measured[f"weight_zero_{end}"][-1]) for end in ("low", "high"))
    cosines_low = run.measured["cosine_low"][-1]
    if isfinite(low) and low > HALF and cosines_low[DATA, 0] > 0:
        return "weigh the critic's own gradient above the model's"
    if isfinite(high) and high < HALF and cosines_low[MODEL, run.horizon] > 0:
        return f"weigh the model's {run.horizon} steps above the critic's own gradient"
    return ""
