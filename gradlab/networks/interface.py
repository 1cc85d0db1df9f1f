"""How gradlab calls a user's policy and critic: any `torch.nn.Module` that treats rows alone.

policy(state) → [N, da], or policy(state, noise) where it has an attribute `noise_dim`
critic(state, action) → [N] (a Q critic), or critic(state) → [N] (a V critic); [N, 1] is taken, too
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gradlab.errors import InputError
from gradlab.networks.critics import FunctionCritic
from gradlab.networks.rows import check_rows
from gradlab.networks.spectral import SpectralNorm

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


def check_policy(policy: nn.Module, state: Tensor, action_dim: int) -> None:
    """Try the policy on a batch of states before anything expensive begins.

    Raises:
        InputError: for dropout, batch-norm or spectral norm in train mode, a dtype other than the
            states', a non-finite parameter, an action of another shape than [N, action_dim],
            actions drawn inside, or rows that are mixed.
    """
    _check_module("policy", policy, state)
    probe = state[:2]
    noise = torch.zeros(len(probe), noise_dim(policy), dtype=state.dtype, device=state.device)
    inputs = (probe, noise) if noise.shape[1] else (probe,)
    with torch.no_grad():
        action = _try("policy", policy, *inputs)
    if action.shape != (len(probe), action_dim):
        raise InputError(
            f"policy returns shape {tuple(action.shape)} for {len(probe)} states, "
            f"expected [{len(probe)}, {action_dim}]"
        )
    _check_steady(policy, action, *inputs)
    check_rows("policy", policy, *inputs)


def check_critic(critic: nn.Module, value: str, state: Tensor, action_dim: int) -> None:
    """The same for a critic, which must return one value per row, [N] or [N, 1] (see `judge`).

    Raises:
        InputError: as `check_policy`.
    """
    _check_module("critic", critic, state)
    probe = state[:2]
    action = torch.zeros(len(probe), action_dim, dtype=state.dtype, device=state.device)
    inputs = (probe,) if value == "V" else (probe, action)
    with torch.no_grad():
        out = _try("critic", critic, *inputs)
    if out.shape not in ((len(probe),), (len(probe), 1)):
        raise InputError(
            f"critic returns shape {tuple(out.shape)} for {len(probe)} rows, "
            f"expected [{len(probe)}]: one value for each"
        )
    check_rows("critic", critic, *inputs)


def _try(name: str, module: nn.Module, *inputs: Tensor) -> Tensor:
    try:
        with torch.random.fork_rng(devices=[]):
            out = module(*inputs)
    except InputError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(each.shape)) for each in inputs)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = _CRITIC if name == "critic" else _remedy(error)
        raise InputError(f"{name} cannot take inputs of shape {shapes}: {reason}{hint}") from error
    if isinstance(out, Tensor):
        return out
    got = _described(out)
    hint = _CHOSEN if name == "critic" else _MADE
    raise InputError(f"{name} returns {got}, expected one tensor: {hint}")


_MADE = (
    "of a mean and a log standard deviation, gradlab.networks.actors.squashed(actor) makes a "
    "tanh-Gaussian policy and gaussian(actor) a Gaussian one"
)


def _remedy(error: Exception) -> str:
    """What to do about a policy that fails."""
    if isinstance(error, NotImplementedError):  # torch's, of a module without forward
        return (
            "; of a mean network and log σ, gradlab.networks.actors.gaussian(agent.actor_mean, "
            "agent.actor_logstd) makes a policy"
        )
    if "dtype" in str(error):
        return (
            "; it turns its states to another dtype: leave that out (Stable-Baselines3's: "
            "gradlab.integrations.stable_baselines3_models.parts_of(model).policy)"
        )
    return ""


_CRITIC = (
    "; of one input, critic=lambda s, a: net(torch.cat([s, a], 1)); a critic of states alone needs "
    "Tail(value='V')"
)
_CHOSEN = "choose, critic=lambda s, a: torch.minimum(*critics(s, a))"


def _described(out: object) -> str:
    if not isinstance(out, tuple | list):
        return f"a {type(out).__name__}"
    shapes = [list(each.shape) if isinstance(each, Tensor) else type(each).__name__ for each in out]
    return f"{len(out)} values ({', '.join(map(str, shapes))})"


def _check_steady(policy: nn.Module, action: Tensor, *inputs: Tensor) -> None:
    """Refuse a policy that draws inside: its noise could be neither repeated nor differentiated."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.rand(1)  # the streams stand elsewhere than before
        again = policy(*inputs)
    if not torch.equal(again.nan_to_num(), action.nan_to_num()):
        raise InputError(
            "policy gives other actions at the same states: it draws inside forward. Its noise "
            "must be an argument: set self.noise_dim = da, and forward(self, state, noise) "
            "returns mean + std * noise; or gradlab.networks.actors.squashed(actor), gaussian(...)"
        )


def check_trainable(policy: nn.Module) -> None:
    """Is there a θ to differentiate?

    Raises:
        InputError: every parameter is frozen.
    """
    if not any(p.requires_grad for p in policy.parameters()):
        raise InputError("policy has no trainable parameter: call policy.requires_grad_(True)")


def _check_module(name: str, module: nn.Module, state: Tensor) -> None:
    if not isinstance(module, nn.Module) or (
        name == "policy" and isinstance(module, FunctionCritic)
    ):
        kind = "function" if callable(module) else type(module).__name__
        raise InputError(f"{name} is a {kind}, expected a torch.nn.Module, whose parameters are θ")
    for child in module.modules():
        if child.training and isinstance(child, _UNSTEADY):
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
        if not torch.isfinite(parameter).all():
            raise InputError(f"{name} parameter {key} is not finite: load a sound checkpoint")
