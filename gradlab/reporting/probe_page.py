"""The page of a probe's run: verdict, alarms, signal, health, errors on the task, price.

A section says in one line each what this run has no numbers for, and how to get them.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from gradlab.probe.results import ProbeRun
from gradlab.probe.verdict import verdict
from gradlab.reporting import shell
from gradlab.reporting.panels import Panel
from gradlab.reporting.probe_panels import ORDER, absent


def render(run: ProbeRun, title: str, drawn: list[Panel]) -> str:
    """The whole page as text."""
    missing, sections, first = absent(run), [], 0
    for name in ORDER:
        own = [each for each in drawn if each.section == name]
        if own or missing[name]:
            sections.append(shell.section(name, own, missing[name], (), first))
        first += len(own)
    body = "\n".join([shell.verdict_box(verdict(run)), _alarms(run), *sections, _method(run)])
    return shell.document(title, "Are the gradients of this loop any good?", _facts(run), body)


def _alarms(run: ProbeRun) -> str:
    """Every kind in the order in which they first rang, with what was told last."""
    if not run.alarms:
        return ""
    kinds = [str(each) for each in run.alarms["alarm"]]
    items = "".join(_alarm(run, kind, kinds) for kind in dict.fromkeys(kinds))
    return (
        '<section id="alarms"><h2>Alarms</h2><p>By the step at which a kind first rang; it is told '
        "again only when twice as many updates have passed.</p>"
        f'<dl class="list">{items}</dl></section>'
    )


def _alarm(run: ProbeRun, kind: str, kinds: Sequence[str]) -> str:
    told = [k for k, each in enumerate(kinds) if each == kind]
    first, last = (f"{run.alarms['step'][k]:,.0f}" for k in (told[0], told[-1]))
    often = "" if len(told) == 1 else f" (told {len(told)} times, last at step {last})"
    text = escape(str(run.alarms["message"][told[-1]]))
    return f"<dt>step {first}</dt><dd><strong>{escape(kind)}</strong>{often}: {text}</dd>"


def _facts(run: ProbeRun) -> dict[str, object]:
    spent = run.spent
    return {
        "task": run.task or "none given",
        "step": f"{run.step:,}",
        "updates": f"{run.updates:,}",
        "budget": f"{run.budget:.2g} of the time",
        "spent": f"{spent:.2%}" if np.isfinite(spent) else "",
        "wall time": shell.seconds(run.seconds) if np.isfinite(run.seconds) else "",
        "policy": f"{len(run.parameters)} tensors",
        "seed": run.attributes.get("seed"),
        "gradlab": run.environment.get("gradlab"),
        "torch": run.environment.get("torch"),
        "begun": run.environment.get("created"),
    }


def _method(run: ProbeRun) -> str:
    rest = {key: value for key, value in run.config.items() if key != "parameters"}
    rest["tensors"] = list(run.parameters)
    counted = {
        "rows of vitals": len(run.vitals.get("update", ())),
        "bursts of successive gradients": len(run.successive.get("update", ())),
        "measurements on the task": len(run.measured.get("update", ())),
        "alarms": len(run.alarms.get("number", ())),
    }
    return f"""<section id="method"><h2>How this was computed</h2>
<div class="columns">
<div><h3>Settings</h3>{shell.definitions(rest)}</div>
<div><h3>Rows in the file</h3>{shell.definitions(counted)}</div>
<div><h3>Versions and machine</h3>{shell.definitions(run.environment)}</div>
</div>
</section>"""
