"""A linear world, its policy, and steps along gradients in it."""

from __future__ import annotations

import torch

from gradlab.gradients.setting import Starts, as_starts

GAMMA, T, N = 0.9, 12, 48


def starts_of(seed: int, n: int = N) -> Starts:
    generator = torch.Generator().manual_seed(seed)
    return as_starts(torch.randn(n, 2, generator=generator, dtype=torch.float64), 2)
