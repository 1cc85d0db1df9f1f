"""Frames of a journal: bytes with their own length and checksum, so that a torn one is noticed.

    frame = magic, payload length, CRC-32 of the payload, CRC-32 of these three | payload
    payload = header length | header as JSON | arrays, one after another

A torn tail or a flipped byte costs the frames it touches and no other: the next one is found by
its magic. Nothing here knows what the frames are about.

The files of a run that is written: where they are, who holds them, and what stands in them.

NAME.h5.journal    locked by its one writer, as long as the run is written
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.storage.whole_files import real

MAGIC = b"GLJ\x01"
_HEAD = struct.Struct("<4sIII")
LENGTH = struct.Struct("<I")


@dataclass(frozen=True, eq=False)
class Frame:
    """What one frame says: a JSON object and named arrays."""

    header: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def encode(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """One frame. Arrays are numbers or booleans, stored little-endian."""
    stored = {name: np.asarray(values, order="C") for name, values in arrays.items()}
    layout = [[name, each.dtype.str, each.shape] for name, each in stored.items()]
    text = json.dumps({**header, "arrays": layout}, separators=(",", ":")).encode()
    payload = b"".join(
        [LENGTH.pack(len(text)), text, *(each.tobytes() for each in stored.values())]
    )
    head = struct.pack("<4sII", MAGIC, len(payload), zlib.crc32(payload))
    return head + LENGTH.pack(zlib.crc32(head)) + payload


def decode(data: bytes) -> Iterator[tuple[int, Frame]]:
    """Every whole frame in `data`, with the position behind it."""
    at = data.find(MAGIC)
    while at >= 0:
        end, frame = _frame_at(data, at)
        if frame is None:
            at = data.find(MAGIC, at + 1)
            continue
        yield end, frame
        at = data.find(MAGIC, end)


def torn(tail: bytes) -> bool:
    """Is `tail`, behind the last whole frame, no more than the beginning of one?

    Else something that was whole has been damaged.
    """
    if len(tail) < _HEAD.size:
        return MAGIC.startswith(tail[: len(MAGIC)])
    magic, length, _, checksum = _HEAD.unpack_from(tail)
    sound = magic == MAGIC and zlib.crc32(tail[: _HEAD.size - LENGTH.size]) == checksum
    return sound and _HEAD.size + int(length) > len(tail)


def _frame_at(data: bytes, at: int) -> tuple[int, Frame | None]:
    start = at + _HEAD.size
    if start > len(data):
        return at, None
    _, length, check, head_checksum = _HEAD.unpack_from(data, at)
    intact = zlib.crc32(data[at : at + _HEAD.size - LENGTH.size]) == head_checksum
    if not intact or start + length > len(data):
        return at, None
    payload = data[start : start + length]
    if zlib.crc32(payload) != check:
        return at, None
    return start + length, _parsed(payload)


def _parsed(payload: bytes) -> Frame | None:
    """The frame in a payload whose checksum holds; None where a foreign writer made nonsense."""
    try:
        size = LENGTH.unpack_from(payload)[0]
        header = json.loads(payload[LENGTH.size : LENGTH.size + size])
        at, arrays = LENGTH.size + size, {}
        for name, kind, shape in header.pop("arrays"):
            dtype = np.dtype(kind)
            if dtype.kind not in "fiub":
                return None
            count = math.prod(shape)
            if count < 0 or any(each < 0 for each in shape):
                return None
            arrays[str(name)] = np.frombuffer(payload, dtype, count, at).reshape(shape)
            at += count * dtype.itemsize
    except (
        struct.error, ValueError, TypeError, KeyError, AttributeError, OverflowError,
        RecursionError, SyntaxError,
    ):  # fmt: skip
        return None
    return Frame(header, arrays)


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
    frames = list(decode(data))
    tail = data[frames[-1][0] if frames else 0 :]
    return frames, int(not torn(tail))


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
