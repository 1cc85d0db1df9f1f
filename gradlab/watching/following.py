"""A run that grows, of which each reading takes the new rows only. Nothing is locked or written.

    journal    the frames behind the last whole one; all of it where another file took its place
    file       again when a fold has replaced it, which happens at sizes that grow geometrically

As in `gradlab.storage.journal`, the journal is read first, so that no row falls between the two.

A writer holds the lock of its journal from its first row to its last. Trying that lock would take
it, for a moment, from a writer that is about to begin. So the system's table of locks is read
(Linux), which disturbs no process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from gradlab.errors import InputError
from gradlab.storage import journal_frames, records
from gradlab.storage.journal import UNREADABLE, journal_of
from gradlab.storage.journal_files import is_held
from gradlab.storage.journal_frames import Frame
from gradlab.storage.journal_tables import merged
from gradlab.storage.records import Record

Writer = Literal["none", "writing", "gone", "closed", "unknown"]
Stamp = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A run at one reading.

    Attributes:
        record: its rows; None where there are none, or none can be read.
        writer: "writing": it holds the journal; "gone": a journal is left that nobody holds;
            "closed": it has folded its journal; "unknown": the system has no table of locks;
            "none": there is no run.
        written: when a row was last written, in seconds of `time.time`; None where never.
        trouble: why nothing can be read, else "".
    """

    record: Record | None
    writer: Writer
    written: float | None
    trouble: str = ""


@final
class Follower:
    """Reader of one run. It keeps the journal open, so that another file is not taken for it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._journal: Any = None
        self._end = 0  # bytes of the journal that were taken
        self._frames: list[Frame] = []
        self._lost = 0  # 1 where a frame behind the last whole one was damaged
        self._base: tuple[Stamp | None, Record] = None, Record({}, {})
        self._snapshot: Snapshot | None = None

    def read(self) -> Snapshot:
        """The present run; the same object where nothing has changed."""
        try:
            fresh = self._take_journal()
            fresh = self._take_file() or fresh
            record, trouble = self._record(fresh), ""
        except InputError as error:
            record, trouble = None, str(error)
        except OSError as error:
            record, trouble = None, f"{self.path} cannot be read ({error.strerror})"
        snapshot = Snapshot(record, self._writer(), self._written(), trouble)
        if self._snapshot is None or vars(snapshot) != vars(self._snapshot):
            self._snapshot = snapshot
        return self._snapshot

    def _record(self, fresh: bool) -> Record | None:
        """The former record, unless something is new or could not be read."""
        if self._snapshot is not None and not fresh and not self._snapshot.trouble:
            return self._snapshot.record
        return self._merged()

    def _take_journal(self) -> bool:
        """Read new whole frames; returns whether anything has changed."""
        place, held = journal_of(self.path), self._journal is not None
        try:
            there = os.stat(place)
        except FileNotFoundError:
            self._drop_journal()
            return held
        same = held and os.path.samestat(os.fstat(self._journal.fileno()), there)
        if not same or there.st_size < self._end:
            same = False
            self._drop_journal()
            self._journal = open(place, "rb", buffering=0)  # noqa: SIM115 (kept open on purpose)
        descriptor = self._journal.fileno()
        size = os.fstat(descriptor).st_size
        data = os.pread(descriptor, size - self._end, self._end) if size > self._end else b""
        frames = list(journal_frames.decode(data))
        self._frames += [frame for _, frame in frames]
        whole, before = (frames[-1][0] if frames else 0), self._lost
        self._end, self._lost = self._end + whole, int(not journal_frames.torn(data[whole:]))
        return bool(frames) or not same or self._lost != before

    def _drop_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
        self._journal, self._end, self._frames, self._lost = None, 0, [], 0

    def _take_file(self) -> bool:
        """Read the folded part where it was replaced; returns whether it was."""
        try:
            status = os.stat(self.path)
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
        except FileNotFoundError:
            stamp = None
        if stamp == self._base[0]:
            return False
        self._base = stamp, Record({}, {}) if stamp is None else records.read(self.path)
        return True

    def _merged(self) -> Record | None:
        stamp, base = self._base
        if not self._frames:
            return None if stamp is None else base
        try:
            return merged(base, self._frames, self.path, self._lost)
        except UNREADABLE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.path} is damaged or foreign ({error})") from error

    def _writer(self) -> Writer:
        if self._journal is None:
            return "none" if self._base[0] is None else "closed"
        held = is_held(os.fstat(self._journal.fileno()).st_ino)
        return "unknown" if held is None else "writing" if held else "gone"

    def _written(self) -> float | None:
        if self._journal is not None:
            return os.fstat(self._journal.fileno()).st_mtime
        stamp = self._base[0]
        return None if stamp is None else stamp[2] / 1e9
