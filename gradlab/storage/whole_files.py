"""Files that are there whole or not at all: written beside their place, and moved there.

A link stays a link: what is written is the file that it leads to. A killed writer leaves its
temporary file behind; the next one removes those that nobody holds a lock on.

JSON on disk with a checksum of its content: files between two runs of one command.

Finished work is saved elsewhere where its own place can no longer be written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gradlab.errors import Doubtful, Failure, InputError
from gradlab.storage.untrusted import UNSEALED

Save = Callable[[Path], object]
_REFUSED = (OSError, InputError, Failure)


def keep(parts: Mapping[Path, Save]) -> None:
    """Every part at its place; where one of them cannot be, all in a folder of their own.

    Raises:
        Failure: says why and in which folder.
    """
    try:
        for path, save in parts.items():
            save(path)
    except _REFUSED as error:
        folder = elsewhere(parts)
        kept = "no other folder takes it" if folder is None else f"kept in {folder}: move it"
        reason = str(error)
        if isinstance(error, OSError):
            reason = f"{path} cannot be written ({error.strerror or error})"
        raise Failure(f"{reason}; what was finished is {kept}") from error


def elsewhere(parts: Mapping[Path, Save]) -> Path | None:
    """A new folder that holds all parts under their names; None where no place takes them."""
    for place in (tempfile.gettempdir, Path.cwd, Path.home):
        with suppress(*_REFUSED, RuntimeError):
            folder = Path(tempfile.mkdtemp(prefix="gradlab-", dir=place()))
            for path, save in parts.items():
                save(folder / path.name)
            return folder
    return None


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
    """Raises InputError: what stands at `path` is no file: a device would be replaced for
    everybody.
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


_KEY = "checksum"


def write(path: Path, content: Mapping[str, Any]) -> None:
    """In one step. Raises OSError."""
    with placed(path) as temporary:
        temporary.write_text(json.dumps({**content, _KEY: checksum(content)}))


def read(path: Path) -> dict[str, Any]:
    """What `write` was given; warns where there is no checksum.

    Raises:
        OSError, ValueError: it cannot be read, is not JSON, or has a wrong checksum.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object")
    stated = content.pop(_KEY, None)
    if stated is None:
        warnings.warn(UNSEALED.format(path=path), Doubtful, stacklevel=2)
    elif stated != checksum(content):
        raise ValueError(f"{path} has a wrong checksum")
    return content


def checksum(content: Mapping[str, Any]) -> str:
    """CRC-32 of the content as JSON gives it back: keys as texts, tuples as lists."""
    again = json.loads(json.dumps(content))
    return f"{zlib.crc32(json.dumps(again, sort_keys=True).encode()):08x}"
