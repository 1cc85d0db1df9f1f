"""Exact expectations of a linear-quadratic system's gradients, by gradlab's own estimators.

A gradient sample is a quadratic polynomial of the start and of every step's noise. Its mean over
the rows of an orthogonal two-level design (columns of a Hadamard matrix: mean 0, variance 1, no
correlation) is therefore its expectation under any law with those moments, to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import scipy.linalg
import torch
from torch import Tensor

from analyses.harness.systems import Around
from gradlab.data.noise import stream
from gradlab.systems.linear import symmetric_root

SEED = 0


@dataclass(frozen=True, eq=False)
class Designed(Around):
    """A linear-quadratic system whose noise at step t is the design's, whatever the seed draws.

    Attributes:
        noise: [H, N, ds], the rows' noise of each step.
    """

    differentiable: ClassVar[bool] = True

    noise: Tensor

    def sample_noise(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        asked = generator.initial_seed()
        steps = range(len(self.noise))
        t = next(t for t in steps if stream(SEED, "dynamics", t).initial_seed() == asked)
        return self.noise[t].to(dtype)


def design(mean: Tensor, covariance: Tensor, horizon: int) -> tuple[Tensor, Tensor]:
    """Starts [N, ds] with the given moments and noise [H, N, ds] for `Designed`."""
    ds = len(mean)
    needed = 1 + ds * (1 + horizon)
    rows = 1 << (needed - 1).bit_length()
    columns = torch.from_numpy(scipy.linalg.hadamard(rows)).double()[:, 1:needed]
    starts = mean + columns[:, :ds] @ symmetric_root(covariance)
    noise = columns[:, ds:].reshape(rows, horizon, ds).transpose(0, 1)
    return starts, noise
