"""`gradlab selftest`: closed-form answers and usual mistakes, checked on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from gradlab.cli.arguments import Document
from gradlab.cli.terminal.progress_bars import bars
from gradlab.cli.terminal.streams import undisturbed


@dataclass(frozen=True)
class Selftest:
    """Are closed-form answers met on this machine, and usual mistakes detected?

    Exit code 1 where one is not.

        gradlab selftest
        gradlab selftest --json
    """

    json: bool = False
    """Print one JSON document: every check."""

    def run(self, command: str) -> Document:
        """All checks with their numbers; `passed` decides the exit code."""
        with undisturbed():
            from gradlab.measurement.selftest import selftest

        with bars() as progress:
            checks = selftest(progress)
        wrong = [check.name for check in checks if not check.passed]
        met = f"All {len(checks)} answers are met on this machine."
        missed = f"{len(wrong)} of {len(checks)} answers are missed: {', '.join(wrong)}."
        return {
            "headline": missed if wrong else met,
            "passed": not wrong,
            "checks": [asdict(check) | {"passed": check.passed} for check in checks],
        }
