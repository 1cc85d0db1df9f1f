"""The one table of codes: everything that gradlab says of a run, a section for each of its tools.

    Finding(code, decision, subject, value, low, high, threshold)     a row of a run's tree
    finding.sentence, finding.remedy                                  its words, from here

A new finding is a row in the section of its subject; nothing else has sentences for users but
errors and `--help`.
"""

from gradlab.findings import (
    certificates,
    checks,
    loop,
    losses,
    measurement,
    probe,
    tools,
    training,
)
from gradlab.findings.finding import CODES, MARKS, Code, Decision, Finding, failed, in_order, within

__all__ = [
    "CODES", "MARKS", "Code", "Decision", "Finding", "certificates", "checks", "failed",
    "in_order", "loop", "losses", "measurement", "probe", "tools", "training", "within",
]  # fmt: skip
