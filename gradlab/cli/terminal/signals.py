"""Ctrl-C and SIGTERM end a command alike: by KeyboardInterrupt, so that what is worth keeping is
kept and files are left whole; exit codes tell them apart, 130 and 143 (128 + the signal's number).
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def terminable() -> Iterator[list[int]]:
    """SIGTERM raises KeyboardInterrupt inside; yields the list that it is noted in."""
    received: list[int] = []

    def end(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Both wait until the imports inside are done: interrupted C extensions fail strangely."""
    pressed: list[int] = []
    before = [signal.signal(each, lambda number, _: pressed.append(number)) for each in ENDING]
    try:
        yield
    finally:
        for number, handler in zip(ENDING, before, strict=True):
            signal.signal(number, handler)
    if pressed:
        signal.raise_signal(pressed[0])
