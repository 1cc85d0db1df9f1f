"""DDPG in TorchRL's Trainer with a probe: one hook.

    pip install -c constraints.txt '.[torchrl]'
    python examples/torchrl_ddpg.py --steps 5000 --log torchrl.h5

A loop without a Trainer needs no hook: `with probe(step): losses["loss_actor"].backward()`.
"""

from dataclasses import dataclass

import torch
import tyro
from tensordict.nn import TensorDictModule, TensorDictSequential
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import DoubleToFloat, GymEnv, TransformedEnv
from torchrl.modules import MLP, AdditiveGaussianModule, TanhModule, ValueOperator
from torchrl.objectives import DDPGLoss, SoftUpdate
from torchrl.trainers import Trainer
from torchrl.trainers.trainers import ReplayBufferTrainer, TargetNetUpdaterHook

import gradlab
from gradlab.integrations.torchrl import ProbeHook


@dataclass
class Args:
    steps: int = 5_000
    log: str | None = None
    every: int = 50


def loss_of(spec: torch.Tensor) -> DDPGLoss:
    net = TensorDictModule(MLP(4, 1, num_cells=[64, 64]), ["observation"], ["param"])
    squash = TanhModule(in_keys=["param"], out_keys=["action"], spec=spec)
    critic = ValueOperator(MLP(5, 1, num_cells=[64, 64]), in_keys=["observation", "action"])
    loss = DDPGLoss(TensorDictSequential(net, squash), critic)
    loss.make_value_estimator(gamma=0.9)
    return loss


def main(args: Args) -> ProbeHook:
    env_id = "InvertedPendulum-v5"
    torch.manual_seed(1)
    env = TransformedEnv(GymEnv(env_id), DoubleToFloat())
    loss = loss_of(env.action_spec)
    noise = AdditiveGaussianModule(spec=env.action_spec, sigma_init=0.1)
    trainer = Trainer(
        collector=Collector(
            env,
            TensorDictSequential(loss.actor_network, noise),
            frames_per_batch=50,
            total_frames=args.steps,
        ),
        total_frames=args.steps,
        frame_skip=1,
        loss_module=loss,
        optimizer=torch.optim.Adam(loss.parameters(), lr=3e-4),
        optim_steps_per_batch=50,
        clip_norm=1.0,
        progress_bar=False,
        seed=1,
    )
    storage = TensorDictReplayBuffer(storage=LazyTensorStorage(100_000), batch_size=128)
    ReplayBufferTrainer(storage, flatten_tensordicts=True).register(trainer)
    TargetNetUpdaterHook(SoftUpdate(loss, eps=0.995)).register(trainer, "targets")

    hook = ProbeHook(
        log=args.log,
        task=gradlab.tasks.mujoco(env_id),
        every=args.every,
    )
    hook.register(trainer)
    trainer.train()
    assert hook.probe is not None
    print(f"probe: {hook.probe.spent:.1%} of the time, alarms: {len(hook.probe.alarms)}")
    return hook


if __name__ == "__main__":
    main(tyro.cli(Args))
