"""Random numbers of a training run, reproducible from (seed, name, iteration) alone.

Each block of iterations has a stream of its own, for every member by its own seed: a resumed run
needs no stored generator, and seeds do not depend on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from gradlab.data.noise import stream

_BLOCK = 64  # iterations


@final
class Draws:
    """Draws [E, *shape] for E seeds; remembers one block per name.

    Args:
        use: what they are for: those of different uses are independent.
        block: iterations that are drawn at once.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        dtype: torch.dtype,
        device: Any,
        use: str = "training",
        block: int = _BLOCK,
    ) -> None:
        self.seeds, self.use, self.block = tuple(seeds), use, block
        self.dtype, self.device = dtype, device
        self._blocks: dict[tuple[str, tuple[int, ...]], tuple[int, Tensor]] = {}

    def normal(self, name: str, iteration: int, shape: tuple[int, ...]) -> Tensor:
        return self._draw(torch.randn, name, iteration, shape)

    def uniform(self, name: str, iteration: int, shape: tuple[int, ...]) -> Tensor:
        """In [0, 1), in float64 on the CPU: an index of replay needs all its digits."""
        return self._draw(torch.rand, name, iteration, shape, exact=True)

    def generators(self, name: str, iteration: int) -> list[torch.Generator]:
        """A fresh one of every seed, for laws that draw by themselves."""
        return [stream(seed, f"{self.use} {name}", iteration) for seed in self.seeds]

    def _draw(
        self,
        law: Callable[..., Tensor],
        name: str,
        iteration: int,
        shape: tuple[int, ...],
        exact: bool = False,
    ) -> Tensor:
        number, at = divmod(iteration, self.block)
        kept = self._blocks.get((name, shape))
        if kept is None or kept[0] != number:
            members = [
                law(
                    self.block,
                    *shape,
                    generator=stream(seed, f"{self.use} {name}", number),
                    dtype=torch.float64,
                )
                for seed in self.seeds
            ]
            block = torch.stack(members, dim=1)
            kept = number, block if exact else block.to(self.device, self.dtype)
            self._blocks[name, shape] = kept
        return kept[1][at]
