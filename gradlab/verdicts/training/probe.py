"""What the probe of a training run says of its seeds, in three sentences; read without torch.

Alarms by kind with the seeds that they are about; the signal in one batch's gradient, seed by seed,
from its last bursts; and the share of the time that the probe took.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

from gradlab.probe.alarms.catalogue import ALPHA
from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.tables import signals
from gradlab.runs.training.probe_tables import UNMEASURED
from gradlab.runs.training.results import Training
from gradlab.statistics.intervals import Z
from gradlab.statistics.successive import pooled
from gradlab.verdicts.measurement.verdict import Sentence
from gradlab.verdicts.probe.sentences import RECENT
from gradlab.wording import cosine, cosines, duration, percent


def probed(run: Training, name: str) -> list[Sentence]:
    """Nothing where the run had no probe, or has no row of it yet."""
    watched = {seed: probe for seed, probe in run.probes.items() if probe.vitals}
    if not watched:
        return []
    signal = _signal(watched, name)
    return [_alarms(run, name), *signal, *_unmeasured(run, name), _cost(watched, name)]


def _unmeasured(run: Training, name: str) -> list[Sentence]:
    """Which columns stay empty, and where the row's own gradient is instead."""
    why = run.attributes.get(UNMEASURED)
    if not why:
        return []
    text = (
        f"{name}: its probe measures the task and the model, but no gradients by horizon: {why}. "
        f"Its own gradient has its signal in the probe, and with --gradient-every its bias."
    )
    return [Sentence("probe gradients", False, text)]


def _alarms(run: Training, name: str) -> Sentence:
    kinds: dict[str, dict[str, None]] = {}
    first: dict[str, int] = {}
    for seed, probe in run.probes.items():
        for kind, at in zip(*(probe.alarms.get(c, ()) for c in ("alarm", "step")), strict=True):
            kinds.setdefault(str(kind), {})[seed] = None
            first[str(kind)] = min(int(at), first.get(str(kind), int(at)))
    if not kinds:
        text = f"{name}: no alarm was raised (each is in {percent(ALPHA)} of sound runs)."
        return Sentence("alarms", True, text)
    listing = "; ".join(
        f"{kind} ({_seeds(tuple(kinds[kind]), len(run.seeds))}, first at iteration {first[kind]:,})"
        for kind in sorted(kinds, key=lambda kind: first[kind])
    )
    many = "1 kind of alarm" if len(kinds) == 1 else f"{len(kinds)} kinds of alarm"
    return Sentence("alarms", True, f"{name}: {many} raised: {listing}.")


def _seeds(about: tuple[str, ...], count: int) -> str:
    if len(about) == count:
        return "the seed" if count == 1 else "every seed"
    return f"seed{'' if len(about) == 1 else 's'} {', '.join(about)}"


def _signal(known: Mapping[str, ProbeRun], name: str) -> list[Sentence]:
    clear, undecided, pairs = [], [], 0
    for seed, probe in known.items():
        _, found = signals(probe)
        if not found:
            continue
        whole = pooled(found[-RECENT:])
        low, high = whole.share - Z * whole.se, min(whole.share + Z * whole.se, 1.0)
        pairs = whole.pairs
        if low > 0:
            ends = cosines(sqrt(low), sqrt(high))
            clear.append(f"{cosine(whole.cosine)} (seed {seed}, CI {ends})")
        else:
            undecided.append(f"seed {seed} (at most {cosine(sqrt(max(high, 0.0)))})")
    if not clear and not undecided:
        return []
    n = f"N = {pairs:,} pairs of batches of each seed"
    text = f"{name}: the cosine of one batch's policy gradient with the mean over replay is "
    text += ", ".join(clear) if clear else "not known to be above 0"
    if undecided:
        text += f"; undecided for {', '.join(undecided)}" if clear else f": {', '.join(undecided)}"
    return [Sentence("signal", not undecided, f"{text} ({n}).")]


def _cost(watched: Mapping[str, ProbeRun], name: str) -> Sentence:
    """The share of the time; what was too dear is said, since the page cannot show it."""
    probe = next(iter(watched.values()))
    within = "within" if probe.spent <= probe.budget else "above"
    text = f"{name}: the probe took {percent(probe.spent)} of {duration(probe.seconds)}, {within} "
    text += f"its budget of {percent(probe.budget)}"
    if not any(each.measured for each in watched.values()):
        text += ", which allowed no measurement on the task in this time"
    return Sentence("cost", True, f"{text}.")
