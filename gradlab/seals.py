"""Seals: 32 bytes behind the content of a finished file, by which damage to it is noticed.

    seal = magic | CRC-32 of the content | its length | mark

HDF5 reads no further than its own end, and cuts off what stands there when it opens a file for
changing: a damaged file has a wrong seal, a file changed since has none. A CRC finds every flip and
every burst of 32 bits at the price of reading the file once; forgers it does not stop. The mark, a
keyed hash of the rest, says that this user of this machine wrote the file: others, which may be
forged, are read in a child process first (`gradlab.trial`).
"""

from __future__ import annotations

import hashlib
import os
import struct
import uuid
import zlib
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Literal

MAGIC = b"\x89GLSEAL\n"
SEALED = struct.Struct("<8sIQ")
MARK = 12  # bytes
SIZE = SEALED.size + MARK
BLOCK = 1 << 18

Origin = Literal["own", "foreign", "unsealed"]


def seal(content: bytes) -> bytes:
    """What belongs behind `content`."""
    told = SEALED.pack(MAGIC, zlib.crc32(content), len(content))
    return told + _mark(told)


def origin(path: Path) -> Origin | None:
    """Where the file is from, by its seal; None where the seal is not that of its content."""
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END) - SIZE
        file.seek(max(size, 0))
        found = file.read(SIZE)
        if len(found) < SIZE or not found.startswith(MAGIC):
            return "unsealed"
        told, mark = found[: SEALED.size], found[SEALED.size :]
        _, check, length = SEALED.unpack(told)
        file.seek(0)
        if length != size or _crc(file, size) != check:
            return None
    return "own" if mark == _mark(told) else "foreign"


def _crc(file: FileIO, size: int) -> int:
    """Of the next `size` bytes."""
    check, block = 0, memoryview(bytearray(BLOCK))
    while size > 0 and (got := file.readinto(block[: min(size, BLOCK)])):
        check, size = zlib.crc32(block[:got], check), size - got
    return check


def _mark(told: bytes) -> bytes:
    return hashlib.blake2b(told, digest_size=MARK, key=_own_key()).digest()


@cache
def _own_key() -> bytes:
    """Of this user on this machine; it stands in no file."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    told = f"gradlab {os.getuid()} {machine or uuid.getnode()}"
    return hashlib.blake2b(told.encode(), digest_size=32).digest()
