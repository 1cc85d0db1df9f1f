"""Is somebody writing a run? Asked of the system's table of locks, so that no lock is taken.

A writer holds the lock of its journal from its first row to its last. Trying that lock would take
it, for a moment, from a writer that is about to begin. Linux lists all locks: reading it disturbs
nobody.
"""

from __future__ import annotations

from pathlib import Path

LOCKS = Path("/proc/locks")


def locked(inode: int, table: Path = LOCKS) -> bool | None:
    """Does a process hold the lock of the file with this number? None: the system does not say."""
    try:
        lines = table.read_text().splitlines()
    except OSError:
        return None
    return any(_names(line.split(), inode) for line in lines)


def _names(words: list[str], inode: int) -> bool:
    """A line is "7: FLOCK ADVISORY WRITE 617 fe:00:2146306 0 EOF": a number that holds the lock.

    Devices are not compared, since some file systems show another one to their users.
    """
    return "->" not in words and any(word.endswith(f":{inode}") for word in words[1:])
