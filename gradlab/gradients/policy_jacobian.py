"""J = ∂π_θ(s)/∂θ and K = ∂π_θ(s)/∂s, from one forward and da reverse passes.

For a linear layer with input x and backward signals D [da, out] (rows: one per action), the layer's
block of J is D ⊗ (x, 1): two thin factors per layer instead of a matrix da × P per sample. This
holds for any module whose parameters live in linear layers that are each used once; others get
explicit Jacobians from `torch.func`, with a warning. Frozen parameters have columns of zeros.

J is a linear operator from θ to the actions of N samples; of paths, samples are (step, start):

    J @ v          J_i v                              [d, P] → [d, N, da]
    J.T @ λ        Σ_i J_iᵀ λ_i                        [K, N, da] → [K, P]
    J.gram(T)      Θ_i = J_i J_iᵀ over the T steps of a start,  |Σ_t J_t,iᵀ λ_t,i|² = λ_iᵀ Θ_i λ_i

With factors D ⊗ (x, 1) every product is one for each layer, Θ = Σ_layers (D Dᵀ)(x·x + 1); gradients
of single samples are formed where they are asked for, and nowhere else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from gradlab.data.trajectories import Path
from gradlab.errors import Doubtful, InputError
from gradlab.networks.interface import act

ENTRIES = 1 << 22  # of Θ held at once
THIN = 4096  # weights of a layer below which its sums are one matrix product
ROWS = 1024  # rows of a block, so that a layer's factors stay in cache
_CACHED = 1 << 20  # entries of a layer's changes along directions that are held at once
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

    def __matmul__(self, directions: Tensor) -> Tensor:
        """J_i v for each direction v in θ, [d, P] → [d, N, da]."""
        d, n = len(directions), self.samples
        wide = (f.signals.shape[2] for f in self.factors if f.inputs is not None)
        rows = max(1, _CACHED // (d * max(wide, default=1)))
        if n > rows:
            return torch.cat([self.rows(block) @ directions for block in _blocks(n, rows)], dim=1)
        result = directions.new_zeros(d, n, self.action_dim)
        for factor in self.factors:
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

    @property
    def T(self) -> _Adjoint:
        """Its adjoint."""
        return _Adjoint(self)

    def along_own(self, directions: Tensor) -> Tensor:
        """J_t,i v_i with one direction for each start, [n, P] → [T, n, da]."""
        n = len(directions)
        t = self.samples // n
        result = directions.new_zeros(t, n, self.action_dim)
        for factor in self.factors:
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

    def gram(self, steps: int = 1, rows: slice = slice(None)) -> Tensor:
        """Θ_i over the steps of each of some starts, [n, T · da, T · da]."""
        theta: Tensor | None = None
        for factor in self.factors:
            D = _by_start(factor.signals, steps, rows)
            n, _, da, out = D.shape
            D = D.reshape(n, steps * da, out)
            part = D @ D.transpose(1, 2)
            if factor.inputs is not None:
                x = _by_start(factor.inputs, steps, rows)
                pairs = x.new_zeros(n, steps, steps)
                if factor.weight is not None:
                    pairs = x @ x.transpose(1, 2)
                if factor.bias is not None:
                    pairs = pairs + 1.0
                part.reshape(n, steps, da, steps, da).mul_(pairs[:, :, None, :, None])
            theta = part if theta is None else theta.add_(part)
        if theta is None:
            raise AssertionError("a policy without parameters has no Gram matrix")
        return theta

    def squared_norms(self, costates: Tensor) -> Tensor:
        """|Σ_t J_t,iᵀ λᵏ_t,i|² for K sets of costates, [K, T, n, da] → [K, n]."""
        k, t, n, da = costates.shape
        squares = []
        for rows in _blocks(n, max(1, ENTRIES // (t * da) ** 2)):
            at = costates[:, :, rows].permute(2, 0, 1, 3).reshape(-1, k, t * da)
            squares.append(((at @ self.gram(t, rows)) * at).sum(dim=2))
        return torch.cat(squares).T

    def gradients(self, costates: Tensor, part: slice | None = None) -> Tensor:
        """Σ_t J_t,iᵀ λ_t,i of each start, [T, n, da] → [n, P].

        Args:
            part: one of `parameter_blocks`, where only these parameters are wanted.
        """
        t, n, _ = costates.shape
        part = slice(0, self.size) if part is None else part
        result = costates.new_zeros(n, part.stop - part.start)
        for factor in self.factors:
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


class _Adjoint:
    """Jᵀ, from what is given to each action to θ."""

    def __init__(self, jacobian: PolicyJacobian) -> None:
        self.jacobian = jacobian

    def __matmul__(self, costates: Tensor) -> Tensor:
        """Σ_i J_iᵀ λ_i, [K, N, da] → [K, P].

        All K by one product with the explicit D ⊗ x of a thin layer; of a wide one set by set while
        a block of samples is in cache, where the set is not 0.
        """
        k, n, da = costates.shape
        result = costates.new_zeros(k, self.jacobian.size)
        flat = costates.reshape(k, n * da)
        for factor in self.jacobian.factors:
            D = factor.signals.reshape(n * da, -1)
            if factor.inputs is None:
                result += flat @ D
                continue
            if factor.bias is not None:
                result[:, factor.bias] = flat @ D
            if factor.weight is not None:
                thin = D.shape[1] * factor.inputs.shape[1] <= THIN
                result[:, factor.weight] = (_thin_sums if thin else _wide_sums)(factor, costates)
        return result


def _thin_sums(factor: Factor, costates: Tensor) -> Tensor:
    assert factor.inputs is not None
    total = costates.new_zeros(len(costates), factor.signals.shape[2] * factor.inputs.shape[1])
    for rows in _blocks(costates.shape[1], ROWS):
        D, x = factor.signals[rows], factor.inputs[rows]
        outer = (D[:, :, :, None] * x[:, None, None, :]).flatten(2)
        total += costates[:, rows].flatten(1) @ outer.flatten(0, 1)
    return total


def _wide_sums(factor: Factor, costates: Tensor) -> Tensor:
    assert factor.inputs is not None
    out, width = factor.signals.shape[2], factor.inputs.shape[1]
    sums = costates.new_zeros(len(costates), out, width)
    for rows in _blocks(costates.shape[1], ROWS):
        D, x = factor.signals[rows].transpose(0, 1).contiguous(), factor.inputs[rows]
        for k, given in enumerate(costates[:, rows]):
            if not given.any():  # past a horizon's end
                continue
            signal = D[0] * given[:, :1]
            for a in range(1, len(D)):
                signal.addcmul_(D[a], given[:, a : a + 1])
            sums[k].addmm_(signal.T, x)
    return sums.flatten(1)


def _blocks(total: int, most: int) -> Iterator[slice]:
    return (slice(begin, min(begin + most, total)) for begin in range(0, total, most))


def _by_start(values: Tensor, steps: int, rows: slice) -> Tensor:
    """[T · n, …] → [rows, T, …]."""
    return values.reshape(steps, -1, *values.shape[1:])[:, rows].transpose(0, 1)


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
    # By an in-place activation.
    if any(output._version != version for _, _, output, version in calls):
        action, calls = _recorded_forward(policy, leaf, noise, layers, copy=True)
    layered = _each_parameter_once(layers, calls, slices, len(states))
    outputs = [output for _, _, output, _ in calls] if layered else []
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
    for k, (layer, inputs, _, _) in enumerate(calls):
        weight, bias = (
            slices[id(p)] if p is not None and p.requires_grad else None
            for p in (layer.weight, layer.bias)
        )
        if weight is not None or bias is not None:
            signals = torch.stack([row[k + 1] for row in passes], dim=1)
            factors.append(Factor(signals, inputs, weight, bias))
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


# One call of a linear layer: input, output, and the output's version, which tells whether it was
# overwritten later.
_Call = tuple[nn.Linear, Tensor, Tensor, int]


def _recorded_forward(
    policy: nn.Module, states: Tensor, noise: Tensor, layers: list[nn.Linear], copy: bool
) -> tuple[Tensor, list[_Call]]:
    """Actions, and the layers' calls in order; `copy` shields outputs from in-place activations."""
    calls: list[_Call] = []

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if isinstance(layer, nn.Linear):
            x = inputs[0].detach()
            calls.append((layer, x.clone() if copy else x, output, output._version))
        return output.clone() if copy else None

    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        with torch.enable_grad():
            return act(policy, states, noise), calls
    finally:
        for hook in hooks:
            hook.remove()


def _each_parameter_once(
    layers: list[nn.Linear], calls: list[_Call], slices: dict[int, slice], rows: int
) -> bool:
    owned = [id(p) for layer in layers for p in (layer.weight, layer.bias) if p is not None]
    called = sorted(id(layer) for layer, *_ in calls)
    once = sorted(owned) == sorted(slices) and called == sorted(id(layer) for layer in layers)
    return once and all(
        output.ndim == 2 and len(output) == rows and output.requires_grad
        and inputs.shape[1:] == layer.weight.shape[1:]  # a forward of its own may take a part
        for layer, inputs, output, _ in calls
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
