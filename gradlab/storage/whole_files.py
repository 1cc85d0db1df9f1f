"""Files that are there whole or not at all: written beside their place, and moved there.

A link stays a link: what is written is the file that it leads to. A killed writer leaves its
temporary file behind; the next one removes those that nobody holds a lock on.

JSON on disk with a checksum of its content: files between two runs of one command.

Finished work is saved elsewhere where its own place can no longer be written.

The files of a run that is written: where they are, who holds them, and what stands in them.

NAME.h5.journal    locked by its one writer, as long as the run is written
"""

from __future__ import annotations

import contextlib
import errno
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
from gradlab.storage import journal_frames
from gradlab.storage.journal_frames import Frame
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


def _is_held(inode: int) -> bool | None:
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
    return _is_held(inode) is False
