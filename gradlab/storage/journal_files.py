"""The files of a run that is written: where they are, who holds them, and what stands in them.

NAME.h5.journal    locked by its one writer, as long as the run is written
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

from gradlab.errors import InputError
from gradlab.storage import journal_frames
from gradlab.storage.journal_frames import Frame
from gradlab.storage.whole_files import real

_LOCKS = Path("/proc/locks")


def journal_of(path: str | Path) -> Path:
    """Beside the file itself where `path` is a link: one run has one writer under any name."""
    path = real(Path(path))
    return path.with_name(path.name + ".journal")


def frames_at(place: Path) -> tuple[list[tuple[int, Frame]], int]:
    """The whole frames, and whether behind the last one a frame was damaged: 0 or 1."""
    try:
        data = place.read_bytes()
    except FileNotFoundError:
        return [], 0
    frames = list(journal_frames.decode(data))
    tail = data[frames[-1][0] if frames else 0 :]
    return frames, int(not journal_frames.torn(tail))


def locked(place: Path) -> Any:
    while True:
        file = open(place, "ab+", buffering=0)  # noqa: SIM115 (held as long as the run is written)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise InputError(f"{place} is being written by another process: wait for it") from error
        # Between the two its writer may have closed the run, and removed it.
        if is_at(file, place):
            return file
        file.close()


def is_at(file: Any, place: Path) -> bool:
    """Is the open `file` the one that is found at `place`?"""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(place))
    except PermissionError:  # of its folder: nobody knows
        return True
    except OSError:
        return False


def write_all(descriptor: int, data: bytes, place: Path) -> None:
    if os.write(descriptor, data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))


def is_held(inode: int) -> bool | None:
    """Whether a process holds the lock of the file `inode`; None: the system has no such table."""
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    # A line is "7: FLOCK ADVISORY WRITE 617 fe:00:2146306 0 EOF", with "->" of a process that
    # waits. Devices are not compared, since some file systems show another one to their users.
    held = [words[1:] for line in lines if "->" not in (words := line.split())]
    return any(word.endswith(f":{inode}") for words in held for word in words)


def abandoned(path: str | Path) -> bool:
    """Whether a journal is left at `path` that no process writes: its run was never closed. False
    where the system has no table of locks."""
    try:
        inode = os.stat(journal_of(path)).st_ino
    except OSError:
        return False
    return is_held(inode) is False
