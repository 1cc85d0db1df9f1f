"""Where rows of several seeds go: as one row into the run, and each seed's to its own desk.

A seed's desk remembers its rows and rings its alarms (`gradlab.probe.alarm_log`), so that levels
and rates are those of one run whatever it is trained beside. What the run's own events tell is not
told twice: a seed that has diverged, and a critic that is beyond what rewards can sum to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np

from gradlab.probe.alarm_log import Desk
from gradlab.probe.alarms.catalogue import Alarm
from gradlab.runs.training.probe_tables import PREFIX
from gradlab.storage.journal import Journal, read
from gradlab.training.state import Run

Rows = Mapping[int, Mapping[str, Any]]  # by the place of a seed


@final
class SeedDesks:
    """Files rows of several seeds as one, and rings what each of them says."""

    def __init__(self, run: Run, journal: Journal, tensors: Sequence[str]) -> None:
        self.run, self.journal = run, journal
        self._number: int | None = None
        every = f"gradlab probe, {run.algorithm.name}"
        self.whole = Desk(_Alarms(self, np.nan), tensors, whose=every)
        self.seeds = [
            Desk(_Alarms(self, seed), tensors, whose=f"{every}, seed {seed}")
            for seed in run.learner.seeds
        ]

    def file(self, table: str, own: Rows, together: Mapping[str, Any]) -> None:
        """One row of the file, and the alarms of each seed that is not lost.

        Args:
            own: what is a seed's own, of all seeds or some; together: what they share.
        """
        at = {"update": self.run.iteration, "step": self.run.iteration}
        row = {**self._stacked(own), **together, **at}
        self.journal.append(f"{PREFIX}{table}", self._fitting(f"{PREFIX}{table}", row))
        for member, each in own.items():
            if not self.run.lost[member]:  # that it diverged has been told
                self._look(table, member, {**at, **together, **each})

    def ring(self, alarm: Alarm, member: int | None = None) -> None:
        """One about a seed, by its place, or about all."""
        desk = self.whole if member is None else self.seeds[member]
        desk.ring(alarm, self.run.iteration, self.run.iteration)

    def write(self, row: Mapping[str, Any]) -> None:
        """An alarm; numbers go on where an earlier part of the run has stopped."""
        if self._number is None:
            before = read(self.journal.path).groups[f"{PREFIX}alarms"]["number"].values
            self._number = int(max(before, default=-1))
        self._number += 1
        self.journal.append(f"{PREFIX}alarms", {**row, "number": self._number})

    def _look(self, table: str, member: int, row: dict[str, Any]) -> None:
        desk = self.seeds[member]
        if self.run.excessive[member]:  # an event of the run says so
            row.pop("value", None)
        desk.file(table, row)

    def _fitting(self, table: str, row: Mapping[str, Any]) -> dict[str, Any]:
        """The columns that the table has.

        Raises:
            ValueError: a shape is not the table's; such a row would make the run unreadable.
        """
        known = self.journal.tables[table]
        for name in known.columns.keys() & row.keys():
            if not known.columns[name].text:
                shape = tuple(len(known.scales[dim]) for dim in known.columns[name].dims)
                np.broadcast_to(row[name], shape)
        return {k: v for k, v in row.items() if k in known.columns or k == known.index}

    def _stacked(self, own: Rows) -> dict[str, Any]:
        """Column → the seeds' values [E, …], NaN where a seed has none; texts side by side."""
        found: dict[str, Any] = {}
        for name in dict.fromkeys(name for row in own.values() for name in row):
            values = {member: row[name] for member, row in own.items() if name in row}
            if any(isinstance(value, str) for value in values.values()):
                seeds = self.run.learner.seeds
                told = [f"seed {seeds[m]}: {text}" for m, text in values.items() if text]
                found[name] = "; ".join(told)
                continue
            shape = np.shape(next(iter(values.values())))
            found[name] = np.full((len(self.seeds), *shape), np.nan)
            for member, value in values.items():
                found[name][member] = value
        return found


@final
class _Alarms:
    """Where a seed's desk writes: its rows are filed together with the others', its alarms here."""

    def __init__(self, desks: SeedDesks, seed: float) -> None:
        self.desks, self.seed = desks, seed

    def write(self, table: str, row: Mapping[str, Any]) -> None:
        if table == "alarms":
            self.desks.write({**row, "seed": self.seed})

    def amend(self, table: str, row: Mapping[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass
