"""The page of a probe's run: verdict, alarms, signal, health, errors on the task, price.

A section says in one line each what this run has no numbers for, and how to get them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradlab.reporting import shell
from gradlab.reporting.page import NOWHERE, Page, PageSource, Section, method
from gradlab.reporting.probe_panels import ORDER, absent, panels
from gradlab.runs.probe.results import ProbeRun
from gradlab.verdicts.probe.first_screen import screen


def page(run: ProbeRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a probe shows; `name` is its title where no task was given."""
    missing = absent(run)
    sections = (
        _alarms(run),
        *(Section(each, lines=tuple(missing[each])) for each in ORDER),
        _method(run),
    )
    question, drawn = "Are the gradients of this loop any good?", tuple(panels(run))
    source = replace(source, command="")  # a loop of the user's: no command makes it again
    spent = run.spent
    facts = {
        "task": run.task or "none given",
        "step": f"{run.step:,}",
        "updates": f"{run.updates:,}",
        "budget": f"{100 * run.budget:.3g}% of the time",
        "spent": f"{100 * spent:.2g}%" if np.isfinite(spent) else "",
        "due": "" if run.abandoned else run.due,
        "wall time": shell.seconds(run.seconds) if np.isfinite(run.seconds) else "",
        "seed": run.attributes.get("seed"),
    }
    title = run.task or name
    return Page(title, question, facts, screen(run), drawn, sections, source, apart=False)


def _alarms(run: ProbeRun) -> Section:
    """Every kind in the order in which they were first raised, with their last message."""
    if not run.alarms:
        return Section("Alarms")
    rows: dict[str, list[int]] = {}
    for k, kind in enumerate(run.alarms["alarm"]):
        rows.setdefault(str(kind), []).append(k)
    about = "A kind is reported again when twice as many updates have passed."
    step, message = run.alarms["step"], run.alarms["message"]
    raised = [
        (kind, "", "step", [f"{step[k]:,.0f}" for k in own], str(message[own[-1]]))
        for kind, own in rows.items()
    ]
    return Section("Alarms", body=shell.alarms(about, raised), name="alarms", opened=True)


def _method(run: ProbeRun) -> Section:
    rest = {key: value for key, value in run.config.items() if key not in ("parameters", "shapes")}
    rest["tensors"] = list(run.parameters)
    counted = {
        "rows of vitals": len(run.vitals.get("update", ())),
        "bursts of successive gradients": len(run.successive.get("update", ())),
        "measurements on the task": len(run.measured.get("update", ())),
        "alarms": len(run.alarms.get("number", ())),
    }
    columns = {
        "Settings": rest,
        "Rows in the file": counted,
        "Versions and machine": run.environment,
    }
    return method(None, columns)
