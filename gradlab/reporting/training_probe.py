"""What the page of a training run shows of the probe that ran beside it: panels and alarms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from html import escape

from gradlab import figures
from gradlab.reporting import probe_panels
from gradlab.reporting.panels import Panel, panel
from gradlab.training.results import Training

SECTION = "Gradients while it trained"
PATHS = (
    "Paths end at terminal states: below the dotted line the gradient is that of a shorter horizon "
    "than was asked for."
)


def panels(run: Training) -> list[Panel]:
    """As on the page of a probe, every seed a line; nothing where the run had no probe."""
    known = {seed: probe for seed, probe in run.probes.items() if probe.vitals}
    if not known:
        return []
    found = [
        replace(each, name=f"probe-{each.name}", section=_section(each.section))
        for each in probe_panels.several(known)
    ]
    return found + _paths(run)


def _section(question: str) -> str:
    return f"{SECTION}: {question[0].lower()}{question[1:]}"


def _paths(run: Training) -> list[Panel]:
    """How long the model's paths lasted, where they can end."""
    if run.paths.empty:
        return []
    longest = max(run.horizons)
    draw = partial(
        figures.probe_curve, run.paths, quantity="lasted", title="How long the model's paths last",
        unit="steps, mean", level=(float(longest), f"asked for: {longest}"),
    )  # fmt: skip
    return [panel("probe-paths", _section(probe_panels.HEALTH), PATHS, draw)]


def alarms(runs: Mapping[str, Training]) -> str:
    """Every alarm of every seed in the order of the iterations."""
    told = [row for name, run in runs.items() for row in _told(run, name if len(runs) > 1 else "")]
    if not told:
        return ""
    items = "".join(
        f"<dt>iteration {at:,}</dt><dd><strong>{escape(kind)}</strong>{escape(whose)}: "
        f"{escape(message)}</dd>"
        for at, whose, kind, message in sorted(told, key=lambda row: row[0])
    )
    return (
        '<section id="alarms"><h2>Alarms while it trained</h2><p>Of one kind and seed the next is '
        "told when twice as many iterations have passed.</p>"
        f'<dl class="list">{items}</dl></section>'
    )


def _told(run: Training, name: str) -> list[tuple[int, str, str, str]]:
    """Iteration, whose, kind, message; what is about the run counts once."""
    found = {}
    for seed, probe in run.probes.items():
        columns = (probe.alarms.get(c, ()) for c in ("number", "step", "seed", "alarm", "message"))
        for number, step, about, kind, message in zip(*columns, strict=True):
            words = [name] if name else []
            words += [f"seed {seed}"] if about == about else []
            whose = f" ({', '.join(words)})" if words else ""
            found[int(number)] = int(step), whose, str(kind), str(message)
    return list(found.values())
