"""How critics are fitted to the target of a batch: values with one method.

    Passes(1, 1)   one step of Adam on the whole batch             (MPG, TD3, SAC, MBPO)
    Passes(k, m)   k passes over it, each of m steps on its rows in a new order       (SHAC)

Targets are computed once for a batch, before its first step. Orders follow from the seed and the
iteration.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.errors import InputError
from gradlab.training.draws import Draws


@dataclass(frozen=True)
class Passes:
    """See above.

    Attributes:
        epochs: passes over a batch; parts: steps of a pass, each on its share of the rows.
    """

    epochs: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "parts"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}, expected an integer from 1")

    @property
    def name(self) -> str:
        """What `gradlab list algorithms` adds to the target, or ""."""
        return "" if self == Passes() else f"{self.epochs} passes in {self.parts} parts"

    def __call__(
        self, draws: Draws, iteration: int, batch: Batch, target: Tensor
    ) -> Iterator[tuple[Batch, Tensor]]:
        """Rows and targets of each step; batch: [E, N, ·], target: [E, N]."""
        if self == Passes():
            yield batch, target
            return
        generators, count = draws.generators("critic order", iteration), target.shape[1]
        for _ in range(self.epochs):
            orders = torch.stack([torch.randperm(count, generator=one) for one in generators])
            for rows in orders.to(target.device).chunk(self.parts, dim=1):
                yield _picked(batch, rows), target.gather(1, rows)


def _picked(batch: Batch, rows: Tensor) -> Batch:
    """Rows [E, n] of every seed's own."""
    seeds = torch.arange(len(rows), device=rows.device)[:, None]
    return Batch(**{name: values[seeds, rows] for name, values in batch.tensors.items()})
