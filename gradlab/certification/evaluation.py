"""The step of a system as a plain function of rows z = (s, a), in blocks of one size.

Every call has the same number of rows, the last block filled up: memory stays flat, and an engine
that compiles for a batch size compiles once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.systems.system import System

BLOCK = 4096  # rows


@dataclass(frozen=True)
class Points:
    """Where derivatives are taken: z = (s, a) [N, ds + da] and noise [N, noise_dim] or None."""

    z: Tensor
    noise: Tensor | None

    def __len__(self) -> int:
        return len(self.z)

    def at(self, rows: Tensor | slice) -> Points:
        """Some of them."""
        return Points(self.z[rows], None if self.noise is None else self.noise[rows])

    def moved(self, z: Tensor) -> Points:
        """z [k · N, ·] with the noise of every point k times."""
        times = len(z) // len(self.z)
        return Points(z, None if self.noise is None else self.noise.repeat(times, 1))

    def float(self) -> Points:
        """In single precision."""
        return Points(self.z.float(), None if self.noise is None else self.noise.float())


def outputs(system: System, points: Points) -> Tensor:
    """y = (s', r) [N, ds + 1] of every point, without a graph."""
    ds, parts = system.state_dim, []
    size = min(BLOCK, len(points))
    with torch.no_grad():
        for start in range(0, len(points), size):
            block = _filled(points.at(slice(start, start + size)), size)
            out = system.step(block.z[:, :ds].clone(), block.z[:, ds:].clone(), _copy(block.noise))
            y = torch.cat([out.state.detach(), out.reward.detach()[:, None]], 1)
            parts.append(y[: len(points) - start])
    return torch.cat(parts)


def _filled(points: Points, size: int) -> Points:
    """The block with its last row repeated up to `size` rows."""
    lacking = size - len(points)
    if lacking <= 0:
        return points
    rows = torch.cat([torch.arange(len(points)), torch.full((lacking,), len(points) - 1)])
    return points.at(rows)


def _copy(noise: Tensor | None) -> Tensor | None:
    return None if noise is None else noise.clone()
