"""The page of a probe's run: verdict, alarms, signal, health, errors on the task, price.

A section says in one line each what this run has no numbers for, and how to get them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape

import numpy as np

from gradlab.reporting import shell
from gradlab.reporting.first_fold import NOWHERE, PageSource
from gradlab.reporting.page import Page, Section, method
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
    return Page(
        run.task or name, question, _facts(run), screen(run), drawn, sections, source, apart=False
    )


def _alarms(run: ProbeRun) -> Section:
    """Every kind in the order in which they were first raised, with their last message."""
    if not run.alarms:
        return Section("Alarms")
    kinds = [str(each) for each in run.alarms["alarm"]]
    items = "".join(_alarm(run, kind, kinds) for kind in dict.fromkeys(kinds))
    body = (
        "<p>By the step at which a kind was first raised; it is reported again only when twice as "
        f'many updates have passed.</p><dl class="list">{items}</dl>'
    )
    return Section("Alarms", body=body, name="alarms", opened=True)


def _alarm(run: ProbeRun, kind: str, kinds: Sequence[str]) -> str:
    rows = [k for k, each in enumerate(kinds) if each == kind]
    first, last = (f"{run.alarms['step'][k]:,.0f}" for k in (rows[0], rows[-1]))
    often = "" if len(rows) == 1 else f" (reported {len(rows)} times, last at step {last})"
    text = shell.with_commands(str(run.alarms["message"][rows[-1]]))
    return f"<dt>step {first}</dt><dd><strong>{escape(kind)}</strong>{often}: {text}</dd>"


def _facts(run: ProbeRun) -> dict[str, object]:
    spent = run.spent
    return {
        "task": run.task or "none given",
        "step": f"{run.step:,}",
        "updates": f"{run.updates:,}",
        "budget": f"{run.budget:.2g} of the time",
        "spent": f"{spent:.2%}" if np.isfinite(spent) else "",
        "due": "" if run.abandoned else run.due,
        "wall time": shell.seconds(run.seconds) if np.isfinite(run.seconds) else "",
        "policy": f"{len(run.parameters)} tensors",
        "seed": run.attributes.get("seed"),
    }


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
