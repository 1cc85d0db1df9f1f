"""Whether a certificate names a planted fault, and whether it alarms where nothing is wrong."""

from __future__ import annotations

from gradlab.certification import Certification, Finding
from tests.certification.faults.fault import Fault


def alarms(certification: Certification) -> tuple[Finding, ...]:
    """The findings that fail the certificate."""
    return tuple(
        finding
        for finding in certification.findings
        if finding.severity == "wrong" and finding.size > certification.fail_above
    )


def is_named(fault: Fault, certification: Certification) -> bool:
    """A finding of its kind; and none about a block that it does not break.

    A step that is no function of its arguments has no Jacobian, so that blocks are free there.
    """
    raised = alarms(certification)
    kinds = {finding.kind for finding in raised}
    if not kinds & set(fault.kinds):
        return False
    return not fault.blocks or {finding.block for finding in raised} <= set(fault.blocks)
