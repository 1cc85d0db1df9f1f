"""The first screen of a probe: faults first, then what the loop's own gradient does to the return.

the critic alone    DDPG, TD3, SAC, as the loop has declared: `returns`
not declared        the step to take by the newest measurement, where one is shown to help; alarms
                    about first-action gradients are amber: the loop may follow another
not measured        whether the last updates raised the return: `returns`

Green is a measured gradient or a return that rose. Where nobody looked at the return the screen
says so, and when it will be known; signs of health in the gradients alone are no all-clear. A
number stands here only where it says something: no 0% of lost gradients, no cost within its budget.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from math import isfinite, sqrt

from gradlab.probe.alarms.catalogue import CHECK, ENDED, HALF, LOST_CRITIC, NONFINITE, ORIGIN
from gradlab.probe.alarms.catalogue import KIND as FALLING
from gradlab.probe.alarms.evidence import CAUSES, FEWEST, UNCUT, UNTERMINATED, fault
from gradlab.probe.alarms.task import OF_FIRST_ACTION
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.tables import signals
from gradlab.statistics.successive import pooled
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.phrases import capital
from gradlab.verdicts.probe.findings import MODEL, RECENT, of_other_loops, too_few, verdict
from gradlab.verdicts.probe.returns import (
    DATA,
    Followed,
    Seen,
    facts_of,
    followed,
    other_horizons,
    seen,
    told,
    void,
    waiting,
)
from gradlab.verdicts.screen import NOTHING, Fact, Light, Screen, Sentence
from gradlab.wording import cosine, cosines, percent, updates

_SATURATED = "saturated actor"
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
    "wrong direction": "cosine",
    "worse than without a model": "errors",
    "critic-dominated bias": "errors",
    "variance doubling time": "parts",
    "diverging sensitivities": "chain",
    "critic beyond its bound": "value",
    "drifting model Jacobian": "jacobian_ratio",
    FALLING: "returns",
}
_WORST = (ENDED, NONFINITE, ORIGIN)
_DIRECTION = "wrong direction"
# Alarms whose message is a cause, too: steps that are none, or far too long.
_OF_STEPS = ("actor moves in part", "critic's learning rate too large")
_UNCLOSED = "This run ended without being closed."


def screen(run: ProbeRun) -> Screen:
    """The first screen, with a notice where the run was not closed."""
    return replace(_screen(run), notice=_UNCLOSED if run.abandoned else "")


def _screen(run: ProbeRun) -> Screen:
    """What leaves nothing to decide, or what to stop for, else the step that the task recommends,
    else what a batch is worth."""
    kinds = Counter(str(each) for each in run.alarms.get("alarm", ()))
    rest = tuple(verdict(run))
    if (reasons := void(run)) and not set(_WORST) & set(kinds):
        return Screen(reasons[0], "none", NOTHING, tuple(_lost(run)), "grad_norm", rest)
    # Newer windows say more of the return than the first alarm about it.
    if (lately := seen(run)) is not None and lately.since.direction != "fell":
        del kinds[FALLING]
    own = followed(run)
    if own is None:
        if (
            kinds.keys() == {_SATURATED}
            and lately is not None
            and lately.newest.direction == "rose"
        ):
            return _rising_saturated(run, rest)
        if kinds.keys() - set(OF_FIRST_ACTION):
            return _faulty(run, kinds, rest)
        return _looked_into(run, _measured_apart(run, kinds, _sound(run, rest, bool(kinds))))
    # The newest measurement says more of a direction than the first alarm about it.
    if faults := Counter({kind: n for kind, n in kinds.items() if kind != _DIRECTION}):
        return _faulty(run, faults, rest, own)
    return _looked_into(run, _by_its_gradient(run, own, rest))


def _rising_saturated(run: ProbeRun, rest: tuple[Sentence, ...]) -> Screen:
    """Actions at their limits, as of a task whose best policy switches between them, while the
    return rises."""
    shown = _sound(run, rest, True)
    text = f"{shown.headline} Watch the actor, too: {_symptom(run, _SATURATED)}."
    return replace(shown, headline=text, sure="1 alarm, and the return rises", light="choose")


def _by_its_gradient(run: ProbeRun, own: Followed, rest: tuple[Sentence, ...]) -> Screen:
    """What the gradient of the critic alone, which the loop follows, does to the return."""
    todo = {
        "raised": "Train on with this critic",
        "lowered": "Improve the critic if this lasts",
        "unknown": "Measure more often, by a larger overhead_budget",
    }
    lately = seen(run)
    fell = lately is not None and lately.lower
    lead = "Watch the return" if fell and own.direction == "raised" else todo[own.direction]
    also = lately.warned if lately is not None and fell else ""
    said = f"{lead}: {own.text[0].lower()}{own.text[1:]}"
    headline = " ".join(filter(None, (said, also, other_horizons(run))))
    few = own.cosine.n < FEWEST
    word = "open" if own.direction == "unknown" else "sure"
    lights: dict[str, Light] = {"raised": "act", "lowered": "none", "unknown": "choose"}
    sure = f"not reliable below {FEWEST} starts" if few else f"{word} ({own.cosine.n} starts)"
    how = f"⟨g, ∇J⟩/(|g||∇J|) of the critic's gradient, h = 0, at step {own.step:,}."
    value = cosine(own.cosine.clipped).replace("-", "−")
    fact = Fact("cosine of the actor's gradient with that of the return", value, how)
    # What was measured of one step does not outweigh what came of many.
    doubted = few or (fell and own.direction == "raised")
    light: Light = "choose" if doubted else lights[own.direction]
    return Screen(headline, light, sure, (fact, *_cosine(run), *_lost(run)), "cosine", rest)


@dataclass(frozen=True)
class _Cause:
    """One that a check has proved, or a step that its optimiser makes.

    Attributes:
        words: end with the line to look at; step: since when.
    """

    kind: str
    words: str
    step: int


def _causes(run: ProbeRun) -> list[_Cause]:
    """Those upstream first, the optimisers' own last."""
    found: dict[str, _Cause] = {}  # the first step of each, with the newest message
    for kind, message, step in zip(
        *(run.alarms.get(name, ()) for name in ("alarm", "message", "step")), strict=True
    ):
        own, words = fault(str(kind), str(message)), capital(str(message))
        words = words if words.endswith(("?", ".")) else f"{words}."
        found[own] = _Cause(str(kind), words, found[own].step if own in found else int(step))
    order = (*CAUSES, *_OF_STEPS)
    return sorted(
        (each for each in found.values() if each.kind in order),
        key=lambda each: order.index(each.kind),
    )


def _faulty(
    run: ProbeRun, kinds: Counter[str], rest: tuple[Sentence, ...], own: Followed | None = None
) -> Screen:
    """The cause and the line to look at, then the symptom; without a cause the worst symptom."""
    found = _causes(run)
    of_causes = {each.kind for each in found}
    # What is lost, else windows of returns that fell, else the first alarm that is no cause, and is
    # not about a gradient that the loop need not follow.
    told_of = map(str, run.alarms["alarm"])
    order = (*_WORST, FALLING, *sorted(told_of, key=lambda each: each in OF_FIRST_ACTION))
    worst = next((each for each in order if each in kinds and each not in of_causes), "")
    if found:
        first = found[0]
        since = _step(first.step)
        text = first.words
        text += "" if f"since {since}:" in text else f" First seen at {since}."
        said = [each.kind for each in found]
        further = [
            f"{each.words if each.kind in said[:k] else each.kind} ({_step(each.step)})"
            for k, each in enumerate(found[1:], 1)
        ]
        text += f" Also: {', '.join(further)}." if further else ""
        text += f" Symptom: {_symptom(run, worst)}." if worst else ""
    else:
        text = f"Fix this before you train on: {_symptom(run, worst)}.{_advice(run, worst)}"
    named = of_causes | {worst} | ({ORIGIN} if worst == NONFINITE else set())
    more = len(kinds.keys() - named)
    text += f" {more} other kind{'s' * (more > 1)} of alarm." if more else ""
    if own is not None and own.direction == "lowered":
        text += f" At step {own.step:,} a step along the actor's gradient lowered the return."
    count, raised = len(kinds), sum(kinds.values())
    sure = f"{count} alarm{'s' * (count > 1)}"
    sure += f", raised {raised} times," if raised > count else ""
    sure += f" in {updates(run.updates)}"
    sure += f", up to step {run.step:,}" if run.updates == 1 else ""  # its optimiser rests
    shown = found[0].kind if found else worst
    if found and found[0].words.startswith("The critic's gradients"):  # the norms are the policy's
        shown = worst
    figure = SEEN_IN.get(shown, "grad_norm") if shown else None
    return Screen(text, "none", sure, (*_lost(run), *_return(run), *_cosine(run)), figure, rest)


def _symptom(run: ProbeRun, kind: str, last: bool = False) -> str:
    """In words, without what to do; of the first alarm of a kind, or the last."""
    names, lately = [str(each) for each in run.alarms["alarm"]], seen(run)
    if kind == FALLING and lately is not None:
        return f"the return {told(lately.since)} since the first window"
    if kind == ENDED:
        return _message(run, kind)
    at = len(names) - 1 - names[::-1].index(kind) if last else names.index(kind)
    return f"{kind} at step {int(run.alarms['step'][at]):,}"


def _advice(run: ProbeRun, kind: str) -> str:
    """What to look at where no check has named a cause, and which checks have not looked."""
    message = _message(run, ORIGIN if kind == NONFINITE else kind)
    _, found, todo = message.rpartition(": ")
    if kind in (NONFINITE, ORIGIN, LOST_CRITIC):
        todo = message  # what was lost is not to be parted from where
    todo = CHECK if kind == FALLING else todo if found and kind != ENDED else ""
    text = f" {capital(todo)}." if todo else ""
    off = unchecked(run)
    have = "check of the loop's parts has" if off == 1 else "checks of the loop's parts have"
    return text + (f" {off} {have} not looked." if off else "")


def _message(run: ProbeRun, kind: str) -> str:
    """Of the newest alarm of this kind, whose number is the freshest; of an origin the first."""
    names = [str(each) for each in run.alarms["alarm"]]
    if kind not in names:
        return ""
    first = names.index(kind) if kind == ORIGIN else len(names) - 1 - names[::-1].index(kind)
    return str(run.alarms["message"][first])


def _step(step: int) -> str:
    return f"step {step:,}" if step else "the beginning"


def unchecked(run: ProbeRun) -> int:
    """How many checks are off, or have no answer yet, of parts that such a loop has: of replays
    or of rollouts, of other networks where any are stepped, of ends of episodes where any came."""
    names, states, proofs = (
        [str(each) for each in run.checks.get(column, ())] for column in ("check", "state", "proof")
    )
    none = {
        name for name, proof in zip(names, proofs, strict=True) if proof in (UNTERMINATED, UNCUT)
    }
    without = {"off": of_other_loops(run), "waiting": none}
    answers = zip(names, states, strict=True)
    return sum(name not in without.get(state, names) for name, state in answers)


def _open(run: ProbeRun) -> list[str]:
    """Of checks that have looked and cannot say "sound": what to look at, by their question where
    their proof asks one."""
    found = []
    for k, state in enumerate(run.checks.get("state", ())):
        if str(state) != "open":
            continue
        proof = str(run.checks["proof"][k]).removesuffix(".")
        asked = re.fullmatch(r"(.*?)[:;] ([^:;?]+\?)(.*)", proof)
        about = f"Look at whether {run.checks['check'][k]}"
        if asked is None:
            without = re.sub(r" \([^()]*\)", "", proof)  # its threshold
            found.append(f"{about}: {without}.")
        else:
            first, todo = re.split(r" \((?!1 − d\))|; ", asked[1])[0], asked[2] + asked[3]
            found.append(f"{about} ({first}): {todo}" + "." * (not todo.endswith("?")))
    return found


def _looked_into(run: ProbeRun, screen: Screen) -> Screen:
    """What a check has left open is looked at before anybody trains on."""
    if not (found := _open(run)):
        return screen
    rest = capital(re.sub(r"^Train on[^:.]*: ", "", screen.headline))
    light: Light = "choose" if screen.light == "act" else screen.light
    sure = screen.sure
    if "of the loop's parts" not in sure:
        sure += f"; {len(found)} check{'s' * (len(found) > 1)} of the loop's parts open"
    return replace(screen, headline=" ".join([*found, rest]), light=light, sure=sure)


def _measured_apart(run: ProbeRun, kinds: Counter[str], screen: Screen) -> Screen:
    """Alarms about a gradient that the loop need not follow, the newest with what to do."""
    if not kinds:
        return screen
    newest = [str(each) for each in run.alarms["alarm"] if str(each) in kinds][-1]
    _, _, todo = _message(run, newest).rpartition(": ")
    found = (
        "If the loop follows first-action gradients at visited states: "
        f"{_symptom(run, newest, last=True)}, {todo}."
    )
    alarms = f"{len(kinds)} alarm{'s' * (len(kinds) > 1)} about a gradient that may not be its own"
    sure = "; ".join((screen.sure.removeprefix("no alarm; ").removesuffix("; no alarm"), alarms))
    text = screen.headline.replace("no alarm", "no other alarm").removesuffix(_weight(run))
    light: Light = "choose" if screen.light == "act" else screen.light
    return replace(screen, headline=f"{text} {found}", sure=sure, light=light)


def _sound(run: ProbeRun, rest: tuple[Sentence, ...], alarmed: bool) -> Screen:
    """`alarmed`: an alarm is about the gradients that were measured."""
    lately, known = seen(run), None if run.critic_alone else facts_of(run)
    step = None if known is None or known.best is None else recommendation(known, rest)
    # Its return says more of a loop than steps that nobody is known to take.
    if lately is not None and (alarmed or (step is not None and step.light == "none")):
        step = None
    if step is not None:
        few = too_few(run)
        sure = f"not reliable below {FEWEST} starts" if few else step.sure
        doubted = few or (lately is not None and lately.lower)
        # Nothing that these measurements say is known to be about the loop's own gradient.
        shown: Light = "choose" if doubted or step.light == "none" else step.light
        return replace(step, sure=f"{sure}; no alarm", light=shown, figure="cosine")
    if lately is not None:
        return _by_return(run, lately, rest)
    text, numbers = waiting(run), _cosine(run)
    if numbers and numbers[0].text.startswith("≤"):
        text += " A batch's gradient is not known to be more than noise."
    sure = "the loop's parts were not checked"
    if run.checks:
        left, unsure = unchecked(run), len(_open(run))
        passed = list(map(str, run.checks["state"])).count("sound")
        sure = f"{passed} check{'s' * (passed != 1)} of the loop's parts passed"
        sure += f", {unsure} open" if unsure else ""
        sure += f", {left} without an answer" if left else ""
        wants = {
            "probe.record(env) and probe.batch(…)": "the environment is not recorded",
            "truncated= and final_value=": "hand over truncated=",
        }
        answers = zip(run.checks["state"], run.checks["proof"], strict=True)
        off = [str(proof) for state, proof in answers if str(state) == "off"]
        lacking = {what: sum(words in each for each in off) for what, words in wants.items()}
        told = ", ".join(f"{n} for want of {what}" for what, n in lacking.items() if n)
        sure += f" ({told})" if told else ""
    figure = "signal_share" if numbers else "grad_norm"
    return Screen(text + _weight(run), "choose", sure, (*numbers, *_lost(run)), figure, rest)


def _by_return(run: ProbeRun, lately: Seen, rest: tuple[Sentence, ...]) -> Screen:
    """The last updates by windows of episodes, without a fault and without a measured gradient."""
    lead = "Watch the return" if lately.lower else "Train on"
    said = f"{lead}: {lately.warned[0].lower()}{lately.warned[1:]}"
    text = " ".join(filter(None, (said, lately.count))) + _weight(run)
    unsure = "not shown above its first window"
    if lately.since.direction == "rose":
        unsure += " with 99.8% confidence"
    if lately.dropped:
        unsure = "it fell in the last window (95%: 1 in 40 does by chance)"
    if lately.fall:
        unsure = "below its best window with 99.8% confidence, of all windows together"
    sure = f"no alarm; {unsure if lately.fall or not lately.lower else 'it fell lately'}"
    if lately.raised:
        sure = "the return is above its first window (99.8% confidence)"
    light: Light = "act" if lately.raised else "choose"
    shown = (*_return(run), *_cosine(run), *_lost(run))
    return Screen(text, light, sure, shown, lately.source, rest)


def _weight(run: ProbeRun) -> str:
    """Where the weights of the task's newest measurement decide, for a gradient that is shown to
    point up the true one: a small gradient has a small error whatever its direction."""
    if not run.measured or run.critic_alone:
        return ""
    low, high = (float(run.measured[f"weight_zero_{end}"][-1]) for end in ("low", "high"))
    cosines_low = run.measured["cosine_low"][-1]
    if isfinite(low) and low > HALF and cosines_low[DATA, 0] > 0:
        return " Weigh the critic's own gradient above the model's."
    if isfinite(high) and high < HALF and cosines_low[MODEL, run.horizon] > 0:
        return f" Weigh the model's {run.horizon} steps above the critic's own gradient."
    return ""


def _lost(run: ProbeRun) -> list[Fact]:
    """The share of lost gradients, where there are any."""
    if not run.vitals or not run.vitals["nonfinite_updates"].any():
        return []
    looked, lost = (int(run.vitals[name].sum()) for name in ("looked", "nonfinite_updates"))
    how = "nonfinite_updates / looked, summed over the table vitals."
    return [Fact(f"of {looked:,} gradients are not finite", percent(lost / max(looked, 1)), how)]


def _return(run: ProbeRun) -> list[Fact]:
    """Of an episode, by the newest window."""
    if (lately := seen(run)) is None:
        return []
    how = f"Mean over the newest window of {lately.newest.number.n} {lately.counted}."
    return [Fact("return of an episode", f"{lately.newest.mean:.4g}".replace("-", "−"), how)]


def _cosine(run: ProbeRun) -> list[Fact]:
    """Of one batch with the mean gradient lately; a bound where its interval reaches 0."""
    _, found = signals(run)
    if not found:
        return []
    signal = pooled(found[-RECENT:])
    low, high = signal.ends
    how = (
        "√(|E g|² / E |g|²), |E g|² from products of successive gradients, pooled over the last "
        f"{RECENT} bursts ({signal.pairs:,} pairs; table successive)."
    )
    if low <= 0:
        most = f"≤ {cosine(sqrt(max(high, 0.0)))}"
        return [Fact("cosine of one batch with the mean", most, how)]
    value, ends = cosines(signal.cosine, sqrt(low), sqrt(high))
    return [Fact(f"cosine of one batch with the mean, {ends}", value, how)]
