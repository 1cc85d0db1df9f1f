"""HDF5 files from elsewhere, read first by a process that may die of them.

On some damaged or forged files HDF5 crashes or goes round in circles, and nobody can catch that. A
file that this user of this machine has not sealed (`gradlab.seals`) is therefore read once by
`python -m gradlab.trial FILE`, at the price of its start (0.15 s) and of a second reading; where it
dies, the file is refused. Errors that it meets like anybody else are left to the reader after it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from gradlab import seals
from gradlab.errors import Doubtful, InputError

UNSEALED = "{path} has no checksum (an older file, or changed since): damage would go unnoticed"
PATIENCE, SPEED = 60.0, 5e6  # seconds for any file, and bytes a second that a slow disk reads


@contextlib.contextmanager
def tried(path: Path, expected: bool = True) -> Iterator[seals.Origin]:
    """Within, `path` may be opened with HDF5 in this process.

    Warns of a file without a seal once it has been read, where a seal is `expected`.

    Raises:
        InputError: it is not what was written, or its reader died. OSError: it cannot be read.
    """
    origin = seals.origin(path)
    if origin is None:
        raise InputError(f"{path} is damaged (its checksum is wrong): restore it or make it again")
    if origin != "own":
        found = path.stat()
        _survived(path.absolute(), (found.st_ino, found.st_size, found.st_mtime_ns))
    yield origin
    if expected and origin == "unsealed":
        warnings.warn(UNSEALED.format(path=path), Doubtful, stacklevel=3)


@lru_cache(maxsize=1024)
def _survived(path: Path, stamp: tuple[int, int, int]) -> None:
    """Once for each state of a file."""
    words, quiet = [sys.executable, "-m", "gradlab.trial", str(path)], subprocess.DEVNULL
    patience = PATIENCE + stamp[1] / SPEED
    try:
        child = subprocess.run(words, stdin=quiet, stdout=quiet, stderr=quiet, timeout=patience)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path} cannot be read to its end: damaged or forged; drop it") from error
    if child.returncode < 0:
        raise InputError(f"{path} crashes HDF5: damaged or forged; restore it or make it again")


def _read(path: Path) -> None:
    """As `records.read` does, or, where that refuses it, all there is."""
    from gradlab import records

    with contextlib.suppress(InputError):
        records.read_untried(path)
        return
    import h5py

    most = 100 * path.stat().st_size  # bytes of an array: more would be a bomb

    def visit(name: str, found: Any) -> None:
        dict(found.attrs)
        if isinstance(found, h5py.Dataset) and found.size * found.dtype.itemsize <= most:
            found[()]

    with h5py.File(path, "r", locking=False) as file:
        file.visititems(visit)


if __name__ == "__main__":
    with contextlib.suppress(Exception):
        _read(Path(sys.argv[1]))
