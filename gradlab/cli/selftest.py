"""`gradlab selftest`: closed-form answers and usual mistakes, checked on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from gradlab.cli.arguments import Document
from gradlab.cli.terminal.progress_bars import bars
from gradlab.cli.terminal.signals import undisturbed


@dataclass(frozen=True)
class Selftest:
    """Check closed-form answers and usual mistakes on this machine."""

    json: bool = False
    """Print one JSON document: every check."""

    def run(self, command: str) -> Document:
        """All checks with their numbers; `passed` decides the exit code."""
        with undisturbed():
            from gradlab.measurement.selftest import selftest

        with bars() as progress:
            checks = selftest(progress)
        return {
            "passed": all(check.passed for check in checks),
            "checks": [asdict(check) | {"passed": check.passed} for check in checks],
        }
