"""The fields of a probe's run: faults first, then what the loop's updates do to the return.

    finding    the first cause that a check proved, else the worst symptom; "no alarm"
    since      when it began; look at: what to do, or what a check has left open
    step       of the loop's own gradient, or of the newest measurement's best, on the return
    return     by windows of episodes, or when it will be known

Green is a measured gradient or a return that rose, with nothing open. Signs of health in the
gradients alone are no all-clear.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

from gradlab.findings import Finding
from gradlab.probe.alarms.catalogue import ENDED, HALF, LOST_CRITIC, NONFINITE, ORIGIN
from gradlab.probe.alarms.catalogue import KIND as FALLING
from gradlab.probe.alarms.evidence import CAUSES, FEWEST
from gradlab.probe.alarms.task import OF_FIRST_ACTION
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.returns import TRAINED, Returns
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.phrases import capital
from gradlab.verdicts.probe.findings import (
    DATA,
    MODEL,
    Seen,
    alarms,
    checks,
    facts_of,
    followed,
    longer,
    seen,
    signal,
    verdict,
    void,
)
from gradlab.verdicts.recommendation import Field, Light, Recommendation

_SATURATED, _DIRECTION = "saturated actor", "wrong direction"
# The panel in which a fault shows; one that is not named here is seen in the norms.
SEEN_IN = {
    "dead path": "layer_norm",
    "gradient no better than noise": "signal_share",
    _SATURATED: "saturation",
    "actor does not move": "update_ratio",
    "actor moves in part": "update_ratio",
    "learning rate too large": "update_ratio",
    "critic does not move": "critic_loss",
    "critic's learning rate too large": "critic_loss",
    "exploding critic": "critic_loss",
    _DIRECTION: "cosine",
    "worse than without a model": "errors",
    "critic-dominated bias": "errors",
    "variance doubling time": "parts",
    "diverging sensitivities": "chain",
    "critic beyond its bound": "value",
    "drifting model Jacobian": "jacobian_ratio",
    FALLING: "returns",
}
_WORST = (ENDED, NONFINITE, ORIGIN)
# Upstream first; steps that are none, or far too long, are causes, too.
_ORDER = (*CAUSES, "actor moves in part", "critic's learning rate too large")
_ENV = "pass env=make_env, or call note(episode_return=…)"


def screen(run: ProbeRun) -> Recommendation:
    """Faults first; else what the last updates, or the newest measurement, say of the return."""
    raised, lately, own = alarms(run), seen(run), followed(run)
    kinds = {each.title for each in raised}
    notice = "This run ended without being closed." if run.abandoned else ""
    rest = tuple(verdict(run))
    if (reasons := void(run)) and not set(_WORST) & kinds:
        fields = (Field("finding", reasons[0].said),)
        return Recommendation("none", fields, "grad_norm", rest, notice)
    # Newer windows say more of the return than the first alarm about it, and the newest
    # measurement of a direction.
    stale = {FALLING} if lately is not None and lately.since.direction != "fell" else set()
    stale |= {_DIRECTION} if own is not None else set()
    kinds -= stale
    rises = lately is not None and lately.newest.direction == "rose"
    harmless = set(OF_FIRST_ACTION) | ({_SATURATED} if kinds == {_SATURATED} and rises else set())
    faulty = bool(kinds if own is not None else kinds - harmless)
    newest = [each for each in raised if each.title in kinds]
    shown = _faulty(run, raised, newest, own) if faulty else _sound(run, newest, own)
    return replace(shown, rest=rest, notice=notice)


def _sound(run: ProbeRun, raised: list[Finding], own: Finding | None) -> Recommendation:
    """No fault of the loop: what is open, and what its updates do to the return."""
    lately, answers = seen(run), checks(run)
    left = [each for each, state in zip(answers, run.checks.get("state", ()), strict=True)
            if str(state) == "open"]  # fmt: skip
    light, step, todo, figure = _step(run, own, lately)
    if own is None and lately is not None and (lately.lower or raised or not step):
        step, figure = "", lately.source
        light = "act" if lately.raised else "choose"
    if light == "act" and (left or raised):
        light = "choose"
    returns, enough = _waiting(run), "" if raised else _weight(run)
    if lately is not None:
        returns = " ".join(each.sentence for each in lately.findings), ""
    passed = f"{sum(each.decision == 'pass' for each in answers)} of {len(answers)} checks passed"
    passed = passed if answers else "the loop's parts were not checked"
    found = _watched(raised) if raised else "no alarm"
    fields = (
        Field("finding", f"{found}; {passed}{f', {len(left)} open' if left else ''}"),
        Field("look at", "; ".join(f"whether {each.title}: {each.text}" for each in left)),
        Field("step", step),
        Field("return", returns[0]),
        Field("next", "; ".join(filter(None, (todo or enough, returns[1])))),
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
        text = " ".join(each.sentence for each in (own, *longer(run)))
        return light, text, few if own.n < FEWEST else own.remedy, "cosine"
    facts = None if run.critic_alone else facts_of(run)
    if facts is not None and facts.best is not None:
        step = recommendation(facts)
        if step.light != "none" or lately is None:
            text = f"{step.use}: {step.gain or step.field('why')}"
            return "choose", text, few if facts.samples < FEWEST else "", "cosine"
    told = signal(run)
    text = " ".join(each.sentence for each in told if lately is None)
    return "choose", text, "", "signal_share" if told else "grad_norm"


def _waiting(run: ProbeRun) -> tuple[str, str]:
    """While nothing is known of the return: when it will be, and what to do for it."""
    parts = dict(each.split(": ", 1) for each in run.due.split("; ") if ": " in each)
    due = parts.get("returns", "")
    _, found, when = due.partition("first answer ")
    if found:
        return f"unknown so far: first answer {when}", ""
    if due.startswith("no answer"):
        return "unknown", f"train longer: {due.removeprefix('no answer, ')}"
    if due.startswith("no Record"):
        return "unknown", f"{_ENV}, or wrap the environment in RecordEpisodeStatistics"
    if run.task and "task" in parts:
        return f"unknown: {parts['task']}", ""
    if len(run.episodes.get("value", ())):
        lacking = Returns.of(run.episodes, TRAINED).lacking
        return f"unknown so far: first answer after {lacking} more training episodes", ""
    return "unknown", _ENV


def _watched(raised: list[Finding]) -> str:
    """Alarms about a gradient that the loop need not follow, the newest with what to do; actors at
    their limits, as of a task whose best policy switches between them, while the return rises."""
    newest = raised[-1]
    if {each.title for each in raised} == {_SATURATED}:
        return f"watch the actor, while the return rises: {_symptom(newest)}"
    about = "if the loop follows first-action gradients at visited states"
    return f"{about}: {_symptom(newest)}, {newest.remedy}".rstrip(", .")


def _faulty(
    run: ProbeRun, raised: list[Finding], newest: list[Finding], own: Finding | None
) -> Recommendation:
    """The cause and the line to look at, then the symptom; without a cause the worst symptom."""
    causes = [each for each in raised if each.title in _ORDER]
    causes.sort(key=lambda each: _ORDER.index(each.title))
    # What is lost, else windows of returns that fell, else the first alarm that is no cause, and is
    # not about a gradient that the loop need not follow.
    symptoms = [each for each in newest if each.title not in _ORDER]
    first = (*_WORST, FALLING)
    symptoms.sort(
        key=lambda each: (
            first.index(each.title)
            if each.title in first
            else len(first) + (each.title in OF_FIRST_ACTION)
        )
    )
    worst = symptoms[0] if symptoms else None
    told = "" if worst is None else _symptom(worst, seen(run))
    kinds = [each.title for each in causes]
    also = [
        f"{capital(each.said) if each.title in kinds[:k] else each.title} ({each.at})"
        for k, each in enumerate(causes[1:], 1)
    ]
    also += [f"symptom: {told}"] if causes and told else []
    named = {
        *kinds,
        worst.title if worst else "",
        ORIGIN if worst and worst.title == NONFINITE else "",
    }
    more = len({each.title for each in newest} - named)
    also += [f"{more} other kind{'s' * (more > 1)} of alarm"] if more else []
    if own is not None and own.decision == "fail":
        also.append(own.sentence)
    lately = seen(run)
    fields = (
        Field("finding", capital(causes[0].said) if causes else told),
        Field("since", causes[0].at if causes else ""),
        Field("look at", "" if causes or worst is None else _advice(raised, worst)),
        Field("also", "; ".join(also)),
        Field("return", "" if lately is None else lately.findings[0].sentence),
    )
    shown = causes[0] if causes else worst
    if causes and causes[0].text.startswith("the critic's gradients"):  # norms are the policy's
        shown = worst
    figure = SEEN_IN.get(shown.title, "grad_norm") if shown else None
    return Recommendation("none", tuple(each for each in fields if each.text), figure)


def _symptom(alarm: Finding, lately: Seen | None = None) -> str:
    """In words, without what to do."""
    if alarm.title == FALLING and lately is not None:
        return lately.told(lately.since, "since the first window").sentence
    return alarm.text if alarm.title == ENDED else f"{alarm.title} at {alarm.at}"


def _advice(raised: list[Finding], worst: Finding) -> str:
    """What to look at where no check has named a cause: where it was lost, else the remedy."""
    if worst.title not in (NONFINITE, ORIGIN, LOST_CRITIC):
        return worst.remedy
    kind = LOST_CRITIC if worst.title == LOST_CRITIC else ORIGIN
    return next((each.text for each in raised if each.title == kind), "")


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
