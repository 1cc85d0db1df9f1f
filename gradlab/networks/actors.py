"""Actors of other programs as policies whose noise is an argument.

    squashed(actor)            a = scale · tanh(μ + σ ε) + bias    SAC: actor(state) → (μ, log σ)
    gaussian(mean, log_std)    a = μ + σ ε                         PPO: log σ a parameter

Both hold the actor's own parameters, so that they follow its training, and give densities, so that
scores can be taken. A deterministic actor, as TD3's and DDPG's, is a policy as it is.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, final

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.errors import InputError
from gradlab.networks.policies import NormalPolicy

_Bound = float | Sequence[float] | Tensor


def squashed(
    actor: nn.Module, scale: _Bound | None = None, bias: _Bound | None = None
) -> Reparameterised:
    """A tanh-Gaussian policy of an actor that returns mean and log standard deviation.

    Args:
        actor: state [N, ds] → (μ [N, da], log σ [N, da]), as CleanRL's SAC, or a torch Normal.
        scale, bias: the actions' half width and middle, action units, one number or one per
            action; None: the actor's own `action_scale` and `action_bias`, else 1 and 0.

    Raises:
        InputError: the actor returns something else.
    """
    half = getattr(actor, "action_scale", 1.0) if scale is None else scale
    middle = getattr(actor, "action_bias", 0.0) if bias is None else bias
    policy = Reparameterised(actor, None, _row(half), _row(middle))
    if not isinstance(half, float | int):  # one number for each action, also where that is one
        policy.noise_dim = len(_row(half))
    return policy


def gaussian(actor: nn.Module, log_std: Tensor | None = None) -> Reparameterised:
    """A Gaussian policy of a mean network, or of an actor that returns mean and log deviation.

    Args:
        actor: state [N, ds] → μ [N, da], or → (μ, log σ) where `log_std` is None.
        log_std: log σ of every action, [da] or [1, da]; as CleanRL's PPO, where it is a parameter:
            `gaussian(agent.actor_mean, agent.actor_logstd)`.
    """
    return Reparameterised(actor, log_std, None, None)


@final
class Reparameterised(NormalPolicy):
    """See `squashed` and `gaussian`."""

    scale: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        actor: nn.Module,
        log_std: Tensor | None,
        scale: Tensor | None,
        bias: Tensor | None,
    ) -> None:
        super().__init__()
        validation.instance("actor", actor, nn.Module, "a torch.nn.Module")
        kinds = (Tensor, type(None))
        validation.instance("log_std", log_std, kinds, "a tensor, log σ of every action")
        self.actor = actor
        if isinstance(log_std, nn.Parameter):
            self.log_std: Tensor | None = log_std
        else:
            self.register_buffer("log_std", log_std)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.noise_dim = _width(actor, log_std, scale)

    def normal(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return _normal(self.actor(state), self.log_std)

    def ends(self, like: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.scale is None or self.bias is None:
            return None
        return self.scale.to(like), self.bias.to(like)


def _normal(returned: Any, fixed: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and log σ of what an actor returns; raises InputError."""
    returned = getattr(returned, "base_dist", returned)  # of Independent
    if isinstance(returned, torch.distributions.Normal):
        returned = returned.loc, returned.scale.log()
    if fixed is not None and isinstance(returned, Tensor):
        return returned, fixed.reshape(1, -1).expand_as(returned)
    if isinstance(returned, tuple | list) and len(returned) == 2 and fixed is None:
        mean, log_std = returned
        return mean, log_std.expand_as(mean)
    got = (
        f"{len(returned)} values" if isinstance(returned, tuple | list) else type(returned).__name__
    )
    wanted = "mean and log_std" if fixed is None else "the mean alone"
    raise InputError(f"actor returns {got}, expected {wanted}: see docs/own_task.md")


def _row(bound: _Bound) -> Tensor:
    values = bound if isinstance(bound, Tensor) else torch.tensor(bound, dtype=torch.float64)
    flat = values.detach().reshape(-1)
    if not bool(torch.isfinite(flat).all()):
        raise InputError("scale or bias is not finite: the actions have no bounds; use gaussian()")
    return flat


def _width(actor: nn.Module, log_std: Tensor | None, scale: Tensor | None) -> int:
    """da: of log σ, of the bounds, else of the means that a copy gives, where its first layer takes
    the states, or of the actor's last linear layer."""
    if log_std is not None:
        return math.prod(log_std.shape)
    if scale is not None and len(scale) > 1:
        return len(scale)
    linear = [module for module in actor.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError("actor has no linear layer to tell its width: give scale per action")
    with suppress(Exception), torch.no_grad(), torch.random.fork_rng(devices=[]):
        twin = copy.deepcopy(getattr(actor, "_orig_mod", actor)).eval()
        state = linear[0].weight.new_zeros(1, linear[0].in_features)
        return _normal(twin(state), None)[0].shape[1]
    return linear[-1].out_features
