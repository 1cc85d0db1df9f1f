"""The page of a probe's run: verdict, alarms, signal, health, errors on the task, price.

A section says in one line each what this run has no numbers for, and how to get them.
"""

from __future__ import annotations

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
    """In the order of time; of a kind that rang again, every time that was told."""
    if not run.alarms:
        return ""
    kinds = [str(each) for each in run.alarms["alarm"]]
    seen: dict[str, int] = {}
    body = []
    for step, kind, message in zip(run.alarms["step"], kinds, run.alarms["message"], strict=True):
        seen[kind] = seen.get(kind, 0) + 1
        often = f"{seen[kind]} of {kinds.count(kind)}"
        cells = (f"{step:,.0f}", kind, often, str(message))
        body.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    head = "".join(f'<th scope="col">{name}</th>' for name in ("step", "alarm", "told", "message"))
    return (
        '<section id="alarms"><h2>Alarms</h2><p>An alarm of a kind is told when it first rings and '
        'then only when twice as many updates have passed.</p><div class="wide">'
        f'<table class="prose"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
        "</div></section>"
    )


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
