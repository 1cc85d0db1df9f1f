"""The first screen of a probe: faults first, then what the loop's own gradient does to the return.

the critic alone    DDPG, TD3, SAC, as the loop has declared: `followed`
not declared        the step to take by the newest measurement
not measured        whether the last updates raised the return: `returns`

Green is a measured gradient or a return that rose. Where nobody looked at the return the screen
says so, and when it will be known; signs of health in the gradients alone are no all-clear.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import isfinite, sqrt

from gradlab.probe.alarms.catalogue import ALPHA, HALF
from gradlab.probe.alarms.evidence import FEWEST
from gradlab.probe.alarms.gradients import ENDED, LOST_CRITIC, NONFINITE, ORIGIN
from gradlab.probe.alarms.steps import CHECK
from gradlab.probe.alarms.steps import KIND as FALLING
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.tables import signals
from gradlab.statistics.intervals import Z
from gradlab.statistics.successive import Signal, pooled
from gradlab.verdicts.measurement.recommendation import recommendation
from gradlab.verdicts.phrases import capital
from gradlab.verdicts.probe.followed import Followed, facts_of, followed, other_horizons, void
from gradlab.verdicts.probe.measured import too_few
from gradlab.verdicts.probe.parts import causes, unchecked
from gradlab.verdicts.probe.returns import COUNTED, Seen, seen, told, waiting
from gradlab.verdicts.probe.sentences import RECENT, verdict
from gradlab.verdicts.screen import NOTHING, Fact, Light, Screen, Sentence
from gradlab.wording import cosine, cosines, percent

# What a fault shows up in; a fault that is not named here is seen in the norms.
SEEN_IN = {
    ENDED: "nonfinite",
    NONFINITE: "nonfinite",
    ORIGIN: "nonfinite",
    "first non-finite operation": "nonfinite",
    "dead path": "layer_norm",
    "dead inputs": "dead_columns",
    "gradient no better than noise": "signal_share",
    "saturated actor": "saturation",
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
        return Screen(reasons[0], "none", NOTHING, tuple(_finite(run)), "grad_norm", rest)
    # Newer windows say more of the return than the first alarm about it.
    if (lately := seen(run)) is not None and lately.since.direction != "fell":
        del kinds[FALLING]
    own = followed(run)
    if own is None:
        return _faulty(run, kinds, rest) if kinds else _sound(run, rest)
    # The newest measurement says more of a direction than the first alarm about it.
    if faults := Counter({kind: n for kind, n in kinds.items() if kind != _DIRECTION}):
        return _faulty(run, faults, rest, own)
    return _by_its_gradient(run, own, rest)


def _by_its_gradient(run: ProbeRun, own: Followed, rest: tuple[Sentence, ...]) -> Screen:
    """What the gradient of the critic alone, which the loop follows, does to the return."""
    todo = {
        "raised": "Go on with this critic.",
        "lowered": "If this lasts, improve the critic.",
        "unknown": "A larger overhead_budget measures more often.",
    }
    lately = seen(run)
    fell = lately is not None and lately.newest.direction == "fell"
    advice = lately.text if lately is not None and fell else todo[own.direction]
    headline = " ".join(filter(None, (own.text, advice, other_horizons(run))))
    few = own.cosine.n < FEWEST
    word = "open" if own.direction == "unknown" else "sure"
    lights: dict[str, Light] = {"raised": "act", "lowered": "none", "unknown": "choose"}
    sure = f"not reliable below {FEWEST} starts" if few else f"{word} ({own.cosine.n} starts)"
    how = f"⟨g, ∇J⟩/(|g||∇J|) of the critic's gradient, h = 0, at step {own.step:,}."
    fact = Fact("cosine of the actor's gradient with that of the return",
                cosine(own.cosine.clipped).replace("-", "−"), how)  # fmt: skip
    facts = (fact, *_cosine(run), *_finite(run))
    # What was measured of one step does not outweigh what came of many.
    doubted = few or (fell and own.direction == "raised")
    light: Light = "choose" if doubted else lights[own.direction]
    return Screen(headline, light, sure, facts, "cosine", rest)


def _faulty(
    run: ProbeRun, kinds: Counter[str], rest: tuple[Sentence, ...], own: Followed | None = None
) -> Screen:
    """The cause and the line to look at, then the symptom; without a cause the worst symptom."""
    found = causes(run)
    of_causes = {each.kind for each in found}
    # What is lost, else windows of returns that fell, else the first alarm that is no cause.
    order = (*_WORST, FALLING, *map(str, run.alarms["alarm"]))
    worst = next((each for each in order if each in kinds and each not in of_causes), "")
    named = of_causes | ({worst} if worst else set())
    if found:
        first = found[0]
        text = f"{first.words} Seen from {_since(first.step)} on."
        further = [f"{each.kind} (from {_since(each.step)} on)" for each in found[1:]]
        text += f" Beside it: {', '.join(further)}." if further else ""
        text += f" Symptom: {_shown(run, worst)}." if worst else ""
    else:
        lead = "" if worst in (ENDED, FALLING) else "Mend this loop before you train on: "
        text = capital(f"{lead}{_shown(run, worst)}{_advice(run, worst)}")
    more = len(kinds.keys() - named)
    text += f" {more} more kind{'s' * (more > 1)} of alarm." if more else ""
    if own is not None and own.direction == "lowered":
        text += f" At step {own.step:,} a step along the actor's gradient lowered the return."
    label = "kind of alarm" if len(kinds) == 1 else "kinds of alarm"
    count = Fact(label, str(len(kinds)), "Kinds in the table alarms of the run.")
    facts = (count, *_finite(run), *_cosine(run))
    raised = sum(kinds.values())
    sure = f"{raised} alarm{'s' * (raised > 1)} in {run.updates:,} updates"
    figure = SEEN_IN.get(found[0].kind if found else worst, "grad_norm")
    return Screen(text, "none", sure, facts, figure, rest)


def _shown(run: ProbeRun, kind: str) -> str:
    """A symptom in words, without what to do."""
    names, lately = [str(each) for each in run.alarms["alarm"]], seen(run)
    if kind == FALLING and lately is not None:
        return f"since the first window the return {told(lately.since)}"
    if kind == ENDED:
        return _message(run, kind)
    return f"{kind} at step {int(run.alarms['step'][names.index(kind)]):,}"


def _advice(run: ProbeRun, kind: str) -> str:
    """What to look at where no check has named a cause, and which checks have not looked."""
    message = _message(run, ORIGIN if kind == NONFINITE else kind)
    _, found, todo = message.rpartition(": ")
    if kind in (NONFINITE, ORIGIN, LOST_CRITIC):
        todo = message  # what was lost is not to be parted from where
    text = f": {CHECK}." if kind == FALLING else f": {todo}." if found and kind != ENDED else "."
    off = unchecked(run)
    have = "check of the loop's parts has" if off == 1 else "checks of the loop's parts have"
    return text + (f" {off} {have} not looked." if off else "")


def _message(run: ProbeRun, kind: str) -> str:
    """Of the newest alarm of this kind, of an origin the first; "" where there is none."""
    names = [str(each) for each in run.alarms["alarm"]]
    if kind not in names:
        return ""
    first = names.index(kind) if kind == ORIGIN else len(names) - 1 - names[::-1].index(kind)
    return str(run.alarms["message"][first])


def _since(step: int) -> str:
    return f"step {step:,}" if step else "the beginning"


def _sound(run: ProbeRun, rest: tuple[Sentence, ...]) -> Screen:
    lately, known = seen(run), None if run.critic_alone else facts_of(run)
    if known is not None and known.best is not None:
        step = recommendation(known, rest)
        few = too_few(run)
        sure = f"not reliable below {FEWEST} starts" if few else step.sure
        doubted = few or (lately is not None and lately.newest.direction == "fell")
        shown: Light = "choose" if doubted and step.light == "act" else step.light
        return replace(step, sure=f"{sure}; no alarm", light=shown, figure="cosine")
    if lately is not None:
        return _by_return(run, lately, rest)
    text = f"No alarm. {waiting(run)}"
    signal = _signal(run)
    if signal is not None and _share(signal)[0] <= 0:
        text += " A batch's gradient is not known to be more than noise."
    text += _weight(run)
    facts = (*_cosine(run), *_finite(run), *_spent(run))
    figure = "grad_norm" if signal is None else "signal_share"
    sure = "the loop's parts were not checked"
    if run.checks:
        all_ = len(run.checks["number"])
        sure = f"{all_ - unchecked(run)} of {all_} checks of the loop's parts passed"
    return Screen(text, "choose", sure, facts, figure, rest)


def _by_return(run: ProbeRun, lately: Seen, rest: tuple[Sentence, ...]) -> Screen:
    """The last updates by windows of episodes, without a fault and without a measured gradient."""
    change = lately.newest
    text = " ".join(filter(None, (lately.text, lately.count))) + _weight(run)
    light: Light = "act" if lately.raised else "choose"
    lower = "it fell lately" if change.direction == "fell" else "not shown above its begin"
    sure = "above its begin (99.8%)" if lately.raised else f"no alarm; {lower}"
    how = f"Mean over the newest window of {change.number.n} {COUNTED[lately.source]}."
    mean = f"{change.mean:.4g}".replace("-", "−")
    facts = (Fact("return of an episode", mean, how), *_finite(run), *_spent(run))
    return Screen(text, light, sure, facts, lately.source, rest)


def _weight(run: ProbeRun) -> str:
    """Where the weights of the task's newest measurement decide."""
    if not run.measured or run.critic_alone:
        return ""
    low, high = (float(run.measured[f"weight_zero_{end}"][-1]) for end in ("low", "high"))
    if isfinite(low) and low > HALF:
        return " Weigh the critic's own gradient above the model's."
    if isfinite(high) and high < HALF:
        return f" Weigh the model's {run.horizon} steps above the critic's own gradient."
    return ""


def _finite(run: ProbeRun) -> list[Fact]:
    if not run.vitals:
        return []
    looked, lost = (int(run.vitals[name].sum()) for name in ("looked", "nonfinite_updates"))
    how = "nonfinite_updates / looked, summed over the table vitals."
    return [Fact(f"of {looked:,} gradients are not finite", percent(lost / max(looked, 1)), how)]


def _signal(run: ProbeRun) -> Signal | None:
    _, found = signals(run)
    return pooled(found[-RECENT:]) if found else None


def _share(signal: Signal) -> tuple[float, float]:
    return signal.share - Z * signal.se, min(signal.share + Z * signal.se, 1.0)


def _cosine(run: ProbeRun) -> list[Fact]:
    signal = _signal(run)
    if signal is None:
        return []
    low, high = _share(signal)
    how = (
        "√(|E g|² / E |g|²), |E g|² from products of successive gradients, pooled over the last "
        f"{RECENT} bursts ({signal.pairs:,} pairs; table successive)."
    )
    if low <= 0:
        most = f"≤ {cosine(sqrt(max(high, 0.0)))}"
        return [Fact("cosine of one batch with the mean", most, how)]
    ends = cosines(sqrt(low), sqrt(high))
    return [Fact(f"cosine of one batch with the mean, {ends}", cosine(signal.cosine), how)]


def _spent(run: ProbeRun) -> list[Fact]:
    if not isfinite(run.spent):
        return []
    how = f"Seconds of the probe over all that have passed; each alarm is false in {ALPHA:.0%}"
    return [Fact("of the time went to the probe", percent(run.spent), f"{how} of runs.")]
