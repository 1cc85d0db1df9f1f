"""Frames of a journal: bytes with their own length and checksum, so that a torn one is noticed.

    frame = magic, payload length, CRC-32 of the payload, CRC-32 of these three | payload
    payload = header length | header as JSON | arrays, one after another

A torn tail or a flipped byte costs the frames it touches and no other: the next one is found by
its magic. Nothing here knows what the frames are about.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
