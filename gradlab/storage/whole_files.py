"""Files that are there whole or not at all: written beside their place, and moved there.

A link stays a link: what is written is the file that it leads to. A killed writer leaves its
temporary file behind; the next one removes those that nobody holds a lock on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from gradlab.errors import InputError


@contextlib.contextmanager
def placed(path: Path) -> Iterator[Path]:
    """A name to write to, moved to `path` once its content is on disk, removed on failure."""
    path = real(path)
    check_plain(path)
    sweep(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    held = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        _lock(held)
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(held)


def sweep(path: Path) -> None:
    """Remove what killed writers of `path` have left; what is being written stays."""
    ours = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}\.tmp")
    with contextlib.suppress(OSError):
        for name in filter(ours.fullmatch, os.listdir(path.parent)):
            with contextlib.suppress(OSError), open(path.with_name(name), "rb") as file:
                if _lock(file.fileno()):
                    os.unlink(file.name)


def check_plain(path: Path) -> None:
    """
    Raises:
        InputError: what stands at `path` is no file: a device would be replaced for everybody.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a folder, device or pipe: name a file")


def real(path: Path) -> Path:
    """The file itself where `path` is a symbolic link, so that it has one place under any name."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def sync(path: Path) -> None:
    """Force a file, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Whether nobody else holds it; False also where the file system knows no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
