"""The page of a certificate: verdict, findings, errors by block and stratum, how it was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from gradlab.reporting.numbers import folded
from gradlab.reporting.output import named, write
from gradlab.reporting.page import Page, Section, method
from gradlab.verdicts.screen import Fact, Light, Screen
from gradlab.verdicts.sentence import Sentence

HEADINGS = {
    "source": "derivatives by",
    "block": "block",
    "stratum": "where",
    "states": "states",
    "judged": "share judged",
    "median": "median error",
    "p95": "95% are below",
    "largest": "largest",
    "flagged": "share wrong",
}
QUESTION = "Are these derivatives those of the simulator's own step?"


class Certificate(Protocol):
    """What a page needs of a `gradlab.certification.Certification`, which imports torch."""

    @property
    def system(self) -> str: ...
    @property
    def passed(self) -> bool: ...
    @property
    def fail_above(self) -> float: ...
    @property
    def sentences(self) -> tuple[str, ...]: ...
    @property
    def facts(self) -> Any: ...

    def table(self) -> pd.DataFrame: ...


def save(certificate: Certificate, path: Path) -> Path:
    """Write the page.

    Raises:
        InputError: the folder cannot be written.
    """
    return write(named(path), page(certificate))


def page(certificate: Certificate) -> Page:
    """What the page of a certificate shows."""
    table = folded("Relative errors by block and stratum", certificate.table(), HEADINGS)
    findings = certificate.sentences[1:]
    sections = (
        Section("Findings", lines=findings, note=_counted(len(findings)), opened=bool(findings)),
        Section("Numbers", body=table),
        method(None, {"Settings": dict(certificate.facts)}),
    )
    facts = {"system": certificate.system, "states": certificate.facts["states"]}
    return Page(certificate.system, QUESTION, facts, screen(certificate), (), sections, apart=False)


def screen(certificate: Certificate) -> Screen:
    """The verdict and its three numbers."""
    table = certificate.table()
    largest = table["p95"].max() if len(table) else float("nan")
    how = "‖J − D‖ / ‖D‖ of a block, J the simulator's, D certified differences of its step"
    numbers = (
        Fact("states examined", str(certificate.facts["states"]), "Drawn or given"),
        Fact("95% of errors are below", f"{largest:.1g}", how),
        Fact("tolerated", f"{certificate.fail_above:g}", "fail_above"),
    )
    light: Light = "act" if certificate.passed else "none"
    sure = "sound" if certificate.passed else "not sound"
    rest = tuple(Sentence("finding", True, text) for text in certificate.sentences[1:])
    return Screen(certificate.sentences[0], light, sure, numbers, None, rest)


def _counted(count: int) -> str:
    return "none" if not count else f"{count}"
