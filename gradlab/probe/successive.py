"""Bursts of successive gradients: their inner products, without a second backward pass.

Two float64 copies of the gradient live as long as a burst; what is kept of an update is one product
and one square, on the device until the burst ends (`gradlab.statistics.successive`), and one number
per sample, by which samples are known again in the next batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.probe.repeats import Repeats, marks
from gradlab.probe.update_statistics import present
from gradlab.statistics.successive import Signal, fresh, signal

FIRST = 4  # pairs of the burst that finds the price
PAIRS = 32
SHOWN = 5  # columns named per layer


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
            shown = ", ".join(map(str, columns[:SHOWN]))
            parts.append(f"{name}: {shown}{', …' if len(columns) > SHOWN else ''}")
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
        self._new, self._old = (self._empty(size) for _ in range(2))
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
        return {
            **columns_of(estimate),
            "pairs": len(x),
            "overlap": float(again.overlap[kept].mean()),
            "distinct": again.distinct,
            **columns_dead(dead, self._layers()),
        }

    def _empty(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.float64, device=self.parameters[0].device)

    def _zero_columns(self) -> list[Tensor]:
        """Inputs of each linear layer that the gradient does not reach."""
        columns, at = [], 0
        for p in self.parameters:
            if p.ndim == 2:
                columns.append((self._new[at : at + p.numel()].view_as(p) == 0).all(dim=0))
            at += p.numel()
        return columns

    def _layers(self) -> list[str]:
        return [name for name, p in zip(self.names, self.parameters, strict=True) if p.ndim == 2]
