"""Connections that are served at a time: at the limit, a new one replaces an idle one.

    asking      its request has not arrived whole: gives way to the next, the oldest first
    answered    gives way after `AT_LEAST` seconds, when nobody is asking: it does not read

A browser's request arrives whole in a millisecond, so that connections which drip their bytes,
however many, cost it nothing; a limit per address would not tell them apart on one machine.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import final

AT_LEAST = 2.0  # seconds that an answer may take while others wait


@final
class Places:
    """The connections that are open, at most `most`."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._asking: dict[socket.socket, None] = {}  # in the order of their arrival
        self._answered: dict[socket.socket, float] = {}
        self._lock = threading.Lock()

    def enter(self, one: socket.socket) -> bool:
        """Is there a place, or one to be had?"""
        with self._lock:
            if len(self._asking) + len(self._answered) >= self._most:
                last = self._giving_way()
                if last is None:
                    return False
                self._forget(last)
                cut(last)
            self._asking[one] = None
            return True

    def answer(self, one: socket.socket) -> None:
        """Its request is there."""
        with self._lock:
            if one in self._asking:
                del self._asking[one]
                self._answered[one] = self._clock()

    def leave(self, one: socket.socket) -> None:
        """It has ended."""
        with self._lock:
            self._forget(one)

    def _giving_way(self) -> socket.socket | None:
        if self._asking:
            return next(iter(self._asking))
        one, since = next(iter(self._answered.items()))
        return one if self._clock() - since >= AT_LEAST else None

    def _forget(self, one: socket.socket) -> None:
        self._asking.pop(one, None)
        self._answered.pop(one, None)


def cut(one: socket.socket) -> None:
    """End a connection whose thread may be waiting on it."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
