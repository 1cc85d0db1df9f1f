"""Successive gradients of all seeds at once: is there a signal in the noise?

    x_k = g_k · g_{k+1},  y_k = |g_k|²        per seed (`gradlab.statistics.successive`)

g_k is the policy's gradient before clipping in the first update on its batch. Where a batch is used
`reuse` times, the updates in between are passed over: two gradients of one batch share its noise,
which would pass for signal. Batches are drawn independently from replay, so that what is called the
signal is the mean gradient over replay as it stands; between two looks θ moves by `reuse` updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gradlab.probe.budget import Budget
from gradlab.probe.successive import FIRST, PAIRS, columns_dead, columns_of
from gradlab.statistics.successive import signal

PART = 0.25  # of the budget: what is left is for the measurements, which are dear and rare


@final
class SeedBursts:
    """Bursts of `PAIRS` pairs, one after another as the budget allows.

    Args:
        layers: names of the weights.
    """

    def __init__(self, layers: Sequence[str], budget: Budget) -> None:
        self.layers, self.budget = tuple(layers), budget
        self.own = 0.0
        self._burst: _Burst | None = None
        self._price: float | None = None  # seconds per pair
        self._batch = -1

    def see(self, gradients: Sequence[Tensor], batch: int) -> list[dict[str, Any]] | None:
        """A policy update on the batch of this number was made with `gradients` [E, in, out], the
        weights' first; the seeds' rows, where they end a burst."""
        if batch == self._batch or (self._burst is None and not self._begin()):
            return None
        self._batch, burst = batch, self._burst
        assert burst is not None
        with self.budget.paying() as price:
            burst.see(gradients, len(self.layers))
            rows = burst.rows(self.layers) if burst.done else None
        self.own += price[0]
        burst.seconds += price[0]
        return None if rows is None else self._ended(burst, rows)

    @property
    def seconds(self) -> float:
        """Of the burst that has ended last."""
        return PAIRS * (self._price or 0.0)

    def _ended(self, burst: _Burst, rows: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Its price; the short one has served when that is known."""
        self._burst, self._price = None, burst.seconds / burst.pairs
        return rows if burst.pairs == PAIRS else None

    def _begin(self) -> bool:
        budget = self.budget
        if self._price is None:
            if budget.spent < PART * budget.share:
                self._burst = _Burst(FIRST)
        else:
            price = PAIRS * self._price
            part = PART * budget.share * (budget.elapsed + price)
            if self.own + price <= part and budget.allows(price):
                self._burst = _Burst(PAIRS)
        return self._burst is not None


@final
class _Burst:
    """`pairs` + 1 gradients of successive batches; two of them are kept, in float64."""

    def __init__(self, pairs: int) -> None:
        self.pairs, self.seconds = pairs, 0.0
        self._last: Tensor | None = None
        self._squares: list[Tensor] = []
        self._products: list[Tensor] = []
        self._dead: list[Tensor] = []

    @property
    def done(self) -> bool:
        return len(self._products) >= self.pairs

    def see(self, gradients: Sequence[Tensor], layers: int) -> None:
        new = torch.cat([g.flatten(1) for g in gradients], dim=1).double()
        if self._last is not None:
            self._products.append((self._last * new).sum(dim=1))
        self._squares.append(new.square().sum(dim=1))
        self._last = new
        if len(self._squares) in (1, self.pairs + 1):
            dead = [(g == 0).all(dim=2) for g in gradients[:layers]]
            both = zip(self._dead or dead, dead, strict=True)
            self._dead = [before & now for before, now in both]

    def rows(self, layers: Sequence[str]) -> list[dict[str, Any]]:
        """What the burst found, per seed."""
        x, y = (
            np.asarray(torch.stack(each).cpu().numpy()) for each in (self._products, self._squares)
        )
        return [
            columns_of(signal(x[:, seed], y[:, seed]))
            | columns_dead([each[seed] for each in self._dead], layers)
            for seed in range(x.shape[1])
        ]
