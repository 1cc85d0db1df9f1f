"""Numbers that the loop notes and gradients do not show: the critic's loss, returns of episodes.

Means of what was noted since the last row stand beside the norms, so that a gradient that falls
ill can be seen with the critic that feeds it.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from torch import Tensor

NOTED = ("critic_loss", "episode_return")


@final
class Notes:
    """Numbers by name since the last row."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Any]] = {name: [] for name in NOTED}

    def take(self, name: str, value: Any) -> None:
        """One more number; a tensor is not waited for until a row is due."""
        self._kept[name].append(value.detach() if isinstance(value, Tensor) else float(value))

    def row(self) -> dict[str, float]:
        """Means of what is finite, of those that were noted; begins the next window."""
        taken = {name: [float(x) for x in values] for name, values in self._kept.items() if values}
        for values in self._kept.values():
            values.clear()
        return {name: _mean(values) for name, values in taken.items()}


def _mean(values: list[float]) -> float:
    finite = [x for x in values if np.isfinite(x)]
    return float(np.mean(finite)) if finite else float("nan")
