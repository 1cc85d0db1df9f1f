"""Small trainers of TorchRL, which takes seconds to import: tests import this where they run."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymWrapper
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import (
    MLP,
    AdditiveGaussianModule,
    ProbabilisticActor,
    QValueActor,
    TanhModule,
    TanhNormal,
    ValueOperator,
)
from torchrl.objectives import DDPGLoss, DQNLoss, SACLoss, SoftUpdate, TD3Loss
from torchrl.trainers import Trainer
from torchrl.trainers.trainers import ReplayBufferTrainer, TargetNetUpdaterHook

from gradlab.integrations.torchrl import ProbeHook, parts_of
from tests.integrations.bits import Integrator, seeded, streams, trained

__all__ = ["Integrator", "ProbeHook", "parts_of"]
LOSSES: dict[str, Any] = {"DDPG": DDPGLoss, "TD3": TD3Loss, "SAC": SACLoss}


def action_spec() -> Any:
    return GymWrapper(Integrator()).action_spec


def observed(states: Tensor, **more: Tensor) -> Any:
    """A batch of observations as a TensorDict."""
    return TensorDict({"observation": states, **more}, [len(states)])


def deterministic(spec: Any) -> Any:
    """tanh behind the network, as TorchRL's own examples of DDPG and TD3 have it."""
    net = TensorDictModule(MLP(2, 1, num_cells=[8]), ["observation"], ["param"])
    squash = TanhModule(in_keys=["param"], out_keys=["action"], spec=spec)
    return TensorDictSequential(net, squash)


def stochastic(spec: Any) -> Any:
    net = nn.Sequential(MLP(2, 2, num_cells=[8]), NormalParamExtractor())
    return ProbabilisticActor(
        TensorDictModule(net, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=spec,
        distribution_class=TanhNormal,
        distribution_kwargs={"low": spec.space.low, "high": spec.space.high},
    )


def loss_of(kind: str, spec: Any) -> Any:
    actor = stochastic(spec) if kind == "SAC" else deterministic(spec)
    critic = ValueOperator(MLP(3, 1, num_cells=[8]), in_keys=["observation", "action"])
    named = {} if kind == "DDPG" else {"action_spec": spec}
    loss = LOSSES[kind](actor, critic, **named)
    loss.make_value_estimator(gamma=0.5)
    return loss


def trainer_of(kind: str, updates: int = 100) -> Any:
    seeded()
    world = Integrator()
    environment = GymWrapper(world)
    environment.set_seed(0)  # the collector resets before the trainer seeds it
    spec = environment.action_spec
    loss = loss_of(kind, spec)
    noise = AdditiveGaussianModule(spec=spec, sigma_init=0.3, annealing_num_steps=10)
    behaviour = TensorDictSequential(loss.actor_network, noise)
    collector = Collector(environment, behaviour, frames_per_batch=20, total_frames=10**6)
    trainer = Trainer(
        collector=collector, total_frames=updates // 2, frame_skip=1, loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters(), 1e-3), optim_steps_per_batch=40,
        clip_norm=1e-4, progress_bar=False, seed=0, log_interval=1,
    )  # fmt: skip
    storage = TensorDictReplayBuffer(storage=LazyTensorStorage(600), batch_size=8)
    trainer.world = world
    trainer.stored = ReplayBufferTrainer(storage, flatten_tensordicts=True)
    trainer.stored.register(trainer)
    TargetNetUpdaterHook(SoftUpdate(loss, eps=0.99)).register(trainer, "targets")
    return trainer


def left(trainer: Any) -> dict[str, Any]:
    stored = trainer.stored.replay_buffer[:]
    return {
        "modules": trained(trainer.loss_module),
        "actor": trained(trainer.loss_module.actor_network),
        "optimizer": trainer.optimizer.state_dict(),
        "stored": stored.flatten_keys(".").to_dict(),
        "environment": [trainer.world.state, trainer.world.np_random.bit_generator.state],
        "streams": streams(),
        "counted": [trainer.collected_frames, trainer._optim_count],
    }


def run(kind: str, hook: ProbeHook | None, updates: int) -> dict[str, Any]:
    trainer = trainer_of(kind, updates)
    if hook is not None:
        hook.register(trainer)
    trainer.train()
    return left(trainer)


def acted(loss: Any, states: Tensor) -> Tensor:
    """The mean action of the loss's own actor."""
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        action: Tensor = loss.actor_network(observed(states))["action"]
    return action


def valued(kind: str, loss: Any, states: Tensor, actions: Tensor) -> Tensor:
    """The value that the actor's loss ascends, by the loss's own networks."""
    given = observed(states, action=actions)
    with set_exploration_type(ExplorationType.DETERMINISTIC), torch.no_grad():
        if kind == "DDPG":
            value: Tensor = loss.value_network(given)["state_action_value"][:, 0]
            return value
        vmapped = getattr(loss, "_vmap_qvalue_network00", None) or loss._vmap_qnetworkN0
        both = vmapped(given.expand(2, len(states)) if kind == "TD3" else given,
                       loss.qvalue_network_params)["state_action_value"][..., 0]  # fmt: skip
    return both[0] if kind == "TD3" else both.amin(0)


def without_an_actor() -> Any:
    trainer = trainer_of("DDPG")
    actor = QValueActor(MLP(2, 3), in_keys=["observation"], action_space="one_hot")
    trainer.loss_module = DQNLoss(actor, action_space="one_hot")
    return trainer


def without_an_optimizer() -> Any:
    trainer = trainer_of("DDPG")
    trainer.optimizer = None
    trainer._modules.pop("optimizer")
    return trainer


def with_two_inputs() -> Any:
    trainer = trainer_of("DDPG")
    trainer.loss_module.actor_network.in_keys = ["observation", "pixels"]
    return trainer
