"""How gradlab calls a user's policy and critic: any `torch.nn.Module` that treats rows alone.

policy(state) → [N, da], or policy(state, noise) where it has an attribute `noise_dim`
critic(state, action) → [N] (a Q critic), or critic(state) → [N] (a V critic); [N, 1] is taken, too
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrizations

from gradlab import validation
from gradlab.errors import InputError
from gradlab.networks.critics import FunctionCritic
from gradlab.networks.rows import check_rows
from gradlab.networks.spectral import SpectralNorm
from gradlab.networks.trying import check_attached, check_steady, tried

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
    """A float64 copy of a user's network, which is left alone.

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
        return copy.deepcopy(module).double()
    except RuntimeError as error:
        raise InputError(
            f"{name} cannot be copied ({str(error).splitlines()[0][:100]}…): with weight_norm or "
            f"spectral_norm of torch.nn.utils, use those of torch.nn.utils.parametrizations"
        ) from error


def _check_sound(name: str, module: nn.Module, state: Tensor) -> None:
    if not isinstance(module, nn.Module):
        raise InputError(f"{name} is {validation.shown(module)}, expected a torch.nn.Module")
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
