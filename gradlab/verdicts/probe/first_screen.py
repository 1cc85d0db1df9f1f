"""The fields of a probe's run: faults first, then what the loop's updates do to the return.

    finding    the first cause that a check proved, else the worst symptom; "no alarm"
    since      when it began; look at: the line, or what a check has left open
    step       of the loop's own gradient, or of the newest measurement's best, on the return
    return     by windows of episodes, or when it will be known

Green is a measured gradient or a return that rose, with nothing open. Signs of health in the
gradients alone are no all-clear.
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
from gradlab.verdicts.facts import Facts
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
from gradlab.verdicts.recommendation import Field, Light, Recommendation
from gradlab.wording import cosine, cosines

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


def screen(run: ProbeRun) -> Recommendation:
    """Faults first; else what the last updates, or the newest measurement, say of the return."""
    kinds = Counter(str(each) for each in run.alarms.get("alarm", ()))
    notice = _UNCLOSED if run.abandoned else ""
    rest, lately, own = tuple(verdict(run)), seen(run), followed(run)
    if (reasons := void(run)) and not set(_WORST) & set(kinds):
        fields = (Field("finding", reasons[0]),)
        return Recommendation("none", fields, "grad_norm", rest, notice)
    # Newer windows say more of the return than the first alarm about it.
    if lately is not None and lately.since.direction != "fell":
        del kinds[FALLING]
    if own is None:
        rises = lately is not None and lately.newest.direction == "rose"
        harmless = kinds.keys() == {_SATURATED} and rises
        faulty = bool(kinds.keys() - set(OF_FIRST_ACTION)) and not harmless
    else:  # the newest measurement says more of a direction than the first alarm about it
        kinds = Counter({kind: n for kind, n in kinds.items() if kind != _DIRECTION})
        faulty = bool(kinds)
    shown = _faulty(run, kinds, own) if faulty else _sound(run, kinds, own)
    return replace(shown, rest=rest, notice=notice)


def _sound(run: ProbeRun, kinds: Counter[str], own: Followed | None) -> Recommendation:
    """No fault of the loop: what is open, and what its updates do to the return."""
    lately, left = seen(run), _open(run)
    known = None if own is not None or run.critic_alone else facts_of(run)
    light, step, todo, figure = _step(run, own, known, lately)
    if own is None and lately is not None and (lately.lower or kinds or not step):
        step, figure = "", lately.source
        light = "act" if lately.raised else "choose"
    returns = _returned(lately) if lately is not None else waiting(run)
    if left or kinds:
        light = "choose" if light == "act" else light
    found = "no alarm" if not kinds else _apart(run, kinds)
    fields = (
        Field("finding", f"{found}; {_checked(run, len(left))}"),
        Field("look at", " ".join(left)),
        Field("step", step),
        Field("return", returns),
        Field("next", todo or ("" if kinds else _weight(run))),
    )
    return Recommendation(light, tuple(each for each in fields if each.text), figure)


def _step(
    run: ProbeRun, own: Followed | None, known: Facts | None, lately: Seen | None
) -> tuple[Light, str, str, str]:
    """What the newest measurement says of a step: light, text, what to do, figure."""
    if own is not None:
        todo = {
            "raised": "",
            "lowered": "improve the critic if this lasts",
            "unknown": "measure more often, by a larger overhead_budget",
        }[own.direction]
        few = own.cosine.n < FEWEST
        fell = lately is not None and lately.lower and own.direction == "raised"
        lights: dict[str, Light] = {"raised": "act", "lowered": "none", "unknown": "choose"}
        # What was measured of one step does not outweigh what came of many.
        light: Light = "choose" if few or fell else lights[own.direction]
        todo = f"not reliable below {FEWEST} starts" if few else todo
        also = other_horizons(run)
        return light, " ".join(filter(None, (own.text, also))), todo, "cosine"
    if known is not None and known.best is not None:
        step = recommendation(known)
        if step.light != "none" or lately is None:
            doubt = f"not reliable below {FEWEST} starts" if too_few(run) else ""
            return "choose", f"{step.use}: {step.gain or step.field('why')}", doubt, "cosine"
    _, found = signals(run)
    if not found or lately is not None:
        return "choose", "", "", "signal_share" if found else "grad_norm"
    signal = pooled(found[-RECENT:])
    low, high = signal.ends
    if low > 0:
        value, ends = cosines(signal.cosine, sqrt(low), sqrt(high))
        text = f"one batch has cosine {value} (CI {ends}) with the mean gradient"
    else:
        most = f"cosine ≤ {cosine(sqrt(max(high, 0.0)))}"
        text = f"one batch is not known to be more than noise: {most} with the mean gradient"
    return "choose", text, "", "signal_share"


def _returned(lately: Seen) -> str:
    """Windows of episodes: what fell first, and how sure a rise is, or a fall in the last one."""
    sure = "Above its first window (99.8% confidence)." if lately.raised else ""
    if not (lately.raised or lately.lower) and lately.since.direction == "rose":
        sure = "Not shown above its first window with 99.8% confidence."
        sure = "By chance one last window in 40 falls so." if lately.dropped else sure
    return " ".join(filter(None, (lately.warned, lately.count, sure)))


def _checked(run: ProbeRun, unsure: int) -> str:
    """How many checks of the loop's parts have passed, and why others have no answer."""
    if not run.checks:
        return "the loop's parts were not checked"
    left, passed = unchecked(run), list(map(str, run.checks["state"])).count("sound")
    text = f"{passed} check{'s' * (passed != 1)} passed"
    text += f", {unsure} open" * bool(unsure) + f", {left} without an answer" * bool(left)
    wants = {
        "probe.record(env) and probe.batch(…)": "the environment is not recorded",
        "truncated= and final_value=": "hand over truncated=",
    }
    answers = zip(run.checks["state"], run.checks["proof"], strict=True)
    off = [str(proof) for state, proof in answers if str(state) == "off"]
    lacking = {what: sum(words in each for each in off) for what, words in wants.items()}
    told = ", ".join(f"{n} for want of {what}" for what, n in lacking.items() if n)
    return text + (f" ({told})" if told else "")


def _apart(run: ProbeRun, kinds: Counter[str]) -> str:
    """Alarms about a gradient that the loop need not follow, the newest with what to do; actors at
    their limits, as of a task whose best policy switches between them, while the return rises."""
    if kinds.keys() == {_SATURATED}:
        return f"watch the actor, while the return rises: {_symptom(run, _SATURATED)}"
    newest = [str(each) for each in run.alarms["alarm"] if str(each) in kinds][-1]
    _, _, todo = _message(run, newest).rpartition(": ")
    return (
        "if the loop follows first-action gradients at visited states: "
        f"{_symptom(run, newest, last=True)}, {todo}"
    )


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


def _faulty(run: ProbeRun, kinds: Counter[str], own: Followed | None) -> Recommendation:
    """The cause and the line to look at, then the symptom; without a cause the worst symptom."""
    found = _causes(run)
    of_causes = {each.kind for each in found}
    # What is lost, else windows of returns that fell, else the first alarm that is no cause, and is
    # not about a gradient that the loop need not follow.
    told_of = map(str, run.alarms["alarm"])
    order = (*_WORST, FALLING, *sorted(told_of, key=lambda each: each in OF_FIRST_ACTION))
    worst = next((each for each in order if each in kinds and each not in of_causes), "")
    said = [each.kind for each in found]
    also = [
        f"{each.words if each.kind in said[:k] else each.kind} ({_step_text(each.step)})"
        for k, each in enumerate(found[1:], 1)
    ]
    if found:
        first, since = found[0].words, _step_text(found[0].step)
        also += [f"symptom: {_symptom(run, worst)}"] if worst else []
        look = ""
    else:
        first, since, look = _symptom(run, worst), "", _advice(run, worst)
    named = of_causes | {worst} | ({ORIGIN} if worst == NONFINITE else set())
    more = len(kinds.keys() - named)
    also += [f"{more} other kind{'s' * (more > 1)} of alarm"] if more else []
    if own is not None and own.direction == "lowered":
        also.append(f"at step {own.step:,} a step along the actor's gradient lowered the return")
    lately = seen(run)
    fields = (
        Field("finding", first),
        Field("since", since),
        Field("look at", look),
        Field("also", "; ".join(also)),
        Field("return", "" if lately is None else lately.text),
    )
    shown = found[0].kind if found else worst
    if found and found[0].words.startswith("The critic's gradients"):  # the norms are the policy's
        shown = worst
    figure = SEEN_IN.get(shown, "grad_norm") if shown else None
    return Recommendation("none", tuple(each for each in fields if each.text), figure)


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
    off = unchecked(run)
    have = "check of the loop's parts has" if off == 1 else "checks of the loop's parts have"
    return "; ".join(filter(None, (todo, f"{off} {have} not looked" if off else "")))


def _message(run: ProbeRun, kind: str) -> str:
    """Of the newest alarm of this kind, whose number is the freshest; of an origin the first."""
    names = [str(each) for each in run.alarms["alarm"]]
    if kind not in names:
        return ""
    first = names.index(kind) if kind == ORIGIN else len(names) - 1 - names[::-1].index(kind)
    return str(run.alarms["message"][first])


def _step_text(step: int) -> str:
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
        about = f"whether {run.checks['check'][k]}"
        if asked is None:
            without = re.sub(r" \([^()]*\)", "", proof)  # its threshold
            found.append(f"{about}: {without}.")
        else:
            first, todo = re.split(r" \((?!1 − d\))|; ", asked[1])[0], asked[2] + asked[3]
            found.append(f"{about} ({first}): {todo}" + "." * (not todo.endswith("?")))
    return found


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
