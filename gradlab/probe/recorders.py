"""Numbers of the loop's own: what it notes, and returns that its wrappers have recorded.

Gymnasium's `RecordEpisodeStatistics` keeps the newest returns; nothing is wrapped, nothing called.
"""

from __future__ import annotations

import gc
import sys
import time
import weakref
from collections.abc import Iterator
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

_NOTED = ("critic_loss", "episode_return")
RETURN, LOSS = "episode_return", "critic_loss"


@final
class Notes:
    """Numbers by name since the last row."""

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[int, int, Any]]] = {name: [] for name in _NOTED}

    def take(self, name: str, value: Any, update: int, step: int) -> None:
        """One more number, or several; a tensor is not waited for until a row is due."""
        held = value.detach() if isinstance(value, Tensor) else np.asarray(value, dtype=float)
        self._kept[name].append((update, step, held))

    def row(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Means of what is finite, of those that were noted, and a row of every episode; begins the
        next window."""
        taken = {
            name: [
                (update, step, float(value))
                for update, step, held in kept
                for value in np.ravel(held.cpu().numpy() if isinstance(held, Tensor) else held)
            ]
            for name, kept in self._kept.items()
            if kept
        }
        for kept in self._kept.values():
            kept.clear()
        means: dict[str, float] = {}
        for name, each in taken.items():
            finite = [value for *_, value in each if np.isfinite(value)]
            means[name] = float(np.mean(finite)) if finite else float("nan")
        episodes = [
            {"update": update, "step": step, "value": value}
            for update, step, value in taken.get(RETURN, ())
        ]
        return means, episodes


def is_finite(value: Any) -> bool:
    """True where an accelerator would have to be waited for."""
    if isinstance(value, Tensor):
        return not value.is_cpu or bool(torch.isfinite(value.detach()).all())
    return bool(np.isfinite(np.asarray(value, dtype=float)).all())


_PLACES = ("gymnasium.wrappers.common", "gymnasium.wrappers.vector.common")
_KIND = "RecordEpisodeStatistics"


@final
class Recorders:
    """Recording wrappers that are alive, and what they have recorded since they were found.

    Args:
        own: an environment whose recorders are not the loop's.

    Attributes:
        price: seconds of a search, guessed before there was one.
        known: whether the program has such wrappers at all.
    """

    price = 0.05
    known = False

    def __init__(self, own: Any = None) -> None:
        self._own = {id(each) for each in _inside(own)}
        self._seen: list[tuple[weakref.ref[Any], int]] = []

    @property
    def found(self) -> int:
        """How many there are."""
        return len(self._seen)

    def search(self) -> None:
        """Look for them among all objects; takes tens of milliseconds."""
        begun = time.perf_counter()
        kinds = {getattr(sys.modules[name], _KIND) for name in _PLACES if name in sys.modules}
        self.known = bool(kinds)
        alive = [each for each in gc.get_objects() if type(each) in kinds] if kinds else []
        self._seen = [
            (weakref.ref(each), int(each.episode_count))
            for each in alive
            if id(each) not in self._own
        ]
        self.price = time.perf_counter() - begun

    def take(self) -> list[float]:
        """Returns of the episodes that have ended since the last call, by wrapper."""
        returns: list[float] = []
        for k, (recorder, before) in enumerate(self._seen):
            each = recorder()
            if each is None:
                continue
            count = int(each.episode_count)
            new = min(count - before, len(each.return_queue))
            returns += [float(x) for x in list(each.return_queue)[-new:]] if new > 0 else []
            self._seen[k] = recorder, count
        return returns


def _inside(environment: Any) -> Iterator[Any]:
    """An environment and all that it wraps."""
    waiting = [environment]
    while waiting:
        each = waiting.pop()
        if each is None:
            continue
        yield each
        held = vars(each) if hasattr(each, "__dict__") else {}
        waiting.append(held.get("env"))
        waiting.extend(held.get("envs") or ())
