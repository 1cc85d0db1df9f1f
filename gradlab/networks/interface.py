"""How gradlab calls a user's policy and critic: any `torch.nn.Module` that treats rows alone.

policy(state) → [N, da], or policy(state, noise) where it has an attribute `noise_dim`
critic(state, action) → [N] (a Q critic), or critic(state) → [N] (a V critic); [N, 1] is taken, too

Rows are independent: with a batch mean, a softmax over dim 0 or batch statistics a gradient "per
sample" belongs to no sample, and every variance is wrong. `check_rows` tries it.

The first call of a policy or critic refuses in one line what cannot be measured:

raised       the error, with the remedy where its cause is known
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
from torch.distributions import Distribution
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrizations

from gradlab import validation
from gradlab.errors import InputError, in_short
from gradlab.networks.mlp import FunctionCritic
from gradlab.networks.spectral import SpectralNorm

_ROWS = 256  # dropout leaves most rows of a narrow layer as they are
_INPUTS_MOVE = (
    0.5  # of the inputs, in which results are sought to move: far beyond a rounding to integers
)

_NOISE = (
    "set self.noise_dim = da, and forward(self, state, noise) returns mean + std * noise; or "
    "gradlab.networks.actors.squashed(actor), gaussian(...)"
)
_PAIR = (
    "of a mean and a log standard deviation, gradlab.networks.actors.squashed(actor) makes a "
    "tanh-Gaussian policy and gaussian(actor) a Gaussian one"
)
_SPLIT = (
    "; of a mean network and log σ, gradlab.networks.actors.gaussian(agent.actor_mean, "
    "agent.actor_logstd) makes a policy"
)
_CAST = (
    "; it turns its inputs to another dtype: leave that out (Stable-Baselines3's: "
    "gradlab.integrations.stable_baselines3.parts_of(model).{})"
)
_ELSEWHERE = (
    "; its inputs are on {}: what it computes with is to be there, too, as by .to(state.device) or "
    "as a buffer of the module"
)
_INPUTS = (
    "; of one input, critic=lambda s, a: net(torch.cat([s, a], 1)); a critic of states alone needs "
    "Tail(value='V')"
)
_MEMORY = (
    "; of a policy that remembers, task, policy, critic = gradlab.tasks.with_memory(task, policy)"
)
_LEAST = "choose, critic=lambda s, a: torch.minimum(*critics(s, a))"


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
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        other = _other_width(name, module, inputs) if "cannot be multiplied" in reason else ""
        reason = other or f"{reason}{_cure(name, error, inputs)}"
        raise InputError(f"{name} cannot take inputs of shape {shapes}: {reason}") from error
    if isinstance(out, Tensor):
        return out
    raise InputError(f"{name} returns {_described(out)}, expected one tensor: {_wanted(name, out)}")


def check_steady(
    name: str, module: Callable[..., Tensor], *inputs: Tensor, remedy: str = ""
) -> None:
    """Refuse a module that draws inside: its noise could be neither repeated nor differentiated.

    Args:
        remedy: in the place of that for a network.

    Raises:
        InputError: two calls differ.
    """
    many = [x[:1].repeat(_ROWS, 1) for x in inputs]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        one, again = (module(*many).nan_to_num() for _ in range(2))
    if torch.equal(one, again):
        return
    if name == "policy":
        raise InputError(
            f"policy gives other actions at the same states: it draws inside forward. Its noise "
            f"must be an argument: {_NOISE}{_MEMORY}"
        )
    raise InputError(
        f"{name} gives other values for the same rows: it draws inside"
        f"{remedy or f'. Call {name}.eval() first, or leave the draw out'}"
    )


def check_backward(name: str, module: nn.Module, *inputs: Tensor) -> None:
    """Refuse a module through which no backward pass gets.

    Raises:
        InputError: the backward pass raises, as after an operation in place.
    """
    leaves = [p for p in module.parameters() if p.requires_grad]
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        out = module(*inputs)
        if not (out.requires_grad and leaves):
            return
        try:
            torch.autograd.grad(out.sum(), leaves, allow_unused=True)
        except RuntimeError as error:
            reason = str(error).splitlines()[0].split(": [")[0]
            raise InputError(
                f"{name} cannot be differentiated in its parameters: {reason}"
            ) from error


def check_attached(name: str, module: nn.Module, *inputs: Tensor) -> None:
    """Refuse a module that varies with its inputs without a gradient; a constant has one, 0.

    Raises:
        InputError: it is detached.
    """
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
            f"{name} has no gradient in its inputs: its values are detached from them; remove "
            f"no_grad, detach, rounding or numpy between them"
        )


def _other_width(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """That the first layer is of another task; "" where it is not."""
    state, *others = (x.shape[1] for x in inputs)
    action = sum(others) if name == "critic" else 0  # a policy's other input is noise
    first = next((each for each in module.modules() if isinstance(each, nn.Linear)), None)
    if first is None or first.in_features in (state, state + action):
        return ""
    task = f"{state} states" + (f" and {action} actions" if action else "")
    return (
        f"the task has {task}, the {name}'s first layer takes {first.in_features}: give a {name} "
        f"of this task"
    )


def _cure(name: str, error: Exception, inputs: tuple[Tensor, ...]) -> str:
    """Advice about an error, from its words."""
    words = str(error)
    if isinstance(error, NotImplementedError) and name == "policy":
        return _SPLIT
    if "device" in words:
        return _ELSEWHERE.format(inputs[0].device)
    if "dtype" in words:
        return _CAST.format(name)
    if name == "critic":
        explained = isinstance(error, TypeError | NotImplementedError) or "shape" in words
        return _INPUTS if explained else ""
    if "positional argument" in words:
        noisy = "; with noise_dim it is called as policy(state, noise)"
        return noisy if len(inputs) == 2 else _MEMORY
    return ""


def _wanted(name: str, out: object) -> str:
    several = isinstance(out, tuple | list)
    if name == "policy":
        if isinstance(out, tuple | list):
            shapes = [getattr(x, "shape", None) for x in out]
            if None in shapes or len(set(map(str, shapes))) > 1:  # no mean with its σ
                return f"return the actions [N, da] alone{_MEMORY}"
        pair = several or isinstance(out, Distribution)
        return _PAIR if pair else "return the actions [N, da]"
    return _LEAST if several else "return [N], computed from state and action with torch"


def _described(out: object) -> str:
    if not isinstance(out, tuple | list):
        return f"a {type(out).__name__}"
    shapes = [list(x.shape) if isinstance(x, Tensor) else type(x).__name__ for x in out]
    return f"{len(out)} values ({', '.join(map(str, shapes))})"


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
    _check_sound("policy", policy, state)
    probe = state[:2]
    noise = torch.zeros(len(probe), noise_dim(policy), dtype=state.dtype, device=state.device)
    inputs = (probe, noise) if noise.shape[1] else (probe,)
    action = tried("policy", policy, *inputs)
    if action.shape != (len(probe), action_dim):
        raise InputError(
            f"policy returns shape {tuple(action.shape)} for {len(probe)} states, "
            f"expected [{len(probe)}, {action_dim}]"
        )
    check_steady("policy", policy, *inputs)
    check_backward("policy", policy, *inputs)
    check_rows("policy", policy, *inputs)


def check_critic(critic: nn.Module, value: str, state: Tensor, action_dim: int) -> None:
    """Try the critic, which must return one value per row, [N] or [N, 1] (see `judge`).

    Raises:
        InputError: as `check_policy`, or for values that are detached from their inputs.
    """
    _check_sound("critic", critic, state)
    probe = state[:2]
    action = torch.zeros(len(probe), action_dim, dtype=state.dtype, device=state.device)
    inputs = (probe,) if value == "V" else (probe, action)
    out = tried("critic", critic, *inputs)
    if out.shape not in ((len(probe),), (len(probe), 1)):
        raise InputError(
            f"critic returns shape {tuple(out.shape)} for {len(probe)} rows, "
            f"expected [{len(probe)}]: one value for each"
        )
    check_steady("critic", critic, *inputs)
    check_attached("critic", critic, *inputs)
    check_rows("critic", critic, *inputs)


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
