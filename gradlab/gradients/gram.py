"""Inner products of per-sample policy gradients G_i = Σ_t J_t,iᵀ λ_t,i, without forming them.

With J's factors, D_t,i ⊗ (x_t,i, 1) for each linear layer,

    Θ_ij = J_i J_jᵀ = Σ_layers (D_i D_jᵀ)(x_i·x_j + 1),     G_i·G_j = λ_iᵀ Θ_ij λ_j
    |G_i|² = λ_iᵀ Θ_i λ_i over the steps of one sample,     one kernel for every horizon
    mean   = (1/N) Σ_t,i (D_tᵀ λ_t) ⊗ (x_t, 1)              one product per thin layer, else H/2

Θ is formed in blocks of rows and multiplied at once with all estimators' λ: memory is O(N).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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


_CACHED = 1 << 20  # entries of a layer's changes along directions that are held at once
PAIRS = 1 << 21  # entries of Θ held at once
KERNEL = 8192  # N · da up to which Θ is formed: beyond, sums in θ are cheaper than N² products


def path_gradients(jacobian: PolicyJacobian, costates: Tensor, part: slice | None = None) -> Tensor:
    """Σ_t J(s_t,i)ᵀ λ_t,i for costates [T, N, da] → [N, P]; the Jacobian's samples are (t, i).

    Args:
        part: one of `parameter_blocks`, where only these parameters are wanted.
    """
    t, n, _ = costates.shape
    part = slice(0, jacobian.size) if part is None else part
    result = costates.new_zeros(n, part.stop - part.start)
    for factor in jacobian.factors:
        signals = factor.signals.reshape(t, n, *factor.signals.shape[1:])
        if factor.inputs is None:
            result += torch.einsum("tna,tnap->np", costates, signals[..., part])
            continue
        inputs = factor.inputs.reshape(t, n, -1)
        if (overlap := _overlap(factor.weight, part)) is not None:
            into, part_of_it = overlap
            width = inputs.shape[2]
            out = slice(part_of_it.start // width, part_of_it.stop // width)
            signal = torch.einsum("tna,tnao->tno", costates, signals[..., out])
            result[:, into] = torch.einsum("tno,tni->noi", signal, inputs).flatten(1)
        if (overlap := _overlap(factor.bias, part)) is not None:
            into, part_of_it = overlap
            result[:, into] = torch.einsum("tna,tnao->no", costates, signals[..., part_of_it])
    return result


def _overlap(whole: slice | None, part: slice) -> tuple[slice, slice] | None:
    """What a layer's parameters and a block share: its place in the block, and in the layer."""
    if whole is None or whole.stop <= part.start or part.stop <= whole.start:
        return None
    begin, end = max(whole.start, part.start), min(whole.stop, part.stop)
    return (
        slice(begin - part.start, end - part.start),
        slice(begin - whole.start, end - whole.start),
    )


def parameter_blocks(jacobians: Sequence[PolicyJacobian], most: float) -> list[slice]:
    """All parameters in blocks of at most `most`, but at least one, that cut no row of a weight."""
    layers: dict[int, tuple[int, int]] = {}
    for factor in (factor for jacobian in jacobians for factor in jacobian.factors):
        if factor.inputs is not None and factor.weight is not None:
            layers[factor.weight.start] = factor.weight.stop, factor.inputs.shape[1]
    size, begin, blocks = jacobians[0].size, 0, []
    while begin < size:
        if begin in layers:
            end, row = layers[begin]
        else:
            end, row = min((start for start in layers if start > begin), default=size), 1
        step = max(1, int(most) // row) * row
        blocks += [slice(k, min(k + step, end)) for k in range(begin, end, step)]
        begin = end
    return blocks


def along(jacobian: PolicyJacobian, directions: Tensor) -> Tensor:
    """J_i v for each direction v in θ, [directions, P] → [directions, N, da]."""
    d, n = len(directions), jacobian.samples
    wide = (f.signals.shape[2] for f in jacobian.factors if f.inputs is not None)
    rows = max(1, _CACHED // (d * max(wide, default=1)))
    if n > rows:
        blocks = (slice(begin, min(begin + rows, n)) for begin in range(0, n, rows))
        return torch.cat([along(jacobian.rows(block), directions) for block in blocks], dim=1)
    result = directions.new_zeros(d, n, jacobian.action_dim)
    for factor in jacobian.factors:
        if factor.inputs is None:
            result += torch.einsum("nap,dp->dna", factor.signals, directions)
            continue
        moved = directions.new_zeros(d, n, factor.signals.shape[2])
        if factor.weight is not None:
            weight = directions[:, factor.weight].reshape(d, moved.shape[2], -1)
            moved = moved + torch.einsum("doi,ni->dno", weight, factor.inputs)
        if factor.bias is not None:
            moved = moved + directions[:, None, factor.bias]
        result += torch.einsum("nao,dno->dna", factor.signals, moved)
    return result


def along_each(jacobian: PolicyJacobian, directions: Tensor) -> Tensor:
    """J_i v_i for one direction v_i in θ per sample, [N, P] → [N, da]."""
    n = jacobian.samples
    result = directions.new_zeros(n, jacobian.action_dim)
    for factor in jacobian.factors:
        if factor.inputs is None:
            result += torch.einsum("nap,np->na", factor.signals, directions)
            continue
        moved = directions.new_zeros(n, factor.signals.shape[2])
        if factor.weight is not None:
            weight = directions[:, factor.weight].reshape(n, moved.shape[1], -1)
            moved = moved + torch.einsum("noi,ni->no", weight, factor.inputs)
        if factor.bias is not None:
            moved = moved + directions[:, factor.bias]
        result += torch.einsum("nao,no->na", factor.signals, moved)
    return result


def along_own(jacobian: PolicyJacobian, directions: Tensor) -> Tensor:
    """J_t,i v_i with one direction for each start, [n, P] → [T, n, da]; samples are (t, i)."""
    n = len(directions)
    t = jacobian.samples // n
    result = directions.new_zeros(t, n, jacobian.action_dim)
    for factor in jacobian.factors:
        signals = factor.signals.reshape(t, n, *factor.signals.shape[1:])
        if factor.inputs is None:
            result += torch.einsum("tnap,np->tna", signals, directions)
            continue
        moved = directions.new_zeros(n, t, signals.shape[3])
        if factor.weight is not None:
            weight = directions[:, factor.weight].reshape(n, moved.shape[2], -1)
            inputs = factor.inputs.reshape(t, n, -1).transpose(0, 1)
            moved = inputs @ weight.transpose(1, 2)
        if factor.bias is not None:
            moved = moved + directions[:, None, factor.bias]
        result += torch.einsum("tnao,nto->tna", signals, moved)
    return result


def mean_gradients(jacobian: PolicyJacobian, g: Tensor) -> Tensor:
    """(1/N) Σ_i J_iᵀ g_i for K sets of action gradients [K, N, da] → [K, P]."""
    g = g / jacobian.samples
    result = g.new_zeros(g.shape[0], jacobian.size)
    for factor in jacobian.factors:
        if factor.inputs is None:
            result += torch.einsum("kna,nap->kp", g, factor.signals)
            continue
        signal = torch.einsum("kna,nao->kon", g, factor.signals)
        if factor.weight is not None:
            result[:, factor.weight] = (signal @ factor.inputs).flatten(1)
        if factor.bias is not None:
            result[:, factor.bias] = signal.sum(dim=2)
    return result


def squared_norms(jacobian: PolicyJacobian, g: Tensor) -> Tensor:
    """|J_iᵀ g_i|² for K sets of action gradients [K, N, da] → [K, N]."""
    return torch.einsum("kna,nab,knb->kn", g, diagonal(jacobian), g)


def diagonal(jacobian: PolicyJacobian) -> Tensor:
    """Θ_ii of every sample, [N, da, da]."""
    shape = (jacobian.samples, jacobian.action_dim, jacobian.action_dim)
    theta = jacobian.factors[0].signals.new_zeros(shape)
    for factor in jacobian.factors:
        pair = torch.einsum("nao,nbo->nab", factor.signals, factor.signals)
        theta += pair * _input_products(factor, None)[:, None, None]
    return theta


def products(jacobian: PolicyJacobian, g: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Θ g over all samples and over the samples of one's own group: `fold_products` of one fold.

    Returns:
        total [K, N, da] with total_i = J_i Σ_j J_jᵀ g_j, and within, the same sum over group_j =
        group_i; so g'_i · total_i = G'_i · Σ_j G_j.
    """
    total, within = fold_products(jacobian, g, group, torch.zeros_like(group), 1)
    return total[0], within


def fold_products(
    jacobian: PolicyJacobian, g: Tensor, group: Tensor, fold: Tensor, folds: int
) -> tuple[Tensor, Tensor]:
    """Θ g over the samples of each fold, and over those of one's own group.

    Few samples go by the kernel Θ, many by the sums Σ_j J_jᵀ g_j in θ; both give the same numbers.

    Args:
        g: [K, N, da] action gradients.
        group: [N] integers; fold: [N], 0 … folds − 1.

    Returns:
        total [folds, K, N, da] and within [K, N, da].
    """
    n, da = g.shape[1:]
    members = [slice(None) if folds == 1 else (fold == f).nonzero()[:, 0] for f in range(folds)]
    if n * da <= KERNEL:
        return _by_kernel(jacobian, g, members), _within(jacobian, g, group)
    parts = [(jacobian.rows(rows), g[:, rows]) for rows in members]
    sums = torch.cat([part.samples * mean_gradients(part, g) for part, g in parts])
    step = max(1, PAIRS // (len(sums) * max(f.signals.shape[2] for f in jacobian.factors)))
    blocks = (slice(begin, min(begin + step, n)) for begin in range(0, n, step))
    total = torch.cat([along(jacobian.rows(rows), sums) for rows in blocks], dim=1)
    return total.reshape(folds, *g.shape), _within(jacobian, g, group)


def _within(jacobian: PolicyJacobian, g: Tensor, group: Tensor) -> Tensor:
    """Θ g over the samples of one's own group, group by group; alone: Θ_ii g_i."""
    within = torch.einsum("nab,knb->kna", diagonal(jacobian), g)
    _, label, size = np.unique(group.cpu().numpy(), return_inverse=True, return_counts=True)
    for which in np.flatnonzero(size > 1):
        rows = torch.from_numpy(np.flatnonzero(label == which))
        within[:, rows] = _by_kernel(jacobian.rows(rows), g[:, rows], [slice(None)])[0]
    return within


def _by_kernel(jacobian: PolicyJacobian, g: Tensor, members: list[slice | Tensor]) -> Tensor:
    """Θ g over each set of samples, [sets, K, N, da]."""
    k, n, da = g.shape
    flat = [g[:, rows].flatten(1).T for rows in members]
    total = g.new_empty(len(members), n * da, k)
    step = max(1, PAIRS // (n * da * da))
    for begin in range(0, n, step):
        rows = slice(begin, min(begin + step, n))
        theta = _gram(jacobian, rows)
        out = slice(rows.start * da, rows.stop * da)
        for part_total, columns, part in zip(total, members, flat, strict=True):
            part_total[out] = theta[:, :, columns].reshape(-1, len(part)) @ part
    return total.transpose(1, 2).reshape(len(members), k, n, da)


def _gram(jacobian: PolicyJacobian, rows: slice) -> Tensor:
    """Θ between a block of samples and all samples, [rows, da, N, da]."""
    total: Tensor | None = None
    for factor in jacobian.factors:
        D = factor.signals
        n, da, out = D.shape
        pair = (D[rows].reshape(-1, out) @ D.reshape(-1, out).T).reshape(-1, da, n, da)
        part = pair * _input_products(factor, rows)[:, None, :, None]
        total = part if total is None else total + part
    if total is None:
        raise AssertionError("a policy without parameters has no Gram matrix")
    return total


def _input_products(factor: Factor, rows: slice | None) -> Tensor:
    """x_i·x_j + 1 between a block and all samples, or x_i·x_i + 1 per sample without a block."""
    one = 1.0 if factor.bias is not None else 0.0
    x = factor.inputs
    if x is None:
        n = factor.signals.shape[0]
        shape = (n,) if rows is None else (len(range(*rows.indices(n))), n)
        return factor.signals.new_ones(shape)
    weighted = x if factor.weight is not None else 0 * x
    return (x * weighted).sum(dim=1) + one if rows is None else x[rows] @ weighted.T + one
