"""What the page of a training run shows of the probe that ran beside it: panels and alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from gradlab import figures
from gradlab.reporting import probe_panels, shell
from gradlab.reporting.page import Panel, Section, panel
from gradlab.runs.training.results import Training

_SECTION = "Gradients while it trained"
_ALARMS = "Alarms while it trained"
_PATHS = (
    "Paths end at terminal states: below the dotted line the gradient is that of a shorter horizon "
    "than was asked for."
)
_SIGNAL = (
    "Near 1 every batch points the same way; the root is the cosine of one batch's gradient with "
    "the mean over replay. From products of gradients of batches drawn for this, at one policy."
)


def panels(run: Training) -> list[Panel]:
    """As on the page of a probe, every seed a line; nothing where the run had no probe."""
    watched = {seed: probe for seed, probe in run.probes.items() if probe.vitals}
    if not watched:
        return []
    drawn = [
        replace(
            each, name=f"probe-{each.name}", section=_section(each.section),
            caption=_SIGNAL if each.name == "signal_share" else each.caption,
        )
        for each in probe_panels.several(watched)
    ]  # fmt: skip
    if not run.paths.empty:  # the model's, where they can end
        longest = max(run.horizons)
        draw = partial(
            figures.probe_curve, run.paths, quantity="lasted", title="How long the model's paths "
            "last", unit="steps, mean", level=(float(longest), f"asked for: {longest}"),
        )  # fmt: skip
        drawn.append(panel("probe-paths", _section(probe_panels.HEALTH), _PATHS, draw))
    return drawn


def _section(question: str) -> str:
    return f"{_SECTION}: {question[0].lower()}{question[1:]}"


def alarms(runs: Mapping[str, Training]) -> Section:
    """Every kind of every seed by the iteration of its first alarm, with its last message."""
    raised: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name, run in runs.items():
        for at, whose, kind, message in _told(run, name if len(runs) > 1 else ""):
            raised.setdefault((kind, whose), []).append((at, message))
    if not raised:
        return Section(_ALARMS)
    about = (
        "By the iteration of its first alarm for a seed; a kind is reported again only when twice "
        "as many iterations have passed."
    )
    listed = [
        (kind, whose, "iteration", [f"{at:,}" for at, _ in own], own[-1][1])
        for (kind, whose), own in sorted(raised.items(), key=lambda each: each[1][0][0])
    ]
    body, note = shell.alarms(about, listed), f"{len(raised)} kinds"
    return Section(_ALARMS, body=body, note=note, name="alarms", opened=True)


def _told(run: Training, name: str) -> list[tuple[int, str, str, str]]:
    """Iteration, whose, kind, message, in their order; what is about the run counts once."""
    found = {}
    for seed, probe in run.probes.items():
        columns = (probe.alarms.get(c, ()) for c in ("number", "step", "seed", "alarm", "message"))
        for number, step, about, kind, message in zip(*columns, strict=True):
            words = [name] if name else []
            words += [f"seed {seed}"] if about == about else []
            whose = f" ({', '.join(words)})" if words else ""
            found[int(number)] = int(step), whose, str(kind), str(message)
    return [found[number] for number in sorted(found)]
