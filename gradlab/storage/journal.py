"""A run while it is being written: a journal beside its HDF5 file, folded into it at its close.

    NAME.h5            everything folded so far, complete or absent (`gradlab.storage.records`)
    NAME.h5.journal    frames appended since, one `write` each

An acknowledged row survives a kill at any moment, a full disk and live readers: the HDF5 file is
never changed in place but replaced, a frame is whole or ignored, and the journal goes only after
the file that holds its rows is on disk. What a killed writer left is folded by the next one. An id
ties the two. Readers take the journal first, then the file, so that no row can fall between; a row
found twice counts once, by its sequence number.
About once a second the journal is forced to disk against power loss.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gradlab.errors import Doubtful, Failure, InputError
from gradlab.storage import journal_frames, records
from gradlab.storage.journal_tables import RUN, Table, check_tables, merged, plain, tables_of
from gradlab.storage.records import Attribute, Record
from gradlab.storage.whole_files import frames_at, is_at, journal_of, locked, real, sweep, write_all

__all__ = ["Journal", "discard", "journal_of", "kind", "read"]

_SPACE = 3  # times the size of file and journal that must be free to fold
SYNC = 1.0  # seconds between forced writes
# What a foreign file can raise where its content is taken apart.
_UNREADABLE = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, MemoryError,
    RecursionError,
)  # fmt: skip


@final
class Journal:
    """The one writer of a run. Use as a context manager: leaving it folds and closes.

    Raises:
        InputError: another process writes this run, or it has other tables.
    """

    def __init__(
        self, path: str | Path, tables: Mapping[str, Table], attributes: Mapping[str, Attribute]
    ) -> None:
        self.path = real(Path(path)).absolute()
        self.tables = dict(tables)
        self.attributes = dict(attributes)
        self._synced = time.monotonic()
        self._gone = ""  # why nothing more can be written
        records.check_output(self.path, overwrite=True)
        self._file = locked(journal_of(self.path))
        try:
            sweep(self.path)
            self._begin()
        except BaseException:
            self._file.close()  # and with it the lock
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, table: str, row: Mapping[str, Any]) -> None:
        """Store one row; once this returns, no kill can lose it.

        Raises:
            InputError: an unknown table or column, a row without its number, or values of another
                shape than their column's: stored, they would make the whole run unreadable.
            Failure: the disk is full, and the row is not stored, everything before it is; or the
                journal was removed.
        """
        layout = self.tables.get(table)
        if layout is None:
            raise InputError(f"table is {table!r}, expected one of {', '.join(self.tables)}")
        extra = set(row) - {layout.index, *layout.columns}
        if extra or layout.index not in row:
            raise InputError(f"a row of {table!r} needs {layout.index!r} and has {sorted(extra)}")
        text = {
            name: str(row[name])
            for name in row
            if name != layout.index and layout.columns[name].text
        }
        numbers = {name: np.asarray(row[name]) for name in row if name not in text}
        for name, values in numbers.items():
            if values.ndim and not layout.takes(name, values.shape):
                raise InputError(f"{name!r} of {table!r} has shape {values.shape}: check the row")
        self._write({"kind": "row", "table": table, "text": text}, numbers)
        now = time.monotonic()
        if now - self._synced >= SYNC:
            self._sync()
            self._synced = now

    def close(self) -> None:
        """Fold what is left. Where that cannot be done the journal stays, readable.

        Raises:
            Failure: the journal was removed, or cannot be forced to disk.
        """
        if self._file.closed:
            return
        try:
            if not self._gone:
                self._check_there()
                self._sync()
                with contextlib.suppress(Exception):  # whatever it is: the journal stays, readable
                    fold(self.path)
                    journal_of(self.path).unlink()
                sweep(self.path)
        finally:
            self._file.close()

    def _begin(self) -> None:
        """Fold what an earlier writer left, and go on behind it in an empty journal."""
        try:
            if any(frames_at(journal_of(self.path))):
                fold(self.path)
            base = records.attributes(self.path) if self.path.is_file() else {}
            if base:
                check_tables(tables_of(base), self.tables, self.path)
            self.attributes[RUN] = str(base.get(RUN, secrets.token_hex(8)))
            self._sequence = int(base.get("folded", 0))
        except InputError:
            raise
        except _UNREADABLE as error:
            raise _damaged(self.path, error) from error
        self._file.truncate(0)
        tables = {name: plain(table) for name, table in self.tables.items()}
        self._write({"kind": "open", "tables": tables, "attributes": self.attributes}, {})

    def _write(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        self._check_there()
        descriptor, before = self._file.fileno(), os.fstat(self._file.fileno()).st_size
        # Counted before it is written: an interrupt must not give two frames one number.
        self._sequence += 1
        frame = journal_frames.encode({"n": self._sequence, **header}, arrays)
        try:
            write_all(descriptor, frame, self.path)
        except OSError as error:
            self._sequence -= 1
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, before)
            message = f"{self.path}: a row could not be stored ({error}), all before it are"
            raise Failure(f"{message}: free space, then resume") from error

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            reason = f"{self.path}: rows could not be forced to disk ({error})"
            raise Failure(f"{reason}: free space, then resume") from error

    def _check_there(self) -> None:
        """Rows must not go into a file that nobody finds: removed, or moved with its folder."""
        if not self._gone and not is_at(self._file, journal_of(self.path)):
            self._gone = (
                f"{journal_of(self.path)} was moved or removed by others: move it back and resume, "
                f"or start again"
            )
        if self._gone:
            raise Failure(self._gone)


def read(path: str | Path) -> Record:
    """The run at `path` as it stands: file and journal together, also while it is being written;
    of a run that was written whole its file.

    The attribute "damaged_frames" counts frames that are missing, if any are; a warning says so.

    Raises:
        InputError: there is no such run, it is damaged beyond reading, or its file and its journal
            are of two runs.
    """
    run = _whole(Path(path))
    missing = run.attributes.get("damaged_frames")
    if missing:
        message = f"{path}: damaged in {missing} of its frames, whose rows are missing"
        warnings.warn(message, Doubtful, stacklevel=2)
    return run


def _whole(path: Path) -> Record:
    frames, lost = frames_at(journal_of(path))
    if path.is_file():
        base = records.read(path)
    elif frames:
        base = Record({}, {})
    elif lost:
        raise InputError(f"{journal_of(path)} holds no whole frame: damaged or foreign")
    else:
        raise InputError(f"{path}: no such file; check the path")
    if not frames and not lost and "tables" not in base.attributes:
        return base  # a run that was written whole
    try:
        return merged(base, [frame for _, frame in frames], path, lost)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def kind(path: str | Path) -> str:
    """What the run at `path` is of, finished or being written, without its rows.

    Raises:
        InputError: there is no such run, or it cannot be read at all.
    """
    path = Path(path)
    frames = [] if path.is_file() else frames_at(journal_of(path))[0]
    for header in (frame.header for _, frame in frames):
        if header.get("kind") == "open" and isinstance(named := header.get("attributes"), dict):
            return str(named.get("kind"))
    return str(records.attributes(path).get("kind"))


def discard(path: str | Path) -> None:
    """Remove the run at `path`, journal and file.

    Raises:
        InputError: it is being written.
    """
    path = real(Path(path))
    place = journal_of(path)
    if place.exists():
        with locked(place):
            place.unlink()
    path.unlink(missing_ok=True)


def fold(path: Path) -> None:
    """Put the frames of the journal into the HDF5 file; whoever folds holds the journal's lock.

    Raises:
        InputError: as `read`. Failure: the disk is full, or fails; file and journal stay.
    """
    place = journal_of(path)
    size = sum(each.stat().st_size for each in (path, place) if each.is_file())
    if shutil.disk_usage(path.parent).free < _SPACE * size:
        raise Failure(f"{path}: the disk is too full to fold its journal: free space, then resume")
    records.write(path, _whole(path), overwrite=True)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged or foreign ({error}): make the run again")
