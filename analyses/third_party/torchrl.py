"""TorchRL's TD3 in its Trainer, through `ProbeHook`, with a replay that prefetches or does not.

A replay with `prefetch=k` draws its batches in threads, from the global random stream. Whether two
runs without a probe are equal then is a question of its own: `analyses.third_party` makes each run
without a probe twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import DoubleToFloat, GymEnv, TransformedEnv
from torchrl.modules import MLP, AdditiveGaussianModule, TanhModule, ValueOperator
from torchrl.objectives import SoftUpdate, TD3Loss
from torchrl.trainers import Trainer
from torchrl.trainers.trainers import ReplayBufferTrainer, TargetNetUpdaterHook

from analyses.third_party.outcome import Ear, Outcome, heard
from gradlab.integrations.torchrl import ProbeHook

FRAMES = 50  # of one batch of the collector, and updates after it


def run(
    task: str, seed: int, steps: int, probed: Mapping[str, Any] | None, prefetch: int | None = None
) -> Outcome:
    """One run.

    Args:
        probed: arguments of the hook; None: without it.
        prefetch: of the replay; None: batches are drawn when they are asked for.
    """
    torch.manual_seed(seed)
    environment = TransformedEnv(GymEnv(task), DoubleToFloat())
    environment.set_seed(seed)
    loss = _loss(environment)
    noise = AdditiveGaussianModule(spec=environment.action_spec, sigma_init=0.1)
    trainer = Trainer(
        collector=Collector(
            environment, TensorDictSequential(loss.actor_network, noise),
            frames_per_batch=FRAMES, total_frames=steps,
        ),
        total_frames=steps, frame_skip=1, loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters(), lr=3e-4), optim_steps_per_batch=FRAMES,
        clip_norm=1.0, progress_bar=False, seed=seed,
    )  # fmt: skip
    replay = TensorDictReplayBuffer(
        storage=LazyTensorStorage(20_000), batch_size=256, prefetch=prefetch
    )
    ReplayBufferTrainer(replay, flatten_tensordicts=True).register(trainer)
    TargetNetUpdaterHook(SoftUpdate(loss, eps=0.995)).register(trainer, "targets")
    ear, hook = Ear(), None
    if probed is not None:
        hook = ProbeHook(ear, **probed)
        hook.register(trainer)
    error = ""
    try:
        trainer.train()
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    held = [dict(loss.state_dict()), trainer.optimizer.state_dict()]
    return heard(None if hook is None else hook.probe, ear, held, error)


def _loss(environment: Any) -> TD3Loss:
    states = environment.observation_spec["observation"].shape[-1]
    spec = environment.action_spec
    actions = spec.shape[-1]
    net = TensorDictModule(MLP(states, actions, num_cells=[256, 256]), ["observation"], ["param"])
    squash = TanhModule(in_keys=["param"], out_keys=["action"], spec=spec)
    critic = ValueOperator(
        MLP(states + actions, 1, num_cells=[256, 256]), in_keys=["observation", "action"]
    )
    loss = TD3Loss(TensorDictSequential(net, squash), critic, action_spec=spec)
    loss.make_value_estimator(gamma=0.99)
    return loss
