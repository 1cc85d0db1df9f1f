"""How gradlab calls a user's policy and critic: any `torch.nn.Module` that treats rows alone.

policy(state) → [N, da], or policy(state, noise) where it has an attribute `noise_dim`
critic(state, action) → [N] (a Q critic), or critic(state) → [N] (a V critic); [N, 1] is taken, too

Rows are independent: with a batch mean, a softmax over dim 0 or batch statistics a gradient "per
sample" belongs to no sample, and every variance is wrong. `check_rows` tries it.

The first call of a policy or critic refuses in one line what cannot be measured:

raised       the error, with how it is called
returned     anything but one tensor
unsteady     other results for the same rows: it draws inside
undone       a backward pass that raises
detached     results that move with the inputs, but have no gradient in them
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrizations

from gradlab import validation
from gradlab.errors import InputError, in_short
from gradlab.networks.mlp import FunctionCritic
from gradlab.networks.spectral import SpectralNorm

_ROWS = 256  # dropout leaves most rows of a narrow layer as they are
_INPUTS_MOVE = 0.5  # of inputs, by which results are sought to move: beyond rounding to integers

_CALLED = {
    "policy": (
        "it is called as policy(state), or policy(state, noise) where it has noise_dim, and "
        "returns the actions [N, da]; gradlab.networks.actors makes one of an actor that returns a "
        "law, gradlab.tasks.with_memory of one that remembers"
    ),
    "critic": (
        "it is called as critic(state, action), with Tail(value='V') as critic(state), and returns "
        "one tensor [N]"
    ),
}


def tried(name: str, module: nn.Module, *inputs: Tensor) -> Tensor:
    """The return value of the module.

    Raises:
        InputError: it raises, or returns anything but one tensor.
    """
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            out = module(*inputs)
    except InputError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise InputError(
            f"{name} cannot take inputs of shape {shapes} ({in_short(error)}): {_CALLED[name]}"
        ) from error
    if isinstance(out, Tensor):
        return out
    raise InputError(f"{name} returns a {type(out).__name__}: {_CALLED[name]}")


def check_steady(name: str, module: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Refuse a module that draws inside: its noise could be neither repeated nor differentiated.

    Raises:
        InputError: two calls differ.
    """
    many = [x[:1].repeat(_ROWS, 1) for x in inputs]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        one, again = (module(*many).nan_to_num() for _ in range(2))
    if not torch.equal(one, again):
        raise InputError(
            f"{name} gives other values for the same rows: it draws inside forward; make its noise "
            f"an argument, with noise_dim, or call {name}.eval() first"
        )


def _check_backward(name: str, module: nn.Module, *inputs: Tensor) -> None:
    """Refuse a module through which no backward pass gets, as after an operation in place."""
    leaves = [p for p in module.parameters() if p.requires_grad]
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        out = module(*inputs)
        if not (out.requires_grad and leaves):
            return
        try:
            torch.autograd.grad(out.sum(), leaves, allow_unused=True)
        except RuntimeError as error:
            reason = in_short(error).split(": [")[0]
            raise InputError(
                f"{name} cannot be differentiated in its parameters: {reason}"
            ) from error


def _check_attached(name: str, module: nn.Module, *inputs: Tensor) -> None:
    """Refuse a module that varies with its inputs without a gradient; a constant has one, 0."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        out = module(*leaves)
    if out.requires_grad:
        grads = torch.autograd.grad(out.sum(), leaves, allow_unused=True)
        if any(grad is not None for grad in grads):
            return
    moved = tried(name, module, *(x * (1 + _INPUTS_MOVE) + _INPUTS_MOVE for x in inputs))
    if not torch.equal(out.detach(), moved):
        raise InputError(
            f"{name} has no gradient in its inputs: remove no_grad, detach, rounding or numpy"
        )


@final
class ClippedVelocities(nn.Module):
    """Columns from `first` on clipped to ±limit, as Gymnasium's Hopper and Walker2d show them.

    The clip belongs to the policy: beyond it K = ∂π/∂s has zeros, the system's A has none.
    """

    def __init__(self, first: int, limit: float) -> None:
        super().__init__()
        self.first, self.limit = first, limit

    def forward(self, state: Tensor) -> Tensor:
        positions, velocities = state[:, : self.first], state[:, self.first :]
        return torch.cat([positions, velocities.clamp(-self.limit, self.limit)], dim=1)


_MOVE = 0.01  # of the neighbour: far beyond rounding, and hardly out of its range
_ROUNDING = 1e4  # units of machine epsilon, relative to the largest output


def check_rows(name: str, function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Refuse a function whose first row changes with the second.

    Args:
        function: of tensors with N rows each, to one tensor with N rows; what it makes of rows out
            of its range, or at random, is not tested here.
        inputs: at least 2 rows each, or nothing is tried.

    Raises:
        InputError: names the function and the usual causes.
    """
    pair = [x[:2] for x in inputs]
    if len(pair[0]) < 2:
        return
    moved = [torch.cat([x[:1], x[1:] * (1 + _MOVE) + _MOVE]) for x in pair]

    def first(inputs: list[Tensor]) -> Tensor:
        return function(*(x.clone() for x in inputs))[0].nan_to_num()

    try:
        with torch.no_grad():
            alone, again, other = map(first, (pair, pair, moved))
    except (RuntimeError, ValueError, ArithmeticError, IndexError, InputError):
        return
    if torch.equal(alone, again) and not _same(alone, other):
        raise InputError(
            f"{name} mixes the rows of a batch: the first row's result changes with the second "
            f"row; look for a mean or softmax over dim 0, batch statistics, or a reshape"
        )


def _same(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    size = max(float(one.abs().max()), float(other.abs().max())) if one.numel() else 0.0
    return float((one - other).abs().max()) <= _ROUNDING * torch.finfo(one.dtype).eps * size


# Train-mode spectral normalisation takes a power-iteration step, and so changes, at every call.
_UNSTEADY = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.dropout._DropoutNd,
    parametrizations._SpectralNorm,
    SpectralNorm,
)


def noise_dim(policy: nn.Module) -> int:
    """Width of the policy's noise; 0 for a deterministic policy."""
    return int(getattr(policy, "noise_dim", 0))


def act(policy: nn.Module, state: Tensor, noise: Tensor) -> Tensor:
    """Actions [N, da] at states [N, ds] for given policy noise [N, noise_dim]."""
    action: Tensor = policy(state, noise) if noise_dim(policy) else policy(state)
    return action


# Steps of a graph that scale, move, cut off or convert what they are given.
_ALONG = {"Mul", "Div", "Add", "Sub", "Rsub", "Neg", "Clamp", "ToCopy", "View", "Clone"}


def last_tanh(action: Tensor) -> Tensor | None:
    """The values of the tanh that `action` ends with, in whatever units it is scaled to, from the
    pass's own graph; None where it ends otherwise."""
    node = action.grad_fn
    while node is not None and node.name() != "TanhBackward0":
        before = [each for each, _ in node.next_functions if each is not None]
        along = node.name().rstrip("0123456789").removesuffix("Backward") in _ALONG
        node = before[0] if along and len(before) == 1 else None
    saved = getattr(node, "_raw_saved_result", None)
    if saved is None or saved.unpack_hook is not None:  # of a checkpoint: it would pass again
        return None
    return saved.data if saved.data.shape == action.shape else None


def flat_parameters(policy: nn.Module) -> Tensor:
    """θ in `policy.parameters()` order, detached, [P]; of any memory layout, which
    `nn.utils.parameters_to_vector` is not."""
    return torch.cat([p.detach().reshape(-1) for p in policy.parameters()])


def check_policy(policy: nn.Module, state: Tensor, action_dim: int) -> None:
    """Try the policy on a batch of states before anything expensive begins.

    Raises:
        InputError: for dropout, batch-norm or spectral norm in train mode, a dtype other than the
            states', a non-finite parameter, an action of another shape than [N, action_dim],
            actions drawn inside, or rows that are mixed.
    """
    probe = state[:2]
    noise = probe.new_zeros(len(probe), noise_dim(policy))
    inputs = (probe, noise) if noise.shape[1] else (probe,)
    _check_network("policy", policy, inputs, [(len(probe), action_dim)], _check_backward)


def check_critic(critic: nn.Module, value: str, state: Tensor, action_dim: int) -> None:
    """Try the critic, which must return one value per row, [N] or [N, 1] (see `judge`).

    Raises:
        InputError: as `check_policy`, or for values that are detached from their inputs.
    """
    probe = state[:2]
    n = len(probe)
    inputs = (probe,) if value == "V" else (probe, probe.new_zeros(n, action_dim))
    _check_network("critic", critic, inputs, [(n,), (n, 1)], _check_attached)


def _check_network(
    name: str,
    network: nn.Module,
    inputs: tuple[Tensor, ...],
    shapes: list[tuple[int, ...]],
    check_gradient: Callable[..., None],
) -> None:
    """Raises InputError: as `check_policy`; `shapes` are those that it may return."""
    _check_sound(name, network, inputs[0])
    out = tried(name, network, *inputs)
    if out.shape not in shapes:
        got, rows = tuple(out.shape), len(inputs[0])
        raise InputError(f"{name} returns shape {got} for {rows} rows, expected {list(shapes[0])}")
    check_steady(name, network, *inputs)
    check_gradient(name, network, *inputs)
    check_rows(name, network, *inputs)


def check_trainable(policy: nn.Module) -> None:
    """Check that there is a θ to differentiate.

    Raises:
        InputError: every parameter is frozen.
    """
    if not any(p.requires_grad for p in policy.parameters()):
        raise InputError("policy has no trainable parameter: call policy.requires_grad_(True)")


def double_copy(name: str, module: nn.Module) -> nn.Module:
    """A float64 copy of a user's network on the CPU, where simulators are; it is left alone.

    Raises:
        InputError: it is no module, or none that can be copied.
    """
    if not isinstance(module, nn.Module) or (
        name == "policy" and isinstance(module, FunctionCritic)
    ):
        kind = "a function" if isinstance(module, FunctionCritic) else validation.shown(module)
        raise InputError(f"{name} is {kind}, expected a torch.nn.Module, whose parameters are θ")
    if name == "policy" and isinstance(module, torch.jit.ScriptModule):
        raise InputError(f"{name} is a {type(module).__name__}: give the module it was made from")
    if any(isinstance(p, UninitializedParameter) for p in module.parameters()):
        raise InputError(f"{name} has lazy parameters: run one forward pass first")
    try:
        return on_cpu(copy.deepcopy(module)).double()
    except RuntimeError as error:
        raise InputError(
            f"{name} cannot be copied ({in_short(error)}): with weight_norm or "
            f"spectral_norm of torch.nn.utils, use those of torch.nn.utils.parametrizations"
        ) from error


def on_cpu(module: nn.Module) -> nn.Module:
    """Itself, moved. What has no values, on the meta device, stays: no pass may read it."""
    module._apply(lambda x: x if x.is_meta else x.cpu())  # type: ignore[no-untyped-call]
    return module


def _check_sound(name: str, module: nn.Module, state: Tensor) -> None:
    validation.instance(name, module, nn.Module, "a torch.nn.Module")
    for child in module.modules():
        still = getattr(child, "p", 1.0) == 0.0  # dropout of nothing, as in a transformer's layers
        if child.training and isinstance(child, _UNSTEADY) and not still:
            raise InputError(
                f"{name} has {type(child).__name__} in train mode, which makes its gradient "
                f"random, unsteady or mixes samples: call {name}.eval() first"
            )
    for key, parameter in module.named_parameters():
        if parameter.dtype != state.dtype:
            raise InputError(
                f"{name} parameter {key} is {parameter.dtype} but the states are {state.dtype}: "
                f"convert one of them"
            )
        if parameter.is_meta and name == "policy":
            raise InputError(f"policy parameter {key} has no values: it is on the meta device")
        if not (parameter.is_meta or torch.isfinite(parameter).all()):
            raise InputError(f"{name} parameter {key} is not finite: load a sound checkpoint")
