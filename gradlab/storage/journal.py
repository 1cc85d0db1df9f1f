"""A run while it is being written: a journal beside its HDF5 file, folded into it now and then.

    NAME.h5            everything folded so far, complete or absent (`gradlab.storage.records`)
    NAME.h5.journal    frames appended since, one `write` each

An acknowledged row survives a kill at any moment, a full disk, live readers and a deleted folder:
the HDF5 file is never changed in place but replaced, a frame is whole or ignored, and the journal
is shortened only after the file that holds its rows is on disk. An id ties the two. Readers take
the journal first, then the file, so that no row can fall between; a row found twice counts once, by
its sequence number. Folding happens in a child process, the only one of a short run in its own, and
only with three times the space free.
About once a second the journal is forced to disk against power loss.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gradlab.errors import Doubtful, Failure, InputError
from gradlab.machine import python_module
from gradlab.storage import journal_frames, records
from gradlab.storage.journal_files import (
    alone_in,
    frames_at,
    is_at,
    journal_of,
    last_sequence,
    locked,
    shorter,
    size_of,
    write_all,
)
from gradlab.storage.journal_frames import Frame
from gradlab.storage.journal_tables import (
    OLDER,
    RUN,
    Table,
    folded_tables,
    joined,
    merged,
    opened_tables,
    plain,
    run_of,
)
from gradlab.storage.records import Attribute, Record
from gradlab.storage.whole_files import elsewhere, real, sweep

__all__ = ["UNREADABLE", "Journal", "discard", "fold", "journal_of", "kind", "read"]

SMALLEST = 1 << 18  # bytes of journal below which nothing is folded
SHARE = 0.25  # of the file's size, above which the journal is folded
_SPACE = 3  # times the size of file and journal that must be free
SYNC = 1.0  # seconds between forced writes
# What a foreign file can raise where its content is taken apart.
UNREADABLE = (
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
        self._child: subprocess.Popen[bytes] | None = None
        self._folding = 0  # bytes of the journal that the child folds
        self._through = 0  # number of the last frame that it folds
        self._give_up_below = 0  # bytes below which folding failed
        self._synced = time.monotonic()
        self._folded: Any = None  # what is folded so far, open
        self._gone = ""  # why nothing more can be written
        records.check_output(self.path, overwrite=True)
        self._file = locked(journal_of(self.path))
        try:
            self._sweep()
            self._continue(*frames_at(journal_of(self.path)))
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
            Failure: the disk is full, or the journal was removed: the row is not stored, everything
                before it is, in the second case elsewhere.
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
        # It is forced to disk and folded when it is time.
        now = time.monotonic()
        if now - self._synced < SYNC:
            return
        self._sync()
        self._synced = now
        if self._child is not None and self._child.poll() is not None:
            self._finish_fold()
        size = os.fstat(self._file.fileno()).st_size
        due = max(SMALLEST, SHARE * size_of(self.path), self._give_up_below)
        if self._child is None and size > due:
            self._start_fold()

    def close(self) -> None:
        """Fold what is left. Where that cannot be done the journal stays, readable.

        Raises:
            Failure: the journal was removed, its rows are kept elsewhere; or it cannot be forced
                to disk.
        """
        if self._file.closed:
            return
        try:
            if not self._gone:
                self._check_there()
                if self._child is not None:
                    self._child.wait()
                    self._finish_fold()
                self._sync()
                if self._folds_the_rest():
                    journal_of(self.path).unlink(missing_ok=True)
                self._sweep()
        finally:
            self._file.close()
            if self._folded is not None:
                self._folded.close()

    def _folds_the_rest(self) -> bool:
        """Everything into the file; a short run here, since a process takes longer to begin."""
        size = os.fstat(self._file.fileno()).st_size
        if size + size_of(self.path) > SMALLEST:
            return self._start_fold() and self._child_folded()
        try:
            if not self._room(size):
                return False
            fold(self.path, self._sequence)
        except Exception:  # as in the process: the journal stays, readable
            return False
        return True

    def _opening(self) -> dict[str, Any]:
        tables = {name: plain(table) for name, table in self.tables.items()}
        header = {"kind": "open", "tables": tables, "attributes": self.attributes}
        return header | ({OLDER: True} if self._older else {})

    def _continue(self, before: Sequence[tuple[int, Frame]], lost: int) -> None:
        """Go on behind the frames that are there; what is lost keeps its number."""
        base = records.attributes(self.path) if self.path.is_file() else {}
        try:
            run = run_of(base, [frame for _, frame in before], self.path)
            self._sequence = max(last_sequence(before), int(base.get("folded", 0))) + lost
        except InputError:
            raise
        except UNREADABLE as error:
            raise _damaged(self.path, error) from error
        self.attributes[RUN] = run or secrets.token_hex(8)
        self._older = bool(base) and RUN not in base
        # A torn tail is cut off; a run that has other tables is refused.
        try:
            kept = [frame for _, frame in before if frame.header.get("kind") == "open"]
            earlier = [folded_tables(base), *(opened_tables(frame) for frame in kept)]
        except UNREADABLE as error:
            raise _damaged(self.path, error) from error
        for tables in earlier:
            joined(tables, self.tables, self.path)
            if missing := sorted(tables.keys() - self.tables.keys()):
                raise InputError(
                    f"{self.path} has other tables ({', '.join(missing)}): choose another output"
                )
        self._file.truncate(before[-1][0] if before else 0)
        self._hold_folded()
        self._write(self._opening(), {})

    def _write(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        self._check_there()
        descriptor, before = self._file.fileno(), os.fstat(self._file.fileno()).st_size
        frame = self._next_frame(header, arrays)
        try:
            write_all(descriptor, frame, self.path)
        except OSError as error:
            self._sequence -= 1
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, before)
            message = f"{self.path}: a row could not be stored ({error}), all before it are"
            raise Failure(f"{message}: free space, then resume") from error

    def _next_frame(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
        # Counted before it is written: an interrupt must not give two frames one number.
        self._sequence += 1
        return journal_frames.encode({"n": self._sequence, **header}, arrays)

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            reason = f"{self.path}: rows could not be forced to disk ({error})"
            raise Failure(f"{reason}: free space, then resume") from error

    def _check_there(self) -> None:
        """Rows must not go into a file that nobody finds: removed, or moved with its folder."""
        if not self._gone and not is_at(self._file, journal_of(self.path)):
            left = os.fstat(self._file.fileno()).st_nlink
            kept = "rows so far are where it was moved" if left else self._rescued()
            self._gone = f"{journal_of(self.path)} was removed or replaced by others; {kept}"
        if self._gone:
            raise Failure(self._gone)

    def _rescued(self) -> str:
        """The rows of files that have no name any more, written elsewhere."""
        size = os.fstat(self._file.fileno()).st_size
        frames = os.pread(self._file.fileno(), size, 0)
        kept = {journal_of(self.path): lambda place: place.write_bytes(frames)}
        if self._folded is not None and not self.path.exists():
            self._folded.seek(0)
            folded = self._folded.read()
            kept[self.path] = lambda place: place.write_bytes(folded)
        folder = elsewhere(kept)
        return f"rows so far are kept in {folder}" if folder else "no other folder takes its rows"

    def _hold_folded(self) -> None:
        """The file is kept open, so that it can be rescued where its name is removed."""
        if self._folded is not None:
            self._folded.close()
        self._folded = open(self.path, "rb") if self.path.is_file() else None  # noqa: SIM115

    def _sweep(self) -> None:
        """What killed folds have left; `_shortened` writes under this run's own lock."""
        sweep(self.path)
        shorter(journal_of(self.path)).unlink(missing_ok=True)

    def _room(self, journal: int) -> bool:
        needed = _SPACE * (journal + size_of(self.path))
        return shutil.disk_usage(self.path.parent).free >= needed

    def _start_fold(self) -> bool:
        size = os.fstat(self._file.fileno()).st_size
        if not self._room(size):
            self._give_up_below = 2 * size
            return False
        command = python_module("gradlab.storage.journal", str(self.path), str(self._sequence))
        quiet = subprocess.DEVNULL
        try:
            # A session of its own: Ctrl-C in the terminal must not end the fold half-way.
            self._child = subprocess.Popen(
                command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
            )
        except OSError:  # no memory for a process: the journal waits
            self._give_up_below = 2 * size
            return False
        self._folding, self._through = size, self._sequence
        return True

    def _child_folded(self) -> bool:
        """Does the file hold all that the child was to fold? What it returns is no proof of it."""
        assert self._child is not None
        if self._child.wait() != 0:
            return False
        try:
            return int(records.attributes(self.path).get("folded", 0)) >= self._through
        except (OSError, InputError, *UNREADABLE):
            return False

    def _finish_fold(self) -> None:
        """Drop what the child has folded; where it failed, try again at twice the size."""
        assert self._child is not None
        failed, self._child = not self._child_folded(), None
        if failed:
            self._give_up_below = 2 * self._folding
            return
        try:
            fresh = self._shortened()
        except OSError:
            self._give_up_below = 2 * self._folding
            return
        self._give_up_below = 0
        self._file.close()
        self._file = fresh
        self._hold_folded()

    def _shortened(self) -> Any:
        """A journal of what has not been folded, locked, on disk and in its place."""
        place = journal_of(self.path)
        rest = place.read_bytes()[self._folding :]
        temporary = shorter(place)
        temporary.unlink(missing_ok=True)
        fresh = open(temporary, "ab+", buffering=0)  # noqa: SIM115 (it outlives this function)
        try:
            fcntl.flock(fresh, fcntl.LOCK_EX | fcntl.LOCK_NB)
            write_all(fresh.fileno(), self._next_frame(self._opening(), {}) + rest, place)
            os.fsync(fresh.fileno())
            os.replace(temporary, place)
        except BaseException:
            # A frame that stays in no journal leaves no gap: its number is the last one given.
            self._sequence -= 1
            fresh.close()
            temporary.unlink(missing_ok=True)
            raise
        return fresh


def read(path: str | Path) -> Record:
    """The run at `path` as it stands: file and journal together, also while it is being written.

    The attribute "damaged_frames" counts frames that are missing, if any are; a warning says so.

    Raises:
        InputError: there is no such run, it is damaged beyond reading, or its file and its journal
            are of two runs.
    """
    path = Path(path)
    frames, lost = frames_at(journal_of(path))
    if path.is_file():
        base = records.read(path)
    elif frames:
        base = Record({}, {})
    elif lost:
        raise InputError(f"{journal_of(path)} holds no whole frame: damaged or foreign")
    else:
        raise InputError(f"{path}: no such run; check the path")
    try:
        run = merged(base, [frame for _, frame in frames], path, lost)
    except InputError:
        raise
    except UNREADABLE as error:
        raise _damaged(path, error) from error
    missing = run.attributes.get("damaged_frames")
    if missing:
        message = f"{path}: damaged in {missing} of its frames, whose rows are missing"
        warnings.warn(message, Doubtful, stacklevel=2)
    return run


def kind(path: str | Path) -> str:
    """What the run at `path` is of, finished or being written, without its rows.

    Raises:
        InputError: there is no such run, or it cannot be read at all.
    """
    path = Path(path)
    opened = _opened_as(journal_of(path))
    if path.is_file() or opened is None:
        return str(records.attributes(path).get("kind"))
    return opened


def _opened_as(place: Path) -> str | None:
    """The kind that the first frame of a journal names; None without one."""
    try:
        frames = journal_frames.decode(place.read_bytes())
    except FileNotFoundError:
        return None
    headers = (frame.header for _, frame in frames)
    first = next((each for each in headers if each.get("kind") == "open"), {})
    named = first.get("attributes")
    return str(named.get("kind")) if isinstance(named, dict) else None


def discard(path: str | Path) -> None:
    """Remove the run at `path`, journal and file.

    Raises:
        InputError: it is being written.
    """
    path = real(Path(path))
    place = journal_of(path)
    with alone_in(place.parent):  # a fold that outlived its writer would put the file back
        if place.exists():
            with locked(place):
                place.unlink()
        path.unlink(missing_ok=True)


def fold(path: str | Path, last: int) -> None:
    """Put the frames up to number `last` of the journal into the HDF5 file.

    One fold at a time in a folder, and by numbers: one that outlived its writer must neither put an
    older file in the place of a newer one, nor take a part of a journal that was shortened since.
    """
    path = real(Path(path))
    with alone_in(path.parent):
        whole, _ = frames_at(journal_of(path))
        frames = [frame for _, frame in whole if int(frame.header.get("n", 0)) <= last]
        base = records.read(path) if path.is_file() else Record({}, {})
        records.write(path, merged(base, frames, path), overwrite=True)


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is damaged or foreign ({error}): make the run again")


if __name__ == "__main__":
    fold(sys.argv[1], int(sys.argv[2]))
