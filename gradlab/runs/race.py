"""What a race found: where each candidate leads in K updates, and for how long to follow it.

The changes of the return are those of a rehearsal (`runs.rehearsal`) whose critic, and model where
asked for, were fitted again on the way; branches whose interval excluded the best were dropped.
Read without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.runs.realised import Cell
from gradlab.runs.rehearsal import Rehearsal
from gradlab.statistics.number import Number
from gradlab.storage import codec, records
from gradlab.storage.codec import content_of, described, header
from gradlab.storage.records import Array, Record
from gradlab.wording import listed, two, updates

KIND = "race"
ALONE = -1  # horizon of a candidate that has none: a mixture, or a user's own loss
_SHOWN = 3  # names in a sentence


@dataclass(frozen=True, eq=False, repr=False)
class Race:
    """What `gradlab.race` found.

    Attributes:
        results: changes of the return, their intervals, lengths and the best of all; cells are
            names of candidates with their horizons (`ALONE` where there is none).
        dropped: updates after which each was dropped, 0: it ran to the end, or as far as all did.
        config: what was asked for; environment: what it ran on.
        notes: what a reader must know, by topic.
        file: where it was read from; None: it was run here.
    """

    results: Rehearsal
    dropped: tuple[int, ...]
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    notes: Mapping[str, Any]
    file: Path | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.results.cells)

    @property
    def updates(self) -> int:
        """How many updates the longest branch made."""
        results = self.results
        there = (results.low[:, at] for at in range(len(results.lengths)))
        made = [k for k, low in zip(results.lengths, there, strict=True) if np.isfinite(low).any()]
        return max(made, default=0)

    def after_one(self, name: str) -> Number:
        """What one step had promised: the change of the return after the first update."""
        return self.results.after(self._cell(name), self.results.lengths[0])

    def may_be_best(self) -> tuple[str, ...]:
        """Candidates that are not excluded as the best, with 95% together."""
        return tuple(name for name, _ in self.results.not_excluded())

    @property
    def recommendation(self) -> str:
        """What to follow, for how long, and what else may be as good."""
        best = self.results.best
        if best is None or self.results.hold:
            return (
                f"Keep the policy: within {updates(self.updates)} no candidate is shown to raise "
                f"the return."
            )
        name, made = best.cell[0], updates(best.updates)
        more = " or more" if best.updates == self.updates else ""
        text = f"Follow {name} for {made}{more}: the return rises by {_with_ends(best.gain)}."
        others = [other for other in self.may_be_best() if other != name]
        return f"{text} Not excluded: {listed(others, _SHOWN)}." if others else text

    def table(self) -> pd.DataFrame:
        """One row per candidate and evaluation.

        Columns: candidate, horizon (−1: none), updates, value, ci_low, ci_high (change of the
        return), may_be_best, holds (follow it for so long?), n, dropped (after so many updates; 0:
        never).
        """
        table = self.results.table().rename(columns={"estimator": "candidate"})
        dropped = dict(zip(self.names, self.dropped, strict=True))
        return table.assign(dropped=table["candidate"].map(dropped))

    def __str__(self) -> str:
        return "\n".join([self.recommendation, *(f"  {line}" for line in self._lines())])

    __repr__ = __str__

    def _lines(self) -> list[str]:
        width = max(len(name) for name in self.names)
        return [
            f"{cell[0]:<{width}}  {self._outcome(cell)}{f', dropped after {at}' if at else ''}; "
            f"one update: {_with_ends(self.after_one(cell[0]))}"
            for cell, at in zip(self.results.cells, self.dropped, strict=True)
        ]

    def _outcome(self, cell: Cell) -> str:
        peak = self.results.peak_of(cell)
        if peak is None:
            return "lost"
        return f"highest after {peak.updates}: {_with_ends(peak.gain)}"

    def _cell(self, name: str) -> Cell:
        return self.results.cells[self.names.index(name)]

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write one HDF5 file, complete or not at all.

        Raises:
            InputError: the file exists (and `overwrite` is off) or cannot be written.
        """
        attributes = header(KIND, self.config, self.environment, notes=self.notes)
        dropped = Array(np.array(self.dropped, dtype=np.int64), ("cell",), "updates")
        groups = {KIND: codec.with_scales({**codec.arrays(self.results), "dropped": dropped})}
        records.write(path, Record(attributes, groups), overwrite)
        return Path(path)


def load(path: str | Path) -> Race:
    """The race in a file written by `Race.save`; nothing but the file is needed.

    Raises:
        InputError: the file is missing, foreign, damaged, or of another kind.
    """
    record = records.read(path)
    with content_of(record, Path(path), KIND, "race"):
        group = record.groups[KIND]
        return Race(
            codec.decoded(Rehearsal, group),
            tuple(int(each) for each in group["dropped"].values),
            **described(record, "notes"),
            file=Path(path),
        )


def _with_ends(number: Number) -> str:
    return f"{two(number.value)} [{two(number.low)}, {two(number.high)}]"
