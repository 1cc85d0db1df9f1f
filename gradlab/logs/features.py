"""Linear regression on simple functions of the state: 1, s, and the products s_i s_j.

Standardised, and no more than the rows support: products are left out where there are fewer
than ten rows for each, then the states themselves. Exact for linear-quadratic values.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS_PER_FEATURE = 10
ROUNDING = 1e-9  # of a column's largest value
RIDGE = 1e-6  # of the mean square of a feature: keeps constant and repeated columns solvable


def features(state: Tensor, rows: int | None = None) -> Tensor:
    """[M, F] of states [M, ds], the constant first.

    Args:
        rows: that the regression will have; None: M.
    """
    rows = len(state) if rows is None else rows
    x = ((state - state.mean(dim=0)) / state.std(dim=0))[:, ~constant(state)]
    width = x.shape[1]
    one = torch.ones_like(state[:, :1])
    i, j = torch.triu_indices(width, width)
    if rows >= ROWS_PER_FEATURE * (1 + width + len(i)):
        return torch.cat([one, x, x[:, i] * x[:, j]], dim=1)
    return torch.cat([one, x], dim=1) if rows >= ROWS_PER_FEATURE * (1 + width) else one


def constant(values: Tensor) -> Tensor:
    """Which columns of [M, width] do not vary beyond rounding."""
    return values.std(dim=0) <= ROUNDING * values.abs().amax(dim=0)


def solved(gram: Tensor, moment: Tensor) -> Tensor:
    """Ridge regression's weights from Σ φφᵀ [..., F, F] and Σ φ y [..., F]."""
    ridge = RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype)
    weights: Tensor = torch.linalg.solve(gram + ridge[..., None, None] * eye, moment[..., None])
    return weights[..., 0]
