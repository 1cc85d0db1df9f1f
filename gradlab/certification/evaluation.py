"""The step of a system as a plain function of rows z = (s, a), in blocks of one size.

Every call has one of two numbers of rows, the last block filled up: memory stays flat, and an
engine that compiles for a batch size compiles twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.system import System
from gradlab.user_code.calls import running

BLOCK, FEW = 4096, 256  # rows of a call; of one with few points
SEVERAL = 4  # calls with few points, at most, that are made in place of one with many


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


def evenly(n: int, most: int) -> Tensor:
    """Rows of n, at most so many, evenly spread from the first to the last."""
    return torch.linspace(0, n - 1, min(most, n)).long()


def outputs(system: System, points: Points) -> Tensor:
    """y = (s', r) [N, ds + 1] of every point, without a graph, in blocks of one of two sizes."""
    size = FEW if len(points) <= SEVERAL * FEW else BLOCK
    parts = [
        at_once(system, filled(points.at(slice(start, start + size)), size))
        for start in range(0, len(points), size)
    ]
    return torch.cat(parts)[: len(points)]


def at_once(system: System, points: Points) -> Tensor:
    """y of all points as one batch.

    Raises:
        InputError: the step fails, or returns other shapes than [N, ds] and [N].
    """
    ds, n = system.state_dim, len(points)
    noise = None if points.noise is None else points.noise.clone()
    with torch.no_grad(), running("step", _remedy):
        out = system.step(points.z[:, :ds].clone(), points.z[:, ds:].clone(), noise)
    after, reward = out.state.detach(), out.reward.detach()
    if after.shape != (n, ds) or reward.shape != (n,):
        got = f"next state {list(after.shape)} and reward {list(reward.shape)}"
        raise InputError(f"step returned {got}, expected {[n, ds]} and {[n]}")
    return torch.cat([after, reward[:, None]], 1).to(points.z)


def _remedy(words: str) -> str:
    if "CUDA" in words or "cuda" in words:
        return ": this machine has no such GPU; build the simulator for the CPU"
    return ""


def filled(points: Points, size: int) -> Points:
    """The block with its last row repeated up to `size` rows."""
    lacking = size - len(points)
    if lacking <= 0:
        return points
    rows = torch.cat([torch.arange(len(points)), torch.full((lacking,), len(points) - 1)])
    return points.at(rows)
