"""Statistics of every policy update, of all seeds (`gradlab.probe.update_statistics` for one).

Per seed and tensor, |∂L/∂θ_l| before clipping is what an update computes for clipping anyway, so
that it costs a reference; of every few updates also |Δθ_l| / |θ_l|. Actions are counted
once per batch, at its states: however often a batch is used, it is counted once.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gradlab.probe.policy_calls import NEAR
from gradlab.probe.update_statistics import StepLengths
from gradlab.probe.updates import STRIDE
from gradlab.runs.probe.columns import Window
from gradlab.runs.probe.update_columns import summed_up
from gradlab.training.learner import Learner
from gradlab.training.trained import Trained


@final
class SeedStatistics:
    """The policy updates since the last row."""

    def __init__(self, learner: Learner) -> None:
        self.trained: Trained = learner.trained_policy
        self.edge = None if learner.limit is None else (1 - NEAR) * learner.limit
        self._lengths = StepLengths(self._theta, _norms)
        self._count = 0
        self._batch = -1
        self._counting = False
        self._empty()

    def before(self, batch: int) -> None:
        """A policy update on the batch of this number is about to be made."""
        self._counting, self._batch = self.edge is not None and batch != self._batch, batch
        if self._count % STRIDE == 0:
            self._lengths.before()

    def see(self, action: Tensor) -> None:
        """The actions [E, N, da] that the update begins with; only the first call counts."""
        if self._counting:
            assert self.edge is not None
            self._saturated.append((action.abs() >= self.edge).sum(dim=1))
            self._rows, self._counting = action.shape[1], False

    def after(self) -> None:
        """It has been made."""
        self._sizes.append(self.trained.norms)
        lengths = self._lengths.after()
        if lengths is not None:
            self._moves.append(torch.stack(lengths))
        self._count += 1

    def rows(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The window's numbers: those that the seeds share, and a row per seed; begins the next
        window."""
        sizes = _gathered(self._sizes, ())
        moves = _gathered(self._moves, (2, *sizes.shape[1:]))
        saturated = _gathered(self._saturated, ())
        together = {"looked": len(sizes), "marked": 1, "watched": len(saturated)}
        trained = np.ones(sizes.shape[1], dtype=bool)
        rows = []
        for seed in range(sizes.shape[-1]):
            row = summed_up(Window(sizes[..., seed], moves[..., seed], trained))
            if len(saturated):
                row["saturation"] = saturated[:, seed].mean(axis=0) / self._rows
            rows.append(row)
        self._empty()
        return together, rows

    @property
    def looked(self) -> int:
        """Updates since the last row."""
        return len(self._sizes)

    def _theta(self) -> list[Tensor]:
        return [p.detach() for p in self.trained.raw.parameters]

    def _empty(self) -> None:
        self._sizes: list[Tensor] = []
        self._moves: list[Tensor] = []
        self._saturated: list[Tensor] = []
        self._rows = 0
        self._lengths.forget()


def _norms(tensors: list[Tensor]) -> Tensor:
    """[tensors, E]"""
    return torch.stack([torch.linalg.vector_norm(x, dim=(1, 2)) for x in tensors])


def _gathered(kept: list[Tensor], shape: tuple[int, ...]) -> Any:
    """One transfer for a whole window, [updates, …]; `shape` where the list is empty."""
    return torch.stack(kept).double().cpu().numpy() if kept else np.zeros((0, *shape))
