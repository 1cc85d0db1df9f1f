"""Numbers that the loop notes and gradients do not show: the critic's loss, returns of episodes.

Means of what was noted since the last row stand beside the norms, so that a gradient that falls
ill can be seen with the critic that feeds it. Every return of an episode has a row of its own, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

NOTED = ("critic_loss", "episode_return")
RETURN, LOSS = "episode_return", "critic_loss"


@final
class Notes:
    """Numbers by name since the last row."""

    def __init__(self) -> None:
        self._kept: dict[str, list[tuple[int, int, Any]]] = {name: [] for name in NOTED}

    def take(self, name: str, value: Any, update: int, step: int) -> None:
        """One more number, or several; a tensor is not waited for until a row is due."""
        held = value.detach() if isinstance(value, Tensor) else np.asarray(value, dtype=float)
        self._kept[name].append((update, step, held))

    def row(self) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Means of what is finite, of those that were noted, and a row of every episode; begins the
        next window."""
        taken = {name: list(_numbers(kept)) for name, kept in self._kept.items() if kept}
        for kept in self._kept.values():
            kept.clear()
        means = {name: _mean([value for *_, value in each]) for name, each in taken.items()}
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


def _numbers(kept: list[tuple[int, int, Any]]) -> Iterator[tuple[int, int, float]]:
    for update, step, held in kept:
        values = held.cpu().numpy() if isinstance(held, Tensor) else held
        for value in np.ravel(values):
            yield update, step, float(value)


def _mean(values: list[float]) -> float:
    finite = [x for x in values if np.isfinite(x)]
    return float(np.mean(finite)) if finite else float("nan")
