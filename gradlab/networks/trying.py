"""The first call of a user's policy or critic, which refuses what cannot be measured in one line.

raised       the error, with the remedy where its cause is known
returned     anything but one tensor
unsteady     other results for the same rows: it draws inside
undone       a backward pass that raises
detached     results that move with the inputs, but have no gradient in them
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from gradlab.errors import InputError

_ROWS = 256  # dropout leaves most rows of a narrow layer as they are
_MOVE = 0.5  # of the inputs, in which results are sought to move: far beyond a rounding to integers

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
    moved = tried(name, module, *(x * (1 + _MOVE) + _MOVE for x in inputs))
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
