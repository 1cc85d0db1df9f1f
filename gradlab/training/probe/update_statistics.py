"""Statistics of every policy update, of all seeds, and the signal in one batch's policy gradient.

    x_j = g_j · g_{j+1},  y_j = |g_j|²        per seed (`gradlab.statistics.successive`)

g_0 … g_PAIRS are gradients of batches drawn from replay for this alone, at one θ: E x = |μ|². (On
batches that are reused, gradients of successive updates gave x̄/ȳ = −0.18 ± 0.06.) On policy, paths
of the newest window are dealt to groups of m among N, y_j = |g_j|² m/N + x̄ (1 − m/N).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.probe.budget import Budget
from gradlab.probe.policy_calls import NEAR
from gradlab.probe.successive import columns_dead, columns_of
from gradlab.probe.update_statistics import StepLengths
from gradlab.probe.updates import STRIDE
from gradlab.runs.probe.columns import Window, summed_up
from gradlab.statistics.successive import signal
from gradlab.training.draws import Draws
from gradlab.training.learner import Learner, alone
from gradlab.training.measured import row_gradients
from gradlab.training.measured.row_gradients import (
    in_trained_weights,
    start_gradients,
    weights_of,
)
from gradlab.training.models.seed_models import of_seed
from gradlab.training.state import Run
from gradlab.training.trained import Trained

PAIRS = 16
PART = 0.25  # of the budget: what is left is for the measurements, which are dear and rare


@final
class SeedSignals:
    """Measures now and then, as the budget allows.

    Args:
        layers: names of the weights, which come first among the gradients.
    """

    def __init__(self, run: Run, layers: Sequence[str], budget: Budget) -> None:
        self.run, self.layers, self.budget = run, tuple(layers), budget
        self.seconds = self.own = 0.0  # of the last one, of all

    def rows(self, update: float) -> list[dict[str, Any]] | None:
        """The seeds' rows, where there is time for them.

        Args:
            update: what a policy update takes, in seconds: the first price is so many of them.
        """
        if not self._affordable(self.seconds or (PAIRS + 1) * update):
            return None
        measured = self._rows_on_policy if self.run.algorithm.loss.paths else self._rows
        with self.budget.paying() as price:
            rows = measured()
        self.seconds = price[0]
        self.own += self.seconds
        return rows

    def _affordable(self, price: float) -> bool:
        part = PART * self.budget.share * (self.budget.elapsed + price)
        return self.own + price <= part and self.budget.allows(price)

    def _rows(self) -> list[dict[str, Any]]:
        """Products, squares, and weights that no batch has reached."""
        count, last = len(self.layers), None
        products, squares, dead = [], [], []
        for j in range(PAIRS + 1):
            gradients = self._gradients(j)
            new = torch.cat([g.flatten(1) for g in gradients], dim=1).double()
            squares.append(new.square().sum(dim=1))
            if last is not None:
                products.append((last * new).sum(dim=1))
            dead.append([(g == 0).all(dim=2) for g in gradients[:count]])
            last = new
        x, y = (np.asarray(torch.stack(each).cpu().numpy()) for each in (products, squares))
        never = [torch.stack(each).all(dim=0) for each in zip(*dead, strict=True)]
        return [
            columns_of(signal(x[:, seed], y[:, seed]))
            | columns_dead([each[seed] for each in never], self.layers)
            for seed in range(x.shape[1])
        ]

    def _rows_on_policy(self) -> list[dict[str, Any]]:
        batches = row_gradients.batches(self.run)
        return [self._row_of_paths(seed, batches) for seed in range(len(self.run.learner.seeds))]

    def _row_of_paths(self, seed: int, batches: Batch) -> dict[str, Any]:
        run, learner = self.run, self.run.learner
        single = alone(learner, seed)
        batch, count = row_gradients.rows_of(run, seed, batches, batches.state)
        if count < 2:
            return {}
        model = of_seed(learner.model, seed, len(learner.seeds))
        draws = Draws(single.seeds, learner.dtype, learner.device, "probe paths", block=1)
        term = run.algorithm.terms[0]
        paths = start_gradients(single, batch, term, model, draws, run.iteration).gradients
        G = in_trained_weights(single, learner.settings.reward_scale * paths)
        groups = min(PAIRS + 1, count)
        dealt = torch.stack([G[j::groups].mean(dim=0) for j in range(groups)]).double()
        sizes = torch.tensor([len(G[j::groups]) for j in range(groups)]) / count
        x = (dealt[:-1] * dealt[1:]).sum(dim=1)
        y = dealt.square().sum(dim=1) * sizes + x.mean() * (1 - sizes)
        dead = [(weight == 0).all(dim=0).all(dim=0) for weight in weights_of(single.policy, G)]
        return columns_of(
            signal(np.asarray(x.cpu().numpy()), np.asarray(y.cpu().numpy()))
        ) | columns_dead(dead, self.layers)

    def _gradients(self, j: int) -> tuple[Tensor, ...]:
        """Of a batch of its own, with noise of its own; nothing that training draws from moves."""
        run, learner = self.run, self.run.learner
        draws = Draws(learner.seeds, learner.dtype, learner.device, f"probe {j}", block=1)
        return learner.policy_gradients(run.iteration, run.drawn(draws, run.iteration), draws)


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
