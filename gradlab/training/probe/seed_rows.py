"""Rows of several seeds: stacked to one row of the run's file, and tested for alarms seed by seed.

The run's own events are not reported twice: a seed that has diverged, and a critic that is beyond
what rewards can sum to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, final

import numpy as np

from gradlab.probe.alarm_log import AlarmLog
from gradlab.probe.alarms.catalogue import Alarm
from gradlab.probe.resuming import Earlier
from gradlab.runs.probe.schema import Row
from gradlab.runs.training.probe_tables import PREFIX
from gradlab.storage.journal import Journal, read
from gradlab.training.state import Run

Rows = Mapping[int, Row]  # by the place of a seed


@final
class SeedRows:
    """Files rows of several seeds as one, and reports the alarms of each."""

    def __init__(self, run: Run, journal: Journal, tensors: Sequence[str]) -> None:
        source, alone = f"gradlab probe, {run.algorithm.name}", max(run.algorithm.horizons) == 0
        self.run = run
        self.log = AlarmLog(
            RunSink(journal), tensors, run.learner.seeds, source, critic_alone=alone
        )

    def file(self, table: str, own: Rows, together: Row) -> None:
        """One row of the file, and the alarms of each seed that is not lost.

        Args:
            own: a row per seed, of all seeds or some; together: what the seeds share.
        """
        at = {"update": self.run.iteration, "step": self.run.iteration}
        tested = {
            seed: self._without_events(seed, {**at, **together, **row})
            for seed, row in own.items()
            if not self.run.lost[seed]
        }
        self.log.file(table, {**stacked(own, self.run.learner.seeds), **together, **at}, tested)

    def report(self, alarm: Alarm, seed: int | None = None) -> None:
        """One about a seed, by its place, or about the run."""
        self.log.report(alarm, self.run.iteration, self.run.iteration, seed)

    def _without_events(self, seed: int, row: Row) -> Row:
        """The row without what an event of the run has reported."""
        reported = ("value",) if self.run.excessive[seed] else ()
        return {name: value for name, value in row.items() if name not in reported}


def stacked(rows: Rows, seeds: Sequence[int]) -> dict[str, Any]:
    """Column → the seeds' values [E, …], NaN where a seed has none; texts side by side."""
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows.values() for name in row):
        values = {seed: row[name] for seed, row in rows.items() if name in row}
        if any(isinstance(value, str) for value in values.values()):
            texts = [f"seed {seeds[seed]}: {text}" for seed, text in values.items() if text]
            columns[name] = "; ".join(texts)
            continue
        shape = np.shape(next(iter(values.values())))
        columns[name] = np.full((len(seeds), *shape), np.nan)
        for seed, value in values.items():
            columns[name][seed] = value
    return columns


@final
class RunSink:
    """Rows go to the journal of the run, which stays open: it is the run's."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    @cached_property
    def earlier(self) -> Earlier:
        """Alarms that an earlier part of the run has reported."""
        numbers = read(self.journal.path).groups[f"{PREFIX}alarms"]["number"].values
        return Earlier(alarms=int(max(numbers, default=-1)) + 1)

    def write(self, table: str, row: Row) -> None:
        """A row, by the columns that the table has.

        Raises:
            ValueError: a shape is not the table's; such a row would make the run unreadable.
        """
        schema = self.journal.tables[f"{PREFIX}{table}"]
        kept = {k: v for k, v in row.items() if k in schema.columns or k == schema.index}
        for name in schema.columns.keys() & kept.keys():
            if not schema.columns[name].text:
                np.broadcast_to(row[name], schema.shape(name))
        self.journal.append(f"{PREFIX}{table}", kept)

    def amend(self, table: str, row: Row) -> None:
        """Rows of a run are not written again."""

    def close(self) -> None:
        """The run closes its journal."""
