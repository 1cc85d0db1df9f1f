"""Ctrl-C and SIGTERM, which both end a command by KeyboardInterrupt.

Finished work is saved and no file is left half-written. Exit codes are 130 and 143 (128 + the
signal's number).
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def terminable() -> Iterator[list[int]]:
    """Inside, SIGTERM raises KeyboardInterrupt; yields the list of received signals."""
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
    """Inside, both signals wait: C extensions that are interrupted while imported fail
    strangely."""
    pressed: list[int] = []
    before = [signal.signal(each, lambda number, _: pressed.append(number)) for each in ENDING]
    try:
        yield
    finally:
        for number, handler in zip(ENDING, before, strict=True):
            signal.signal(number, handler)
    if pressed:
        signal.raise_signal(pressed[0])
