"""The alarm log: rows of the probe to their sink, and the alarms that they raise, seed by seed.

Rows are tested with the earlier rows of the same seed, so that levels and rates are those of one
run, whatever a seed is trained beside; a user's loop has one seed. An alarm of a kind is reported
when it is first raised, then only after twice as many updates: at most about twenty times in a run
of a million updates.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, TextIO, final

import numpy as np

from gradlab.probe.alarms.catalogue import Alarm, Evidence, examine
from gradlab.probe.row_sinks import RowSink
from gradlab.runs.probe.schema import Row

KEPT = 256  # rows of each table


@final
class AlarmLog:
    """Files rows and reports alarms.

    Args:
        names: of the parameters.
        seeds: numbers of seeds that are trained side by side, which alarms name; None: one loop.
        source: first words of a printed alarm.
        critic_alone: the loop's actor follows the critic alone: no alarm is about a model's steps.

    Attributes:
        alarms: that were reported.
        rows: of each seed the last ones of every table.
        stream: where alarms are printed; None: standard error.
    """

    def __init__(
        self,
        sink: RowSink,
        names: Sequence[str],
        seeds: Sequence[int] | None = None,
        source: str = "gradlab probe",
        *,
        critic_alone: bool = False,
    ) -> None:
        self.sink, self.names, self.seeds, self.source = sink, tuple(names), seeds, source
        self.critic_alone = critic_alone
        self.stream: TextIO | None = None
        self.alarms: list[Alarm] = []
        count = 1 if seeds is None else len(seeds)
        self.rows: list[dict[str, deque[Row]]] = [{} for _ in range(count)]
        self._counts: list[Counter[str]] = [Counter() for _ in range(count)]
        self._reported: dict[tuple[int | None, str], int] = {}  # by place of the seed and kind
        self._number: int | None = None

    def file(self, table: str, row: Row, tested: Mapping[int, Row] | None = None) -> None:
        """Write a row and test it.

        Args:
            tested: rows by place of the seed; None: the row itself is the one seed's.
        """
        self.sink.write(table, row)
        for seed, one in ({0: row} if tested is None else tested).items():
            self._test(table, one, seed)

    def due(self, kind: str, update: int, seed: int | None = 0) -> bool:
        """Whether an alarm of this kind would be reported."""
        last = self._reported.get((seed, kind))
        return last is None or update >= 2 * max(last, 1)

    def report(self, alarm: Alarm, update: int, step: int, seed: int | None = 0) -> None:
        """Write and print an alarm, unless one of its kind was reported lately.

        Args:
            seed: its place; None: the alarm is about the whole run.
        """
        if not self.due(alarm.kind, update, seed):
            return
        self._reported[seed, alarm.kind] = update
        self.alarms.append(alarm)
        if self._number is None:
            self._number = self.sink.earlier.alarms
        row: dict[str, Any] = {"number": self._number, "update": update, "step": step}
        row |= {"alarm": alarm.kind, "message": alarm.message}
        self._number += 1
        source = self.source
        if self.seeds is not None:
            row["seed"] = np.nan if seed is None else self.seeds[seed]
            source += "" if seed is None else f", seed {self.seeds[seed]}"
        self.sink.write("alarms", row)
        text = f"{source}, step {step}: {alarm.kind}: {alarm.message}"
        print(text, file=self.stream or sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line that is no alarm."""
        print(f"{self.source}: {text}", file=self.stream or sys.stderr, flush=True)

    def close(self) -> None:
        self.sink.close()

    def _test(self, table: str, row: Row, seed: int) -> None:
        rows = self.rows[seed].setdefault(table, deque(maxlen=KEPT))
        rows.append(row)
        self._counts[seed][table] += 1
        evidence = Evidence(list(rows), self._counts[seed][table], self.names, self.critic_alone)
        for alarm in examine(table, evidence):
            self.report(alarm, int(row["update"]), int(row["step"]), seed)
