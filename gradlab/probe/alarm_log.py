"""Where rows go: into the history that alarms look back on, into the log, and to the user's ears.

An alarm of a kind is told when it first rings, then only when twice as many updates have passed:
a run of a million updates hears of it about twenty times at most.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, TextIO, final

from gradlab.probe.alarms.catalogue import Alarm, Evidence, examine
from gradlab.probe.row_sinks import Book

KEPT = 256  # rows of each table


@final
class Desk:
    """Files rows and rings alarms.

    Args:
        names: of the parameters; ear: where alarms are printed, default: standard error.
        whose: with what a printed alarm begins; numbered: alarms that the book has already.
    """

    def __init__(
        self,
        book: Book,
        names: Sequence[str],
        ear: TextIO | None = None,
        whose: str = "gradlab probe",
        numbered: int = 0,
    ) -> None:
        self.book, self.names, self.ear, self.whose = book, tuple(names), ear, whose
        self.history: dict[str, deque[Mapping[str, Any]]] = {}
        self.alarms: list[Alarm] = []
        self._numbered = numbered
        self._count: Counter[str] = Counter()
        self._told: dict[str, int] = {}

    def file(self, table: str, row: Mapping[str, Any]) -> None:
        """Store a row, then say what is wrong with it."""
        rows = self.history.setdefault(table, deque(maxlen=KEPT))
        rows.append(row)
        self._count[table] += 1
        self.book.write(table, row)
        for alarm in examine(table, Evidence(list(rows), self._count[table], self.names)):
            self.ring(alarm, int(row["update"]), int(row["step"]))

    def due(self, kind: str, update: int) -> bool:
        """Would an alarm of this kind be told?"""
        last = self._told.get(kind)
        return last is None or update >= 2 * max(last, 1)

    def ring(self, alarm: Alarm, update: int, step: int) -> None:
        """Tell it, unless it was told lately."""
        if not self.due(alarm.kind, update):
            return
        self._told[alarm.kind] = update
        number, self._numbered = self._numbered, self._numbered + 1
        self.alarms.append(alarm)
        words = {"alarm": alarm.kind, "message": alarm.message}
        self.book.write("alarms", {"number": number, "update": update, "step": step, **words})
        text = f"{self.whose}, step {step}: {alarm.kind}: {alarm.message}"
        print(text, file=self.ear or sys.stderr, flush=True)

    def close(self) -> None:
        self.book.close()
