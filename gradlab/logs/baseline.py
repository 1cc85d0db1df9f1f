"""A baseline that does not change the score's mean: fitted on other trajectories.

    y_m(t) = Σ_{k<m} γᵏ r_{t+k} + γᵐ Q(s_{t+m}, a_{t+m})         the return of the m steps from t on
    V_m(s) = β_mᵀ φ(s),   β_m by regression over all t and the trajectories of other folds
    G = Σ_{t≤n} γᵗ ∇ log π(a_t|s_t) (y_{n−t}(t) − V_{n−t}(s_t))

Given s_t and everything on other trajectories, ∇ log π has mean zero, so that any function of them
may be subtracted (Greensmith, Bartlett and Baxter 2004). Trajectories that share
baselines are not quite independent: an inner product of two of their gradients is off by a share of
the order 1/N², which no statistic here can resolve.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.data.path import Path
from gradlab.logs.features import features, solved

FOLDS = 5


def baselines(path: Path, costates: Tensor, horizons: tuple[int, ...], discount: float) -> Tensor:
    """γᵗ V_{n−t}(s_t) of every horizon n, [K, T + 1, N]; 0 for t > n and where dead.

    Args:
        path: of the windows, N of them.
        costates: [K, T + 1, N], γᵗ times the return of the steps from t to n, tail included.
    """
    T, n = path.horizon, path.states.shape[1]
    fold = _folds(path.group)
    phi = features(path.states.flatten(0, 1), n).reshape(T + 1, n, -1)
    phi = phi * path.alive[..., None]
    gamma = discount ** torch.arange(T + 1, dtype=phi.dtype)
    place = {h: k for k, h in enumerate(horizons)}
    values = torch.zeros_like(costates)
    for m in range(max(horizons) + 1):
        starts = [h - m for h in horizons if h >= m]
        y = torch.stack([costates[place[t + m], t] / gamma[t] for t in starts])
        value = _cross_fitted(phi[starts], y, fold)
        for t, baseline in zip(starts, value, strict=True):
            values[place[t + m], t] = gamma[t] * baseline
    return values


def _folds(group: Tensor) -> Tensor:
    """[N], trajectories in turn."""
    _, number = torch.unique(group, return_inverse=True)
    fold: Tensor = number % FOLDS
    return fold


def _cross_fitted(phi: Tensor, y: Tensor, fold: Tensor) -> Tensor:
    """Predictions of y [t, N] from phi [t, N, F], each from the trajectories of other folds."""
    gram, moment = [], []
    for k in range(FOLDS):
        x = phi[:, fold == k].flatten(0, 1)
        gram.append(x.T @ x)
        moment.append(x.T @ y[:, fold == k].flatten())
    # Summed without one's own: a sum less one's own would keep its rounding.
    others = 1 - torch.eye(FOLDS, dtype=phi.dtype)
    weights = solved(
        torch.einsum("ek,kij->eij", others, torch.stack(gram)),
        torch.einsum("ek,ki->ei", others, torch.stack(moment)),
    )
    return torch.einsum("tnf,nf->tn", phi, weights[fold])
