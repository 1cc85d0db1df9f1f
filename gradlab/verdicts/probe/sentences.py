"""What a probe's run means, in sentences: read without torch.

A form is printed only where its test passes, else its undecided twin with how many more samples
would do; no number comes without its interval and N. What was not measured has no sentence: the
page says how to get it.
"""

from __future__ import annotations

from collections import Counter
from math import log, sqrt

import numpy as np

from gradlab.probe.alarms.catalogue import ALPHA, HALF, NOISE
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.tables import signals
from gradlab.statistics.intervals import Z
from gradlab.statistics.number import Number, decide
from gradlab.statistics.successive import pooled
from gradlab.verdicts.measurement.verdict import Sentence
from gradlab.verdicts.phrases import missing
from gradlab.verdicts.probe import returns
from gradlab.verdicts.probe.measured import on_the_task
from gradlab.verdicts.probe.parts import checked
from gradlab.wording import cosine, cosines, duration, percent

_RISK = 0.05  # of an interval
RECENT = 10  # windows, or bursts: a signal of long ago says nothing of now


def verdict(run: ProbeRun) -> list[Sentence]:
    """What to stop for, then what to set, what to mend, why, and what the probe cost."""
    first = (_alarms(run), returns.sentence(run), _lost(run), _saturation(run), _signal(run))
    every = (*first, *checked(run), *on_the_task(run), _cost(run))
    sentences = [each for each in every if each is not None]
    return sorted(sentences, key=lambda each: each.about != "premises")


def _alarms(run: ProbeRun) -> Sentence:
    kinds = Counter(str(each) for each in run.alarms.get("alarm", ()))
    if not kinds:
        risk = f"each is raised in {percent(ALPHA)} of whole runs without a fault"
        return Sentence("alarms", True, f"No alarm was raised in {run.updates:,} updates ({risk}).")
    names, at = run.alarms["alarm"], run.alarms["step"]
    first = {kind: int(at[list(names).index(kind)]) for kind in kinds}
    told = ", ".join(
        f"{kind} (step {first[kind]:,}{'' if n == 1 else f', {n} times'})"
        for kind, n in kinds.items()
    )
    many = "1 kind of alarm" if len(kinds) == 1 else f"{len(kinds)} kinds of alarm"
    return Sentence("alarms", True, f"{many} raised, first: {told}.")


def _lost(run: ProbeRun) -> Sentence | None:
    """Gradients that are not finite, with an upper end where none was seen (Clopper–Pearson)."""
    if not run.vitals:
        return None
    looked, lost = (int(run.vitals[name].sum()) for name in ("looked", "nonfinite_updates"))
    if lost:
        text = f"{lost:,} of {looked:,} gradients were not finite ({percent(lost / looked)})."
        return Sentence("health", True, text)
    most = 1 - _RISK ** (1 / max(looked, 1))
    text = f"All {looked:,} gradients that were looked at are finite (at most {percent(most)} of "
    return Sentence("health", True, f"{text}all are not, 95%).")


def _saturation(run: ProbeRun) -> Sentence | None:
    """The action that is most at its limit lately (Hoeffding, passes taken as independent)."""
    share = run.vitals.get("saturation", np.empty((0, 0)))
    finite = np.flatnonzero(np.isfinite(share).any(axis=1))[-RECENT:]
    if not len(finite):
        return None
    passes = run.vitals["watched"][finite]
    mean, n = passes @ share[finite] / passes.sum(), int(passes.sum())
    j, margin = int(np.argmax(mean)), sqrt(log(2 / _RISK) / (2 * n))
    low, high = max(mean[j] - margin, 0.0), min(mean[j] + margin, 1.0)
    numbers = (
        f"action {j}, at its limit most often, is there in {percent(mean[j])} of its values (CI "
        f"{percent(low)} to {percent(high)}, N = {n} passes up to step "
        f"{run.vitals['step'][finite[-1]]:,.0f})"
    )
    decision = decide(Number(mean[j], low, high, n, margin / Z), HALF)
    if decision.decided:
        word = "saturated" if decision.kind == "above" else "not saturated"
        return Sentence("saturation", True, f"The actor is {word}: {numbers}.")
    text = f"Undecided whether the actor is saturated: {numbers}; "
    return Sentence("saturation", False, f"{text}{missing(decision, 'passes')} decide.")


def _signal(run: ProbeRun) -> Sentence | None:
    """Form 6: how much of one batch's gradient is signal lately."""
    at, found = signals(run)
    if not found:
        return None
    whole = pooled(found[-RECENT:])
    low, high = whole.share - Z * whole.se, min(whole.share + Z * whole.se, 1.0)
    signal = decide(Number(whole.share, low, high, whole.pairs, whole.se), 0.0)
    lately = at[-RECENT:]
    where = f"step {lately[0]:,.0f}"
    if len(lately) > 1:
        where = f"steps {lately[0]:,.0f}–{lately[-1]:,.0f}"
    n = f"N = {whole.pairs:,} pairs of successive batches, {where}"
    n += "; none since was finite" if run.successive["step"][-1] > at[-1] else ""
    if signal.kind == "above":
        value = f"{cosine(whole.cosine)} (CI {cosines(sqrt(low), sqrt(high))}, {n})"
        text = f"The gradient of one batch has the cosine {value} with the mean gradient."
        return Sentence("signal", True, text)
    share = f"{percent(whole.share)} (CI {percent(low)} to {percent(high)}, {n})"
    if high < NOISE:
        text = f"The gradient is no better than noise: of its squared norm {share} is signal."
        return Sentence("signal", True, text)
    text = f"Undecided whether there is a signal in the gradient: {share} of its squared norm; "
    # An estimate below 0 is no estimate of how many pairs it takes.
    enough = missing(signal, "pairs") if whole.share > 0 else "more pairs would"
    return Sentence("signal", False, f"{text}{enough} decide.")


def _cost(run: ProbeRun) -> Sentence | None:
    """The share of the time that the probe took: counted, not estimated."""
    if not np.isfinite(run.spent):
        return None
    within = "within" if run.spent <= run.budget else "above"
    text = (
        f"The probe took {percent(run.spent)} of {duration(run.seconds)}, {within} its budget of "
        f"{percent(run.budget)}, for {run.updates:,} updates."
    )
    return Sentence("cost", True, text)
