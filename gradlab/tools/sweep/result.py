"""A sweep in its folder: the index of its runs, and what became of each.

FOLDER/sweep.json    the index, whole or absent, with a checksum
FOLDER/NAME.h5       a run, as its command writes it; NAME.html, NAME.log beside it
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from gradlab.errors import InputError
from gradlab.storage import whole_files

INDEX = "sweep.json"
_VERSION = 1
State = Literal["waiting", "running", "done", "failed", "interrupted"]
_STATES: tuple[State, ...] = get_args(State)
_NAME = re.compile(r"[\w.+-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        file: of the run, in the folder.
        words: its command, without what it writes.
        differs: the fields in which the runs of the sweep differ.
        attempts: how often it was started.
        error: one line, where it failed.
        seconds: of its last attempt; None before its end.
        sentence: the first of its result.
    """

    name: str
    file: str
    words: tuple[str, ...]
    differs: Mapping[str, Any]
    state: State = "waiting"
    attempts: int = 0
    error: str = ""
    seconds: float | None = None
    sentence: str = ""


@dataclass(frozen=True)
class Sweep:
    """All runs of a folder.

    Attributes:
        folder: where it is.
        command: the command line that made it; empty from Python.
        rows: the runs, in the order of the table.
    """

    folder: Path
    command: str
    rows: tuple[Row, ...]

    def files(self) -> list[Path]:
        """The files of the runs that are done, in order."""
        return [self.folder / row.file for row in self.rows if row.state == "done"]

    def count(self, *states: State) -> int:
        """How many runs are in one of these states."""
        return sum(row.state in states for row in self.rows)

    def table(self) -> pd.DataFrame:
        """A row per run: name, what differs, state, attempts, seconds, sentence, error, file."""
        return pd.DataFrame(
            [
                {"name": row.name, **row.differs, "state": row.state, "attempts": row.attempts,
                 "seconds": row.seconds, "sentence": row.sentence, "error": row.error,
                 "file": str(self.folder / row.file)}
                for row in self.rows
            ]
        )  # fmt: skip

    def with_row(self, row: Row) -> Sweep:
        """The sweep with this row in the place of the one of its name."""
        rows = tuple(row if each.name == row.name else each for each in self.rows)
        return replace(self, rows=rows)


def write(sweep: Sweep) -> None:
    """Write the index in one step. Raises OSError."""
    rows = [asdict(row) for row in sweep.rows]
    content = {"version": _VERSION, "command": sweep.command, "rows": rows}
    whole_files.write(sweep.folder / INDEX, content)


def load(folder: str | Path) -> Sweep:
    """The sweep in a folder.

    Raises:
        InputError: there is none, or its index is damaged.
    """
    folder = Path(folder)
    try:
        content = whole_files.read(folder / INDEX)
        if content.get("version") != _VERSION:
            raise ValueError(f"version {content.get('version')}, expected {_VERSION}")
        rows = tuple(_row(each) for each in content["rows"])
        return Sweep(folder, str(content["command"]), rows)
    except FileNotFoundError:
        raise InputError(f"{folder} holds no sweep: {INDEX} is missing") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{folder / INDEX} is damaged: {error}") from error


def _row(values: Mapping[str, Any]) -> Row:
    """A row of a file, which may be anybody's."""
    row = Row(**values)
    texts = (row.name, row.file, row.error, row.sentence, *row.words)
    if not all(isinstance(text, str) for text in texts) or row.state not in _STATES:
        raise ValueError(f"a row is no run: {row.name!r}")
    if not (_NAME.fullmatch(row.name) and _NAME.fullmatch(row.file)):
        raise ValueError(f"the file of a run is {row.file!r}, expected one in the folder")
    if not isinstance(row.differs, Mapping) or not isinstance(row.attempts, int):
        raise ValueError(f"the row of {row.name} has wrong types")
    if not isinstance(row.seconds, int | float | None):
        raise ValueError(f"the row of {row.name} has seconds {row.seconds!r}")
    return replace(row, words=tuple(row.words))
