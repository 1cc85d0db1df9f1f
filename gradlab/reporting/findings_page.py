"""The page of a run that is its findings: what is broken first, every finding a row, its tables."""

from __future__ import annotations

from gradlab.findings import failed, in_order
from gradlab.reporting.page import NOWHERE, Page, PageSource, Section, method_of
from gradlab.reporting.shell import folded
from gradlab.runs.run import FindingsRun
from gradlab.verdicts.phrases import capital
from gradlab.verdicts.recommendation import Field, Light, Recommendation

_OWN = "verdict"  # the group of the findings themselves


def advice(run: FindingsRun) -> Recommendation:
    """What is broken first, what to do about it, and how much was asked."""
    found = in_order(run.findings)
    open_ = [each for each in found if each.decision == "undecided"]
    light: Light = "none" if failed(found) else "choose" if open_ else "act"
    held = sum(each.decision == "pass" for each in found)
    fields = (
        Field("finding", capital(found[0].headed) if light != "act" else "nothing is broken"),
        Field("next", found[0].remedy),
        Field("passed", f"{held} of {len(found)}"),
    )
    words = {"act": "Passed", "choose": "Undecided", "none": "Failed"}
    shown = tuple(each for each in fields if each.text)
    return Recommendation(light, shown, word=words[light])


def page(run: FindingsRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of an audit, or of a loss beside its exact gradient, shows."""
    groups = (group for group in run.record.groups if group != _OWN)
    body = "".join(folded(group, run.table(group)) for group in groups)
    config = run.config
    sections = Section("Numbers", body=body), method_of(config, run.environment)
    facts = {key: config.get(key) for key in ("kind", "rows", "seed")}
    return Page(
        name, "Does this loss keep its laws?", facts, run.recommendation, (), sections, source,
        run.findings, apart=False,
    )  # fmt: skip
