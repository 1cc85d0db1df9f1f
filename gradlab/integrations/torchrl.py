"""The probe as a hook of TorchRL's Trainer: the optional extra `torchrl`.

    ProbeHook(log="run.h5", task=task).register(trainer)

Every backward pass through the actor is marked, every step of its optimiser is an update, and steps
count collected frames. In a loop without a Trainer say `with probe(step): loss.backward()`, as in
any other.

    loss.actor_network        TensorDict → TensorDict, stateful: θ are its own parameters
    loss.qvalue_network       one or several critics, their parameters stacked; DDPG: value_network

The policy's action is its mean one (`ExplorationType.DETERMINISTIC`). The modules here hold the
loss's own, so that they follow training; they are called on copies only.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from gradlab.errors import InputError, not_installed
from gradlab.integrations.states import LoopParts, Watcher
from gradlab.probe.log import Logs
from gradlab.probe.loop import MakeEnv
from gradlab.probe.passes import Watched, acting, limits, limits_of
from gradlab.probe.probe import Probe
from gradlab.tasks import Task

try:
    from tensordict import TensorDict
    from tensordict.nn import ProbabilisticTensorDictModule, TensorDictModule, TensorDictSequential
    from torchrl.envs.utils import ExplorationType, set_exploration_type
    from torchrl.modules import TanhDelta, TanhModule, TanhNormal
    from torchrl.objectives import DDPGLoss, SACLoss, TD3Loss
    from torchrl.trainers import Trainer
    from torchrl.trainers.trainers import TrainerHookBase
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
        observed, acted, valued = self.keys
        values = []
        for k in range(self.count):
            given = TensorDict({observed: state, acted: action}, batch_size=[len(state)])
            own = nullcontext() if self.stacked is None else self.stacked[k].to_module(self.network)
            with own:
                values.append(self.network(given)[valued][..., 0])
        return torch.stack(values).amin(dim=0)


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
    alone = isinstance(loss, DDPGLoss | TD3Loss | SACLoss)
    watched, optimizer = _watched(actor), _stepping(trainer, actor.parameters())
    if optimizer is None:
        raise InputError(
            "trainer has no optimizer that steps its loss's actor_network: give the trainer one, "
            "with loss_module.parameters()"
        )
    parts = LoopParts(policy, optimizer, critic, watched, critic_alone=alone)
    return replace(parts, **_declared(loss, keys[0])) if alone else parts


_TERMS = {DDPGLoss: ("loss_value", "value_network"), TD3Loss: ("loss_qvalue", "qvalue_network"),
          SACLoss: ("loss_qvalue", "qvalue_network")}  # fmt: skip


def _plain(network: Any) -> Any:
    """The module inside, which answers in tensors."""
    return getattr(network, "module", network)


def _declared(loss: Any, observed: Any) -> dict[str, Any]:
    """A LossModule as it is shipped, asked term by term."""
    term, network = next(each for kind, each in _TERMS.items() if isinstance(loss, kind))
    keys = loss.tensor_keys
    columns = {
        "observation": observed, "next_observation": ("next", observed),
        "action": action_key(loss), "reward": ("next", keys.reward),
        "terminated": ("next", keys.terminated),
    }  # fmt: skip
    return {
        "losses": {
            "critic": lambda batch: loss(batch)[term],
            "actor": lambda batch: loss(batch)["loss_actor"],
        },
        "about": {"discount": discount_of(loss), "columns": columns},
        "called": {"critic": _plain(getattr(loss, network)), "actor": loss.actor_network},
    }


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
            if any(_squashes(part) for part in actor.modules()):
                return Watched(network, limits(0.0, 1.0), torch.tanh)
            return acting(network, limits_of(network, None))
    return Watched(actor, None)


def _squashes(part: Any) -> bool:
    """Whether a tanh follows the network."""
    return isinstance(part, TanhModule) or (
        isinstance(part, ProbabilisticTensorDictModule)
        and part.distribution_class in (TanhNormal, TanhDelta)
    )


_RETURN = ("next", "episode_reward")


class ProbeHook(TrainerHookBase):  # type: ignore[misc]
    """Watches the actor of a trainer's loss while it trains.

    Args:
        log: path of a run file, a function of one dict per row, several of these, or None.
        task: adds bias and variance by horizon; its discount is replaced by the loss's.
        every: updates between two looks.
        seed: of the probe's own starts and noise.
        env: a function that makes one of Gymnasium's, as the trainer's: whole episodes without
            noise are played in it, and show whether the return rises.

    Where the environment has RewardSum, episodes' returns are logged, too.
    `probe` is the `gradlab.Probe`, once training has begun. Checkpoints hold nothing of it.
    """

    def __init__(
        self,
        log: Logs = None,
        task: Task | None = None,
        every: int = 50,
        seed: int = 0,
        *,
        env: MakeEnv | None = None,
    ) -> None:
        self._watcher = Watcher(log, task, self._frames, every=every, seed=seed, env=env)
        self._trainer: Any = None

    @property
    def probe(self) -> Probe | None:
        return self._watcher.probe

    def _frames(self) -> int:
        return int(self._trainer.collected_frames)

    def register(self, trainer: Trainer, name: str = "gradlab_probe") -> None:
        """Raises InputError for a learner in other processes, or a hook with a trainer."""
        if getattr(trainer, "learner_backend", "local") != "local":
            raise InputError(
                "trainer's learner runs in other processes, where no hook can look: use "
                "learner_backend='local'"
            )
        if self._trainer is not None:
            raise InputError("hook is registered already: make one ProbeHook per trainer")
        self._trainer = trainer
        trainer.register_op("setup", self._begin)
        trainer.register_op("batch_process", self._note)
        trainer.register_op("process_optim_batch", self._hand_over)
        trainer.register_op("shutdown", self._watcher.end)
        trainer.register_module(name, self)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing was kept."""

    def _begin(self) -> None:
        parts = parts_of(self._trainer)
        if self._watcher.task is not None:
            check_measurable(self._trainer)
        self._watcher.begin(parts, discount_of(self._trainer.loss_module))

    def _hand_over(self, batch: Any) -> Any:
        if self.probe is not None:
            self.probe.look(batch)
        return batch

    def _note(self, batch: Any) -> Any:
        self._watcher.attempt(_note_returns, self.probe, batch)
        return batch


def _note_returns(probe: Probe, batch: Any) -> None:
    if _RETURN not in batch.keys(include_nested=True):
        return
    ended = batch["next", "done"].flatten()
    for each in batch[_RETURN].flatten()[ended].tolist():
        probe.note(episode_return=each)
