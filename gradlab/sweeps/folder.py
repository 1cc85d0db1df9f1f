"""The folder of a sweep while it is written: one writer, an index that is always whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

from gradlab.errors import Failure, InputError
from gradlab.runs import sweep as index
from gradlab.runs.sweep import INDEX, Row, Sweep
from gradlab.storage.journal_files import locked
from gradlab.storage.records import check_output
from gradlab.sweeps.table import Planned

LOCK = ".sweep.lock"


@final
class Folder:
    """The one writer of a sweep. A context manager, which holds the folder's lock.

    Raises:
        InputError: another process sweeps into the folder, it cannot be written, or it holds a
            sweep already.
    """

    def __init__(
        self, path: Path, runs: Sequence[Planned], suffix: str, resume: bool, command: str
    ) -> None:
        check_output(path / INDEX, overwrite=True)
        try:
            self._lock = locked(path / LOCK)
        except InputError:
            raise InputError(
                f"another sweep writes into {path}: wait for it, or choose another output folder"
            ) from None
        try:
            self.sweep = _begun(path, runs, suffix, resume, command)
            self.write()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def put(self, row: Row) -> None:
        """Replace the row of that name.

        Raises:
            Failure: the index cannot be written.
        """
        self.sweep = self.sweep.with_row(row)
        self.write()

    def write(self) -> None:
        try:
            index.write(self.sweep)
        except OSError as error:
            place = self.sweep.folder / INDEX
            raise Failure(
                f"{place} cannot be written ({error.strerror or error}); finished runs are kept: "
                f"go on with resume=True once there is space"
            ) from error


def _begun(
    path: Path, runs: Sequence[Planned], suffix: str, resume: bool, command: str
) -> Sweep:  # fmt: skip
    """The sweep as it starts: all rows waiting, or with what is done already."""
    fresh = [Row(run.name, run.name + suffix, run.words, run.differs) for run in runs]
    if not (path / INDEX).exists():
        if resume:
            raise InputError(f"{path} holds no sweep to go on with: start with resume=False")
        return Sweep(path, command, tuple(fresh))
    if not resume:
        raise InputError(
            f"{path} holds a sweep: go on with resume=True, or choose another output folder"
        )
    before = index.load(path)
    earlier = {row.name: row for row in before.rows}
    for row in fresh:
        if row.name in earlier and earlier[row.name].words != row.words:
            raise InputError(
                f"run {row.name} of {path} had other settings: rename it, or choose another "
                f"output folder"
            )
    kept = [earlier.pop(row.name, row) for row in fresh]
    rows = [_missing(path, row) for row in kept] + list(earlier.values())
    return Sweep(path, before.command or command, tuple(rows))


def _missing(path: Path, row: Row) -> Row:
    """A row as it is resumed: what is not done, or whose file is gone, waits again."""
    if row.state == "done" and (path / row.file).is_file():
        return row
    return replace(row, state="waiting", error="", seconds=None, sentence="")
