"""A run that grows, read again and again at the price of what is new. Nothing is locked or written.

    journal    the frames behind the last whole one; all of it where another file took its place
    file       again when a fold has replaced it, which happens at sizes that grow geometrically

As in `gradlab.storage.journal`, the journal is taken first, so that no row falls between the two.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from gradlab.errors import InputError
from gradlab.storage import journal_frames, records
from gradlab.storage.journal import UNREADABLE, journal_of
from gradlab.storage.journal_frames import Frame
from gradlab.storage.journal_tables import merged
from gradlab.storage.records import Record
from gradlab.watching.writers import locked

Writer = Literal["none", "writing", "gone", "closed", "unknown"]
Stamp = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Sight:
    """A run as it stands.

    Attributes:
        record: its rows; None where there are none, or none can be read.
        writer: "writing": it holds the journal; "gone": a journal is left that nobody holds;
            "closed": it has folded its journal and left; "unknown": the system does not tell;
            "none": nothing is there.
        written: when a row was last written, in seconds of `time.time`; None where never.
        trouble: why nothing can be read, else "".
    """

    record: Record | None
    writer: Writer
    written: float | None
    trouble: str = ""


@final
class Follower:
    """Looks at one run. Keeps its journal open, so that another file cannot pass for it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._journal: Any = None
        self._end = 0  # bytes of the journal that were taken
        self._frames: list[Frame] = []
        self._lost = 0  # 1 where a frame behind the last whole one was damaged
        self._base: tuple[Stamp | None, Record] = None, Record({}, {})
        self._sight: Sight | None = None

    def look(self) -> Sight:
        """The run as it stands; the same object where nothing has changed."""
        try:
            fresh = self._take_journal()
            fresh = self._take_file() or fresh
            record, trouble = self._record(fresh), ""
        except InputError as error:
            record, trouble = None, str(error)
        except OSError as error:
            record, trouble = None, f"{self.path} cannot be read ({error.strerror})"
        sight = Sight(record, self._writer(), self._written(), trouble)
        if self._sight is None or vars(sight) != vars(self._sight):
            self._sight = sight
        return self._sight

    def _record(self, fresh: bool) -> Record | None:
        """What was there, unless something is new or could not be read."""
        if self._sight is not None and not fresh and not self._sight.trouble:
            return self._sight.record
        return self._merged()

    def _take_journal(self) -> bool:
        """Whole frames that were not there; says whether anything has changed."""
        place, had = journal_of(self.path), self._journal is not None
        try:
            there = os.stat(place)
        except FileNotFoundError:
            self._drop_journal()
            return had
        same = had and os.path.samestat(os.fstat(self._journal.fileno()), there)
        if not same or there.st_size < self._end:
            same = False
            self._drop_journal()
            self._journal = open(place, "rb", buffering=0)  # noqa: SIM115 (kept open on purpose)
        descriptor = self._journal.fileno()
        size = os.fstat(descriptor).st_size
        data = os.pread(descriptor, size - self._end, self._end) if size > self._end else b""
        found = list(journal_frames.decode(data))
        self._frames += [frame for _, frame in found]
        whole, before = (found[-1][0] if found else 0), self._lost
        self._end, self._lost = self._end + whole, int(not journal_frames.torn(data[whole:]))
        return bool(found) or not same or self._lost != before

    def _drop_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
        self._journal, self._end, self._frames, self._lost = None, 0, [], 0

    def _take_file(self) -> bool:
        """The folded part, where it was replaced."""
        try:
            found = os.stat(self.path)
            stamp = (found.st_ino, found.st_size, found.st_mtime_ns)
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
        held = locked(os.fstat(self._journal.fileno()).st_ino)
        return "unknown" if held is None else "writing" if held else "gone"

    def _written(self) -> float | None:
        if self._journal is not None:
            return os.fstat(self._journal.fileno()).st_mtime
        stamp = self._base[0]
        return None if stamp is None else stamp[2] / 1e9
