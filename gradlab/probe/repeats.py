"""Which samples of one batch return in the next: by one number per sample of the policy's input.

    mark_i = w · x_i,   w fixed and irrational to the data: equal for equal rows, else different

A sample that comes back with another input (fresh observation noise, statistics that moved on) is
not known again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.statistics.moments import Array


def marks(inputs: Sequence[Tensor]) -> Tensor | None:
    """[B]; None where the inputs are not batches of numbers."""
    if not inputs or any(x.ndim < 2 or len(x) != len(inputs[0]) for x in inputs):
        return None
    rows = torch.cat([x.reshape(len(x), -1).double() for x in inputs], dim=1)
    return rows @ _weights(rows.shape[1]).to(rows)


@lru_cache(maxsize=8)
def _weights(width: int) -> Tensor:
    return torch.randn(width, generator=stream(0, "marks"), dtype=torch.float64)


@dataclass(frozen=True)
class Repeats:
    """Samples that return.

    Attributes:
        shared: [n], of pair k, samples of batch k + 1 that batch k had, too; NaN: not seen.
        overlap: [n], the same as a share of the batch.
        distinct: different samples over all samples; 1 where none were seen.
    """

    shared: Array
    overlap: Array
    distinct: float

    @staticmethod
    def of(batches: Sequence[Array | None]) -> Repeats:
        """From the marks of n + 1 batches."""
        shared, overlap = (np.full(len(batches) - 1, np.nan) for _ in range(2))
        for k, (old, new) in enumerate(pairwise(batches)):
            if old is not None and new is not None:
                shared[k] = np.isin(new, old).sum()
                overlap[k] = shared[k] / len(new)
        seen = [each for each in batches if each is not None]
        everything = np.concatenate(seen) if seen else np.zeros(0)
        distinct = len(np.unique(everything)) / len(everything) if len(everything) else 1.0
        return Repeats(shared, overlap, distinct)
