"""Norms and means of gradients with θ in every action, for all horizons at once.

    G_i = Σ_t J_t,iᵀ λ_t,i,     J_t,i in factors D_t,i ⊗ (x_t,i, 1) of each linear layer
    |G_i|² = λ_iᵀ Θ_i λ_i,      Θ_i,tt′ = Σ_layers (D_t D_t′ᵀ)(x_t·x_t′ + 1)
    mean   = (1/N) Σ_t,i (D_tᵀ λ_t) ⊗ (x_t, 1)

One kernel Θ_i serves every horizon's norm. Means cost one matrix product per thin layer for all
horizons together; between wide layers about H/2 products, since no shorter way is known.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradlab.gradients.policy_jacobian import Factor, PolicyJacobian

ENTRIES = 1 << 22  # of Θ held at once
THIN = 4096  # weights of a layer below which its means are one matrix product
ROWS = 1024  # rows of a block, so that a layer's factors stay in cache


def path_squared_norms(jacobian: PolicyJacobian, costates: Tensor) -> Tensor:
    """|Σ_t J_t,iᵀ λᵏ_t,i|² for K sets of costates [K, T, N, da] → [K, N].

    The Jacobian's samples are (t, i), time first.
    """
    k, t, n, da = costates.shape
    step = max(1, ENTRIES // (t * da) ** 2)
    blocks = []
    for begin in range(0, n, step):
        rows = slice(begin, min(begin + step, n))
        theta = _kernel(jacobian, rows, t)
        at = costates[:, :, rows].permute(2, 0, 1, 3).reshape(-1, k, t * da)
        blocks.append(((at @ theta) * at).sum(dim=2))
    return torch.cat(blocks).T


def path_mean_gradients(
    jacobian: PolicyJacobian, costates: Tensor, horizons: tuple[int, ...]
) -> Tensor:
    """(1/N) Σ_i Σ_t J_t,iᵀ λᵏ_t,i, [K, P]; the k-th costates are zero after step `horizons[k]`."""
    k, t, n, da = costates.shape
    weight = costates.reshape(k, t * n * da) / n
    result = costates.new_zeros(k, jacobian.size)
    for factor in jacobian.factors:
        D = factor.signals.reshape(t * n * da, -1)
        if factor.inputs is None:
            result += weight @ D
            continue
        if factor.bias is not None:
            result[:, factor.bias] = weight @ D
        if factor.weight is not None:
            size = D.shape[1] * factor.inputs.shape[1]
            by_layer = _thin_means if size <= THIN else _wide_means
            ends = [(horizon + 1) * n for horizon in horizons]
            by_layer(result[:, factor.weight], factor, weight.reshape(k, t * n, da), ends)
    return result


def _kernel(jacobian: PolicyJacobian, rows: slice, t: int) -> Tensor:
    """Θ_i of a block of samples, [rows, T · da, T · da]."""
    total: Tensor | None = None
    for factor in jacobian.factors:
        D = _by_sample(factor.signals, t, rows)
        n, _, da, out = D.shape
        D = D.reshape(n, t * da, out)
        part = D @ D.transpose(1, 2)
        if factor.inputs is not None:
            x = _by_sample(factor.inputs, t, rows)
            pairs = x @ x.transpose(1, 2) if factor.weight is not None else x.new_zeros(n, t, t)
            pairs = pairs + (1.0 if factor.bias is not None else 0.0)
            part.reshape(n, t, da, t, da).mul_(pairs[:, :, None, :, None])
        total = part if total is None else total.add_(part)
    if total is None:
        raise AssertionError("a policy without parameters has no Gram matrix")
    return total


def _by_sample(values: Tensor, t: int, rows: slice) -> Tensor:
    """[T · N, …] → [rows, T, …]."""
    return values.reshape(t, -1, *values.shape[1:])[:, rows].transpose(0, 1)


def _thin_means(result: Tensor, factor: Factor, weight: Tensor, ends: list[int]) -> None:
    """All horizons by one product with the explicit D ⊗ x of a thin layer."""
    assert factor.inputs is not None
    for rows in _blocks(max(ends)):
        D, x = factor.signals[rows], factor.inputs[rows]
        outer = (D[:, :, :, None] * x[:, None, None, :]).flatten(2)
        result += weight[:, rows].flatten(1) @ outer.flatten(0, 1)


def _wide_means(result: Tensor, factor: Factor, weight: Tensor, ends: list[int]) -> None:
    """Σ_t (D_tᵀ λᵏ_t) x_tᵀ, horizon by horizon while a block of rows is in cache."""
    assert factor.inputs is not None
    out, width = factor.signals.shape[2], factor.inputs.shape[1]
    sums = result.new_zeros(len(ends), out, width)
    for rows in _blocks(max(ends)):
        D, x = factor.signals[rows].transpose(0, 1).contiguous(), factor.inputs[rows]
        for k, end in enumerate(ends):
            if end > rows.start:
                signal = D[0] * weight[k, rows, :1]
                for a in range(1, len(D)):
                    signal.addcmul_(D[a], weight[k, rows, a : a + 1])
                sums[k].addmm_(signal.T, x)
    result += sums.flatten(1)


def _blocks(total: int) -> list[slice]:
    return [slice(begin, min(begin + ROWS, total)) for begin in range(0, total, ROWS)]
