"""Inner products of per-sample policy gradients, without forming them.

A per-sample gradient is G_i = J_iᵀ g_i with J_i = ∂π_θ(s_i)/∂θ [da, P] and g_i [da]. For a linear
layer with input x_i and backward signals D_i [da, out], J_i's block is D_i ⊗ (x_i, 1), hence

    Θ_ij = J_i J_jᵀ = Σ_layers (D_i D_jᵀ)(x_i·x_j + 1),     G_i·G_j = g_iᵀ Θ_ij g_j

Θ is formed in blocks of rows and multiplied at once with the g of every estimator and horizon, so
memory is O(N) and no parameter-sized vector exists. Policies whose parameters live elsewhere than
in linear layers get explicit Jacobians from `torch.func`, with a warning.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from gradlab.networks.interface import act

PAIRS = 1 << 21  # entries of Θ held at once


@dataclass(frozen=True)
class Factor:
    """One layer's share of J: signals D [N, da, out], inputs x [N, in], the parameters they fill.

    Without inputs the signals are the Jacobian itself, [N, da, P].
    """

    signals: Tensor
    inputs: Tensor | None
    weight: slice | None
    bias: slice | None


@dataclass(frozen=True)
class PolicyJacobian:
    """J_i for N samples, factor by factor; `size` is P = Σ numel over `policy.parameters()`."""

    factors: tuple[Factor, ...]
    size: int
    samples: int
    action_dim: int


def policy_jacobian(policy: nn.Module, states: Tensor, noise: Tensor) -> PolicyJacobian:
    """Factors of ∂π_θ/∂θ at states [N, ds] and policy noise [N, noise_dim]."""
    factors = _layer_factors(policy, states, noise)
    if factors is None:
        warnings.warn(
            "the policy has parameters outside linear layers: per-sample Jacobians are formed "
            "explicitly by torch.func, which needs N × da × P numbers",
            stacklevel=3,
        )
        factors = (_explicit_factor(policy, states, noise),)
    size = sum(p.numel() for p in policy.parameters())
    return PolicyJacobian(factors, size, states.shape[0], factors[0].signals.shape[1])


def sample_gradients(jacobian: PolicyJacobian, g: Tensor) -> Tensor:
    """Explicit J_iᵀ g_i, [N, P], θ flattened in `policy.parameters()` order."""
    return path_gradients(jacobian, g[None])


def path_gradients(jacobian: PolicyJacobian, costates: Tensor) -> Tensor:
    """Σ_t J(s_t,i)ᵀ λ_t,i for costates [T, N, da] → [N, P]; the Jacobian's samples are (t, i)."""
    t, n, _ = costates.shape
    result = costates.new_zeros(n, jacobian.size)
    for factor in jacobian.factors:
        signals = factor.signals.reshape(t, n, *factor.signals.shape[1:])
        if factor.inputs is None:
            result += torch.einsum("tna,tnap->np", costates, signals)
            continue
        signal = torch.einsum("tna,tnao->tno", costates, signals)
        inputs = factor.inputs.reshape(t, n, -1)
        if factor.weight is not None:
            result[:, factor.weight] = torch.einsum("tno,tni->noi", signal, inputs).flatten(1)
        if factor.bias is not None:
            result[:, factor.bias] = signal.sum(dim=0)
    return result


def along(jacobian: PolicyJacobian, directions: Tensor) -> Tensor:
    """J_i v for each direction v in θ, [directions, P] → [directions, N, da]."""
    d, n = len(directions), jacobian.samples
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
    theta: Tensor | float = 0.0
    for factor in jacobian.factors:
        pair = torch.einsum("nao,nbo->nab", factor.signals, factor.signals)
        theta = theta + pair * _input_products(factor, None)[:, None, None]
    return torch.einsum("kna,nab,knb->kn", g, theta, g)


def products(jacobian: PolicyJacobian, g: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Θ g over all samples and over the samples of one's own group.

    Args:
        g: [K, N, da] action gradients.
        group: [N] integers.

    Returns:
        total [K, N, da] with total_i = J_i Σ_j J_jᵀ g_j, and within, the same sum over group_j =
        group_i; so g'_i · total_i = G'_i · Σ_j G_j.
    """
    k, n, da = g.shape
    flat = g.reshape(k, n * da).T
    total, within = torch.empty_like(flat), torch.empty_like(flat)
    step = max(1, PAIRS // (n * da * da))
    for begin in range(0, n, step):
        rows = slice(begin, min(begin + step, n))
        theta = _gram(jacobian, rows)
        out = slice(rows.start * da, rows.stop * da)
        total[out] = theta.reshape(-1, n * da) @ flat
        same = (group[rows, None] == group[None, :]).to(theta.dtype)[:, None, :, None]
        within[out] = (theta * same).reshape(-1, n * da) @ flat
    return total.T.reshape(k, n, da), within.T.reshape(k, n, da)


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
    return (x * x).sum(dim=1) + one if rows is None else x[rows] @ x.T + one


def _layer_factors(policy: nn.Module, states: Tensor, noise: Tensor) -> tuple[Factor, ...] | None:
    """Factors from one forward pass with hooks and da reverse passes; None where they do not do."""
    slices = _parameter_slices(policy)
    layers = [m for m in policy.modules() if isinstance(m, nn.Linear) and id(m.weight) in slices]
    owned = [id(p) for layer in layers for p in (layer.weight, layer.bias) if p is not None]
    if sorted(owned) != sorted(slices):
        return None
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda m, args, out: calls.append((m, args[0].detach(), out)))
        for layer in layers
    ]
    try:
        with torch.enable_grad():
            action = act(policy, states, noise)
    finally:
        for hook in hooks:
            hook.remove()
    if sorted(id(m) for m, _, _ in calls) != sorted(id(m) for m in layers):
        return None
    if any(out.ndim != 2 or not out.requires_grad for _, _, out in calls):
        return None
    outputs = [out for _, _, out in calls]
    signals = [_signals(action, j, outputs, states.shape[0]) for j in range(action.shape[1])]
    return tuple(
        Factor(
            torch.stack([signal[k] for signal in signals], dim=1),
            x,
            slices[id(layer.weight)],
            slices[id(layer.bias)] if layer.bias is not None else None,
        )
        for k, (layer, x, _) in enumerate(calls)
    )


def _signals(action: Tensor, j: int, outputs: list[Tensor], n: int) -> list[Tensor]:
    retain = j < action.shape[1] - 1
    grads = torch.autograd.grad(action[:, j].sum(), outputs, retain_graph=retain, allow_unused=True)
    return [torch.zeros_like(o) if g is None else g for g, o in zip(grads, outputs, strict=True)]


def _explicit_factor(policy: nn.Module, states: Tensor, noise: Tensor) -> Factor:
    parameters = {name: p.detach() for name, p in policy.named_parameters()}

    def one(theta: dict[str, Tensor], s: Tensor, e: Tensor) -> Tensor:
        inputs = (s[None], e[None]) if e.shape[0] else (s[None],)
        action: Tensor = functional_call(policy, theta, inputs)
        return action[0]

    blocks = vmap(jacrev(one), in_dims=(None, 0, 0))(parameters, states, noise)
    signals = torch.cat([blocks[name].flatten(2) for name in parameters], dim=2)
    return Factor(signals, None, None, None)


def _parameter_slices(policy: nn.Module) -> dict[int, slice]:
    slices, begin = {}, 0
    for parameter in policy.parameters():
        slices[id(parameter)] = slice(begin, begin + parameter.numel())
        begin += parameter.numel()
    return slices
