"""Whether a certificate names a planted fault, and whether it alarms where nothing is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import gradlab
from gradlab.errors import InputError
from gradlab.tools.certify.result import Certification, Finding
from tests.certification.faults.fault import Fault

REFUSED = {"step has hidden randomness": "random"}  # a certificate of it would be of no function


@dataclass(frozen=True)
class Outcome:
    """Of one planted fault.

    Attributes:
        named: a finding is of the fault's kind, and none of a block that it does not break.
        findings: that fail the certificate or are of the fault's kind, the gravest first.
        sentence: the first of them, or why the system was refused.
    """

    named: bool
    findings: tuple[Finding, ...]
    sentence: str


def outcome(fault: Fault, samples: int) -> Outcome:
    try:
        certification = gradlab.certify(fault.task(), samples=samples)
    except InputError as refused:
        kinds = {kind for words, kind in REFUSED.items() if str(refused).startswith(words)}
        return Outcome(bool(kinds & set(fault.kinds)), (), str(refused))
    alarmed = alarms(certification)
    findings = tuple(
        finding
        for finding in certification.findings
        if finding in alarmed or (finding.kind in fault.kinds and finding.severity != "note")
    )
    right_kind = any(finding.kind in fault.kinds for finding in findings)
    # A step that is no function of its arguments has no Jacobian: any block may differ there.
    right_blocks = not fault.blocks or {one.block for one in findings} <= set(fault.blocks)
    sentence = findings[0].sentence if findings else ""
    return Outcome(right_kind and right_blocks, findings, sentence)


def alarms(certification: Certification) -> tuple[Finding, ...]:
    """The findings that fail the certificate."""
    return tuple(
        finding
        for finding in certification.findings
        if finding.severity == "wrong" and finding.size > certification.fail_above
    )
