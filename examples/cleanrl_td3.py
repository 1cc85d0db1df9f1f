"""TD3 in one file, as CleanRL writes it, with a probe: the marked lines are gradlab's.

    python examples/cleanrl_td3.py --steps 5000 --log cleanrl.h5

The probe is given the task that the environment is, and the critic, so that bias and variance are
measured by horizon while the policy learns. `gradlab report cleanrl.h5 --follow` tells about it.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from torch import nn, optim

import gradlab


@dataclass
class Args:
    env_id: str = "InvertedPendulum-v5"
    steps: int = 5_000
    log: str | None = None
    every: int = 50
    seed: int = 1
    learning_rate: float = 3e-4
    buffer_size: int = 100_000
    batch_size: int = 256
    width: int = 64
    gamma: float = 0.9
    tau: float = 0.005
    exploration_noise: float = 0.1
    policy_noise: float = 0.2
    noise_clip: float = 0.5
    learning_starts: int = 500
    policy_frequency: int = 2


class QNetwork(nn.Module):
    def __init__(self, env: gym.Env, width: int) -> None:
        super().__init__()
        inputs = np.prod(env.observation_space.shape) + np.prod(env.action_space.shape)
        self.fc1 = nn.Linear(int(inputs), width)
        self.fc2 = nn.Linear(width, width)
        self.fc3 = nn.Linear(width, 1)

    def forward(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.fc1(torch.cat([x, a], 1)))
        x = F.relu(self.fc2(x))
        return self.fc3(x).squeeze(-1)  # [N]: CleanRL returns [N, 1]


class Actor(nn.Module):
    def __init__(self, env: gym.Env, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(int(np.prod(env.observation_space.shape)), width)
        self.fc2 = nn.Linear(width, width)
        self.fc_mu = nn.Linear(width, int(np.prod(env.action_space.shape)))
        low, high = env.action_space.low, env.action_space.high
        self.register_buffer("action_scale", torch.tensor((high - low) / 2, dtype=torch.float32))
        self.register_buffer("action_bias", torch.tensor((high + low) / 2, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        return torch.tanh(self.fc_mu(x)) * self.action_scale + self.action_bias


class ReplayBuffer:
    def __init__(self, size: int, env: gym.Env) -> None:
        widths = (
            env.observation_space.shape,
            env.action_space.shape,
            (),
            env.observation_space.shape,
            (),
        )
        self.columns = [torch.zeros((size, *map(int, w))) for w in widths]
        self.size, self.count = size, 0

    def add(self, *row: Any) -> None:
        for column, value in zip(self.columns, row, strict=True):
            column[self.count % self.size] = torch.as_tensor(np.asarray(value, dtype=np.float32))
        self.count += 1

    def sample(self, n: int) -> dict[str, torch.Tensor]:
        rows = torch.randint(min(self.count, self.size), (n,))
        names = ("observation", "action", "reward", "next_observation", "terminated")
        return {name: column[rows] for name, column in zip(names, self.columns, strict=True)}


def train(args: Args, env: gym.Env, task: gradlab.Task) -> dict[str, Any]:
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    env.action_space.seed(args.seed)

    actor = Actor(env, args.width)
    qf1, qf2 = QNetwork(env, args.width), QNetwork(env, args.width)
    target_actor, qf1_target, qf2_target = (copy.deepcopy(each) for each in (actor, qf1, qf2))
    q_optimizer = optim.Adam([*qf1.parameters(), *qf2.parameters()], lr=args.learning_rate)
    actor_optimizer = optim.Adam(actor.parameters(), lr=args.learning_rate)
    rb = ReplayBuffer(args.buffer_size, env)
    low, high = torch.as_tensor(env.action_space.low), torch.as_tensor(env.action_space.high)

    def critic_loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        observations, actions, next_observations = (
            batch[name] for name in ("observation", "action", "next_observation")
        )
        with torch.no_grad():
            noise = (torch.randn_like(actions) * args.policy_noise).clamp(
                -args.noise_clip, args.noise_clip
            ) * target_actor.action_scale
            next_actions = (target_actor(next_observations) + noise).clamp(low, high)
            next_q = torch.min(
                qf1_target(next_observations, next_actions),
                qf2_target(next_observations, next_actions),
            )
            target = batch["reward"] + (1 - batch["terminated"]) * args.gamma * next_q
        return sum(F.mse_loss(qf(observations, actions), target) for qf in (qf1, qf2))

    def actor_loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return -qf1(batch["observation"], actor(batch["observation"])).mean()

    # 1. the probe
    probe = gradlab.Probe(
        actor, actor_optimizer, task, qf1, log=args.log, every=args.every,
        critic_alone=True,  # as in TD3: no step of a model
    )  # fmt: skip
    probe.networks(
        critic=[qf1, qf2], target=[qf1_target, qf2_target], target_actor=target_actor,
        optimizers={"critic": q_optimizer},
    )  # fmt: skip
    probe.losses(critic=critic_loss, actor=actor_loss, discount=args.gamma)
    env = probe.record(env, discount=args.gamma)

    obs, _ = env.reset(seed=args.seed)
    for global_step in range(args.steps):
        if global_step < args.learning_starts:
            action = env.action_space.sample()
        else:
            with torch.no_grad():
                action = actor(torch.as_tensor(obs, dtype=torch.float32)[None])[0]
                action += torch.normal(0, actor.action_scale * args.exploration_noise)
                action = action.numpy().clip(env.action_space.low, env.action_space.high)
        next_obs, reward, terminated, truncated, _ = env.step(action)
        rb.add(obs, action, reward, next_obs, terminated)
        obs = env.reset()[0] if terminated or truncated else next_obs

        if global_step < args.learning_starts:
            continue
        batch = rb.sample(args.batch_size)
        probe.look(batch)  # 2. what the losses get
        q_optimizer.zero_grad()
        critic_loss(batch).backward()
        q_optimizer.step()

        if global_step % args.policy_frequency == 0:
            actor_optimizer.zero_grad()
            with probe(global_step):  # 3. the backward pass
                actor_loss(batch).backward()
            actor_optimizer.step()
            pairs = ((actor, target_actor), (qf1, qf1_target), (qf2, qf2_target))
            for net, slow in pairs:
                for p, q in zip(net.parameters(), slow.parameters(), strict=True):
                    q.data.copy_(args.tau * p.data + (1 - args.tau) * q.data)

    probe.close()
    print(f"alarms: {len(probe.alarms)}")
    return {"networks": [actor, qf1, qf2, target_actor, qf1_target, qf2_target],
            "optimizers": [actor_optimizer, q_optimizer], "buffer": rb.columns}  # fmt: skip


def main(args: Args) -> None:
    task = replace(gradlab.tasks.mujoco(args.env_id), discount=args.gamma)
    train(args, gym.make(args.env_id), task)


if __name__ == "__main__":
    main(tyro.cli(Args))
