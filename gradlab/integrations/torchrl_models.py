"""Losses of TorchRL as the probe needs them: θ, its optimiser, policy and critic.

    loss.actor_network        TensorDict → TensorDict, stateful: θ are its own parameters
    loss.qvalue_network       one or several critics, their parameters stacked; DDPG: value_network

The policy's action is its mean one (`ExplorationType.DETERMINISTIC`). The modules here hold the
loss's own, so that they follow training; they are called on copies only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from gradlab.errors import InputError, not_installed
from gradlab.integrations.states import LoopParts
from gradlab.probe.policy_calls import Limits, Watched, as_it_is, limits, limits_of

try:
    from tensordict import TensorDict
    from tensordict.nn import ProbabilisticTensorDictModule, TensorDictModule, TensorDictSequential
    from torchrl.envs.utils import ExplorationType, set_exploration_type
    from torchrl.modules import TanhDelta, TanhModule, TanhNormal
    from torchrl.objectives import DDPGLoss, SACLoss, TD3Loss
except ImportError as error:
    raise not_installed("torchrl", "torchrl") from error


@final
class _Acting(nn.Module):
    """A TensorDict policy as state → action."""

    def __init__(self, actor: nn.Module, observation: Any, action: Any) -> None:
        super().__init__()
        self.actor, self.observation, self.action = actor, observation, action

    def forward(self, state: Tensor) -> Tensor:
        given = TensorDict({self.observation: state}, batch_size=[len(state)])
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            action: Tensor = self.actor(given)[self.action]
        return action


@final
class _Q(nn.Module):
    """The critic of the actor's loss: of several the least, TD3's first.

    Args:
        stacked: parameters of all critics along the first axis; None: the network has its own.
    """

    def __init__(
        self, network: nn.Module, stacked: Any, count: int, keys: tuple[Any, Any, Any]
    ) -> None:
        super().__init__()
        self.network, self.stacked, self.count, self.keys = network, stacked, count, keys

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        values = [each[..., 0] for each in self._values(state, action)]
        return torch.stack(values).amin(dim=0)

    def _values(self, state: Tensor, action: Tensor) -> Iterator[Tensor]:
        observed, acted, valued = self.keys
        for k in range(self.count):
            given = TensorDict({observed: state, acted: action}, batch_size=[len(state)])
            if self.stacked is None:
                yield self.network(given)[valued]
                continue
            with self.stacked[k].to_module(self.network):
                yield self.network(given)[valued]


def parts_of(trainer: Any) -> LoopParts:
    """The parts of a trainer that are watched.

    Raises:
        InputError: its loss has no actor, or no optimiser steps it here.
    """
    loss = trainer.loss_module
    actor = getattr(loss, "actor_network", None)
    if not isinstance(actor, nn.Module):
        raise InputError(
            f"trainer's loss is a {type(loss).__name__} without an actor_network: there is no "
            f"policy gradient to look at"
        )
    keys = list(cast(Any, actor).in_keys)
    policy = _Acting(actor, keys[0], action_key(loss))
    critic = _critic(loss, keys[0]) if len(keys) == 1 else None
    # Of the networks that value actions, as the loss holds them for its optimiser.
    networks = ("qvalue_network", "value_network")
    theirs = [p for name, p in loss.named_parameters() if name.startswith(networks)]
    valued = _stepping(trainer, theirs)
    alone = isinstance(loss, DDPGLoss | TD3Loss | SACLoss)
    watched = _watched(actor)
    return LoopParts(
        policy, _optimizer(trainer, actor), critic, watched, valued, critic_alone=alone
    )


def check_measurable(trainer: Any) -> None:
    """Raises InputError where a task cannot be measured by this trainer's actor."""
    keys = list(trainer.loss_module.actor_network.in_keys)
    if len(keys) != 1:
        raise InputError(
            f"task is given, but the actor sees {', '.join(map(str, keys))}, where a task has one "
            f"state: leave the task out"
        )


def action_key(loss: Any) -> Any:
    """Where actions are; DDPG's loss has no name for them."""
    return getattr(loss.tensor_keys, "action", "action")


def discount_of(loss: Any) -> float | None:
    """γ of the loss's value estimator, where one has been made."""
    gamma = getattr(loss._value_estimator, "gamma", None)
    return None if gamma is None else float(gamma)


def _optimizer(trainer: Any, actor: nn.Module) -> torch.optim.Optimizer:
    """The one that steps the actor."""
    stepping = _stepping(trainer, actor.parameters())
    if stepping is not None:
        return stepping
    raise InputError(
        "trainer has no optimizer that steps its loss's actor_network: give the trainer one, with "
        "loss_module.parameters()"
    )


def _stepping(trainer: Any, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer | None:
    """The optimiser that steps one of these, wherever the trainer keeps it."""
    holders = (vars(each).values() for each in trainer._modules.values())
    wanted = {id(p) for p in parameters}
    for each in (trainer.optimizer, *(value for values in holders for value in values)):
        if isinstance(each, torch.optim.Optimizer) and any(
            id(p) in wanted for group in each.param_groups for p in group["params"]
        ):
            return each
    return None


def _critic(loss: Any, observed: Any) -> nn.Module | None:
    value = getattr(loss.tensor_keys, "state_action_value", None)
    if value is None:
        return None
    keys = (observed, action_key(loss), value)
    if isinstance(loss, DDPGLoss):
        return _Q(loss.value_network, None, 1, keys)
    network = getattr(loss, "qvalue_network", None)
    if network is None:
        return None
    stacked = loss.qvalue_network_params
    count = 1 if isinstance(loss, TD3Loss) else int(stacked.shape[0])
    return _Q(network, stacked, count, keys)


def _watched(actor: Any) -> Watched:
    """The plain network inside, which sees observations and answers in tensors."""
    for each in actor.modules():
        single = isinstance(each, TensorDictModule) and not isinstance(each, TensorDictSequential)
        network = each.module if single else None
        if isinstance(network, nn.Module) and list(each.in_keys) == list(actor.in_keys):
            bound, action = _bounds(actor, network)
            return Watched(network, bound, action)
    return Watched(actor, None)


def _bounds(actor: Any, network: nn.Module) -> tuple[Limits | None, Any]:
    """Where the network's answers are saturated: in its own tanh, or in one that follows."""
    for each in actor.modules():
        squashes = isinstance(each, TanhModule) or (
            isinstance(each, ProbabilisticTensorDictModule)
            and each.distribution_class in (TanhNormal, TanhDelta)
        )
        if squashes:
            return limits(0.0, 1.0), torch.tanh
    return limits_of(network, None), as_it_is
