"""Bursts of successive gradients: their inner products, without a second backward pass.

Two float64 copies of the gradient live as long as a burst. Samples that return in the next batch
are known again by one number each, mark_i = w · x_i, w fixed and irrational to the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.noise import stream
from gradlab.probe.update_statistics import present
from gradlab.statistics.moments import Array
from gradlab.statistics.successive import Signal, fresh, signal


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


FIRST = 4  # pairs of the burst that finds the price
PAIRS = 32
_SHOWN = 5  # columns named per layer


def columns_of(estimate: Signal) -> dict[str, Any]:
    """A signal as the table "successive" has it."""
    return {
        "pairs": estimate.pairs,
        "fresh": estimate.pairs,
        "energy": estimate.energy,
        "signal": estimate.signal,
        "root_squares": estimate.root_squares,
        "signal_share": estimate.share,
        "share_se": estimate.se,
        "snr": estimate.snr,
        "noise_scale": estimate.noise_scale,
        "cosine": estimate.cosine,
    }


def columns_dead(dead: Sequence[Tensor], layers: Sequence[str]) -> dict[str, Any]:
    """Inputs that no gradient reached, of each layer a mask [in], as the table has them."""
    parts = []
    for name, each in zip(layers, dead, strict=True):
        columns = each.nonzero().flatten().tolist()
        if columns:
            shown = ", ".join(map(str, columns[:_SHOWN]))
            parts.append(f"{name}: {shown}{', …' if len(columns) > _SHOWN else ''}")
    return {
        "dead_columns": sum(int(each.sum()) for each in dead),
        "columns": sum(len(each) for each in dead),
        "dead_inputs": int(dead[0].sum()) if len(dead) else 0,
        "dead_where": "; ".join(parts),
    }


@final
class Burst:
    """`pairs` + 1 gradients in a row."""

    def __init__(
        self, parameters: Sequence[nn.Parameter], names: Sequence[str], pairs: int
    ) -> None:
        self.parameters, self.names, self.pairs = list(parameters), tuple(names), pairs
        self.seconds = 0.0
        size = sum(p.numel() for p in self.parameters)
        device = self.parameters[0].device
        self._new, self._old = (
            torch.zeros(size, dtype=torch.float64, device=device) for _ in range(2)
        )
        self._squares: list[Tensor] = []
        self._products: list[Tensor] = []
        self._dead: list[Tensor] = []
        self._samples: list[Tensor | None] = []
        self._batch: Tensor | None = None
        self._seen = False

    @property
    def done(self) -> bool:
        return len(self._products) >= self.pairs

    def see(self, scale: Tensor | None, inputs: Sequence[Tensor] = ()) -> None:
        """The gradient as it stands; the last one before `commit` counts.

        Args:
            inputs: of the policy, one row per sample.
        """
        self._batch = marks(inputs)
        at = 0
        for p in self.parameters:
            part = self._new[at : at + p.numel()]
            if p.grad is None:
                part.zero_()
            else:
                part.copy_(present([p.grad])[0].reshape(-1))
            at += p.numel()
        if scale is not None:
            self._new.div_(scale)
        self._seen = True

    def commit(self) -> None:
        """The update used it."""
        if not self._seen:
            return
        if self._squares:
            self._products.append(self._old @ self._new)
        else:
            self._dead = self._zero_columns()
        self._squares.append(self._new @ self._new)
        self._samples.append(self._batch)
        self._old, self._new, self._seen = self._new, self._old, False

    def row(self) -> dict[str, Any]:
        """The burst's row."""
        x = torch.stack(self._products).cpu().numpy()
        y = torch.stack(self._squares).cpu().numpy()
        again = Repeats.of([None if each is None else each.cpu().numpy() for each in self._samples])
        kept = fresh(again.shared)
        estimate = signal(np.asarray(x), np.asarray(y), kept, again.distinct)
        self._new = self._old
        dead = [a & b for a, b in zip(self._dead, self._zero_columns(), strict=True)]
        layers = [name for name, p in zip(self.names, self.parameters, strict=True) if p.ndim == 2]
        return {
            **columns_of(estimate),
            "pairs": len(x),
            "overlap": float(again.overlap[kept].mean()),
            "distinct": again.distinct,
            **columns_dead(dead, layers),
        }

    def _zero_columns(self) -> list[Tensor]:
        """Inputs of each linear layer that the gradient does not reach."""
        columns, at = [], 0
        for p in self.parameters:
            if p.ndim == 2:
                columns.append((self._new[at : at + p.numel()].view_as(p) == 0).all(dim=0))
            at += p.numel()
        return columns
