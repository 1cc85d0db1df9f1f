"""Every horizon of one estimator at once: mean gradients and exact per-sample squared norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.trajectories import Path
from gradlab.errors import InputError
from gradlab.gradients.estimator import BLOCK, Estimator, checked, first_horizon, with_entropy
from gradlab.gradients.setting import Starts
from gradlab.gradients.trajectory import TermRequest
from gradlab.gradients.weighted_terms import costate_terms


@dataclass(frozen=True)
class HorizonGradients:
    """Gradients of the horizons n_1 … n_K.

    Attributes:
        horizons: K values.
        means: [K, P] float64.
        squared_norms: |G_i|² of every sample, [K, N].
        grouped: some samples share a group, so that they are not independent.
    """

    horizons: tuple[int, ...]
    means: Tensor
    squared_norms: Tensor
    grouped: bool = False

    @property
    def non_finite(self) -> Tensor:
        """How many samples have no finite gradient at each horizon, [K]; they spoil its mean."""
        return (~torch.isfinite(self.squared_norms)).sum(dim=1)

    def variance(self) -> Tensor:
        """Trace of the per-sample covariance, [K]; from a float32 policy, what is below 1e-6 of
        |mean|² is rounding.

        Raises:
            InputError: samples share groups (use `measure`).
        """
        n = self.squared_norms.shape[1]
        if self.grouped or n < 2:
            raise InputError("samples share groups or are fewer than 2: use gradlab.measure")
        norms = self.squared_norms.double().mean(dim=1)
        return n / (n - 1) * (norms - self.means.square().sum(dim=1))


def horizon_gradients(
    estimator: Estimator,
    policy: nn.Module,
    starts: Tensor | Path | Starts,
    *,
    horizons: Sequence[int] | None = None,
    seed: int = 0,
    termination: str = "ignore",
    block: int = BLOCK,
) -> HorizonGradients:
    """Means and squared norms for horizons up to the estimator's own.

    Args:
        horizons: a grid; None: 0 (or 1, where 0 would leave no θ) … estimator.tail.horizon.
        block: samples at once; values do not depend on it beyond rounding.

    Raises:
        InputError: a horizon outside of 0 … estimator.tail.horizon.
    """
    begin = checked(estimator, policy, starts, termination)
    chosen = _chosen(estimator, horizons)
    plain, policy = with_entropy(estimator, policy)
    n, norms = len(begin.states), []
    means: Tensor | None = None
    for rows in begin.blocks(block):
        terms = costate_terms(plain, TermRequest(policy, rows, chosen, seed, termination))
        norms.append(terms.jacobian.squared_norms(terms.costates))
        share = terms.sums().double() / n
        means = share if means is None else means.add_(share)
    assert means is not None  # there is a start, and so a block
    grouped = len(np.unique(begin.group.cpu().numpy())) < n
    return HorizonGradients(chosen, means, torch.cat(norms, dim=1), grouped)


def _chosen(estimator: Estimator, horizons: Sequence[int] | None) -> tuple[int, ...]:
    low, high = first_horizon(estimator), estimator.tail.horizon
    if horizons is None:
        return tuple(range(low, high + 1))
    wrong = [h for h in horizons if not low <= h <= high]
    if wrong or not horizons:
        raise InputError(f"horizons {list(horizons)} are not all within {low} … {high}")
    return tuple(horizons)
