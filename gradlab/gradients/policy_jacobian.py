"""J = ∂π_θ(s)/∂θ and K = ∂π_θ(s)/∂s, from one forward and da reverse passes.

For a linear layer with input x and backward signals D [da, out] (rows: one per action), the layer's
block of J is D ⊗ (x, 1): two thin factors per layer instead of a matrix da × P per sample. This
holds for any module whose parameters live in linear layers that are each used once; others get
explicit Jacobians from `torch.func`, with a warning. Frozen parameters have columns of zeros.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from gradlab.data.trajectories import Path
from gradlab.errors import Doubtful, InputError
from gradlab.networks.interface import act

_MEMORY = 8e9  # bytes of explicit Jacobians
_PROBES = 2  # samples on which factors are compared with autograd


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

    def rows(self, rows: slice | Tensor) -> PolicyJacobian:
        """Some of the samples."""
        factors = tuple(
            replace(f, signals=f.signals[rows], inputs=None if f.inputs is None else f.inputs[rows])
            for f in self.factors
        )
        return PolicyJacobian(factors, self.size, len(factors[0].signals), self.action_dim)


@dataclass(frozen=True)
class Trace:
    """Actions [N, da], K [N, da, ds], and the factors of J where layers have them."""

    action: Tensor
    K: Tensor
    factors: tuple[Factor, ...] | None


def trace(policy: nn.Module, states: Tensor, noise: Tensor) -> Trace:
    """Actions of a batch with both Jacobians, detached."""
    slices = parameter_slices(policy)
    layers = linear_layers(policy)
    leaf = states.detach().requires_grad_()
    action, calls = _recorded_forward(policy, leaf, noise, layers, copy=False)
    if any(call.output._version != call.version for call in calls):  # by an in-place activation
        action, calls = _recorded_forward(policy, leaf, noise, layers, copy=True)
    layered = _each_parameter_once(layers, calls, slices, len(states))
    outputs = [call.output for call in calls] if layered else []
    leaves, last, passes = [leaf, *outputs], action.shape[1] - 1, []
    for j in range(last + 1):
        grads = torch.autograd.grad(
            action[:, j].sum(), leaves, retain_graph=j < last, allow_unused=True
        )
        pairs = zip(grads, leaves, strict=True)
        passes.append([torch.zeros_like(o) if g is None else g for g, o in pairs])
    K = torch.stack([row[0] for row in passes], dim=1)
    if not layered:
        return Trace(action.detach(), K, None)
    factors = []
    for k, call in enumerate(calls):
        weight, bias = (
            slices[id(p)] if p is not None and p.requires_grad else None
            for p in (call.layer.weight, call.layer.bias)
        )
        if weight is not None or bias is not None:
            signals = torch.stack([row[k + 1] for row in passes], dim=1)
            factors.append(Factor(signals, call.input, weight, bias))
    return Trace(action.detach(), K, tuple(factors))


def policy_jacobian(policy: nn.Module, states: Tensor, noise: Tensor) -> PolicyJacobian:
    """Factors of ∂π_θ/∂θ at states [N, ds] and policy noise [N, noise_dim]."""
    return from_factors(policy, trace(policy, states, noise).factors, states, noise)


def from_factors(
    policy: nn.Module, factors: tuple[Factor, ...] | None, states: Tensor, noise: Tensor
) -> PolicyJacobian:
    """The Jacobian of traced factors, or the explicit one where they are missing or do not do."""
    if factors is None or not _agree(policy, factors, states[:_PROBES], noise[:_PROBES]):
        warnings.warn(
            "the policy has parameters outside linear layers: per-sample Jacobians are formed "
            "explicitly by torch.func, which needs N × da × P numbers",
            Doubtful, stacklevel=3,
        )  # fmt: skip
        factors = (_explicit_factor(policy, states, noise),)
    size = sum(p.numel() for p in policy.parameters())
    return PolicyJacobian(factors, size, states.shape[0], factors[0].signals.shape[1])


def joined_factors(policy: nn.Module, traces: list[Trace], path: Path) -> PolicyJacobian:
    """The Jacobian at every step of a path from its steps' traces; samples are (t, i)."""
    states, noise = path.states.flatten(0, 1), path.policy_noise.flatten(0, 1)
    steps = [trace.factors for trace in traces if trace.factors is not None]
    if len(steps) < len(traces):
        return from_factors(policy, None, states, noise)
    factors = []
    for parts in zip(*steps, strict=True):
        inputs = [part.inputs for part in parts if part.inputs is not None]
        signals = torch.cat([part.signals for part in parts])
        factors.append(Factor(signals, torch.cat(inputs), parts[0].weight, parts[0].bias))
    return from_factors(policy, tuple(factors), states, noise)


def parameter_slices(policy: nn.Module) -> dict[int, slice]:
    """Where each parameter lies in the flattened θ, by the parameter's identity."""
    slices, begin = {}, 0
    for parameter in policy.parameters():
        slices[id(parameter)] = slice(begin, begin + parameter.numel())
        begin += parameter.numel()
    return slices


def linear_layers(policy: nn.Module) -> list[nn.Linear]:
    """Linear layers that own their weight (a parametrised weight is owned elsewhere)."""
    slices = parameter_slices(policy)
    return [m for m in policy.modules() if isinstance(m, nn.Linear) and id(m.weight) in slices]


@dataclass(frozen=True)
class _LinearCall:
    """One call of a linear layer; `version` tells whether its output was overwritten later."""

    layer: nn.Linear
    input: Tensor
    output: Tensor
    version: int


def _recorded_forward(
    policy: nn.Module, states: Tensor, noise: Tensor, layers: list[nn.Linear], copy: bool
) -> tuple[Tensor, list[_LinearCall]]:
    """Actions, and the layers' calls in order; `copy` shields outputs from in-place activations."""
    calls: list[_LinearCall] = []

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if isinstance(layer, nn.Linear):
            x = inputs[0].detach()
            calls.append(_LinearCall(layer, x.clone() if copy else x, output, output._version))
        return output.clone() if copy else None

    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        with torch.enable_grad():
            return act(policy, states, noise), calls
    finally:
        for hook in hooks:
            hook.remove()


def _each_parameter_once(
    layers: list[nn.Linear], calls: list[_LinearCall], slices: dict[int, slice], rows: int
) -> bool:
    owned = [id(p) for layer in layers for p in (layer.weight, layer.bias) if p is not None]
    called = sorted(id(call.layer) for call in calls)
    once = sorted(owned) == sorted(slices) and called == sorted(id(layer) for layer in layers)
    return once and all(
        c.output.ndim == 2 and len(c.output) == rows and c.output.requires_grad
        and c.input.shape[1:] == c.layer.weight.shape[1:]  # a forward of its own may take a part
        for c in calls
    )  # fmt: skip


def _agree(policy: nn.Module, factors: tuple[Factor, ...], states: Tensor, noise: Tensor) -> bool:
    """Do the factors give autograd's gradient? Not where a weight is used elsewhere too."""
    slices = parameter_slices(policy)
    with torch.enable_grad():
        action = act(policy, states, noise)
    cotangent = torch.linspace(0.5, 1.5, action.numel()).to(action).reshape(action.shape)
    trained = [p for p in policy.parameters() if p.requires_grad]
    grads = torch.autograd.grad(action, trained, cotangent, allow_unused=True)
    n, gradient = len(states), action.new_zeros(sum(p.numel() for p in policy.parameters()))
    for factor in factors:
        signal = torch.einsum("na,nao->no", cotangent, factor.signals[:n])
        if factor.weight is not None and factor.inputs is not None:
            gradient[factor.weight] = (signal.T @ factor.inputs[:n]).flatten()
        if factor.bias is not None:
            gradient[factor.bias] = signal.sum(dim=0)
    scale = max(float(gradient.abs().max()), 1e-30)
    tolerance = 1e-9 if action.dtype == torch.float64 else 1e-3
    return all(
        float((gradient[slices[id(p)]] - (0 if g is None else g.flatten())).abs().max())
        <= tolerance * scale
        for p, g in zip(trained, grads, strict=True)
    )


def _explicit_factor(policy: nn.Module, states: Tensor, noise: Tensor) -> Factor:
    with torch.no_grad():
        width = act(policy, states[:1], noise[:1]).shape[1]
    size = sum(p.numel() for p in policy.parameters())
    needed = states.element_size() * len(states) * width * size
    if needed > _MEMORY:
        raise InputError(
            f"explicit Jacobians of {len(states)} samples and steps need {needed / 1e9:.0f} GB: "
            f"use smaller blocks, fewer starts, or a policy of linear layers"
        )
    parameters = {name: p.detach() for name, p in policy.named_parameters()}

    def one(theta: dict[str, Tensor], s: Tensor, e: Tensor) -> Tensor:
        inputs = (s[None], e[None]) if e.shape[0] else (s[None],)
        action: Tensor = functional_call(policy, theta, inputs)
        return action[0]

    blocks = vmap(jacrev(one), in_dims=(None, 0, 0))(parameters, states, noise)
    trained = {name: p.requires_grad for name, p in policy.named_parameters()}
    signals = torch.cat([trained[k] * blocks[k].flatten(2) for k in parameters], dim=2)
    return Factor(signals, None, None, None)
