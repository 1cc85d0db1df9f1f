"""TD3, one environment, on a page of its user's own."""

import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

import gradlab
from analyses.loops.worlds import Replay, mlp, sizes

STARTS, BATCH, GAMMA, TAU, DELAY = 400, 256, 0.99, 0.005, 2


class Actor(nn.Module):
    def __init__(self, env):
        super().__init__()
        self.net = mlp(*sizes(env))
        low, high = env.action_space.low, env.action_space.high
        self.register_buffer("action_scale", torch.tensor((high - low) / 2))
        self.register_buffer("action_bias", torch.tensor((high + low) / 2))

    def forward(self, x):
        return torch.tanh(self.net(x)) * self.action_scale + self.action_bias


class QNetwork(nn.Module):
    def __init__(self, env):
        super().__init__()
        self.net = mlp(sum(sizes(env)), 1)

    def forward(self, x, a):
        return self.net(torch.cat([x, a], 1))


def train(env_id, seed, updates, log):
    np.random.seed(seed)
    torch.manual_seed(seed)
    env = gym.make(env_id)
    env.action_space.seed(seed)
    low, high = torch.tensor(env.action_space.low), torch.tensor(env.action_space.high)

    actor, qf1, qf2 = Actor(env), QNetwork(env), QNetwork(env)
    target_actor, qf1_target, qf2_target = (copy.deepcopy(x) for x in (actor, qf1, qf2))
    q_optimizer = optim.Adam([*qf1.parameters(), *qf2.parameters()], lr=1e-3)
    actor_optimizer = optim.Adam(actor.parameters(), lr=1e-3)
    rb = Replay(env)

    probe = gradlab.Probe(
        actor, actor_optimizer, critic=qf1, critic_optimizer=q_optimizer, critic_alone=True,
        env=lambda: gym.make(env_id), log=log,
    )  # fmt: skip
    env = probe.record(env)
    probe.networks(critic=[qf1, qf2], target=[target_actor, qf1_target, qf2_target])

    obs, _ = env.reset(seed=seed)
    for step in range(STARTS + DELAY * updates):
        if step < STARTS:
            action = env.action_space.sample()
        else:
            with torch.no_grad():
                action = actor(torch.as_tensor(obs, dtype=torch.float32)[None])[0]
                action += 0.1 * actor.action_scale * torch.randn_like(action)
                action = action.clamp(low, high).numpy()
        next_obs, reward, terminated, truncated, _ = env.step(action)
        rb.add(obs, action, reward, next_obs, terminated)
        obs = next_obs
        if terminated or truncated:
            obs, _ = env.reset()
        if step < STARTS:
            continue

        observations, actions, rewards, next_observations, dones = rb.sample(BATCH)
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(actions)).clamp(-0.5, 0.5) * actor.action_scale
            next_actions = (target_actor(next_observations) + noise).clamp(low, high)
            next_q = torch.min(
                qf1_target(next_observations, next_actions),
                qf2_target(next_observations, next_actions),
            )
            target = rewards + GAMMA * (1 - dones) * next_q
        probe.batch(
            observation=observations, action=actions, reward=rewards,
            next_observation=next_observations, terminated=dones, next_value=next_q,
            target=target, discount=0.99,
        )  # fmt: skip
        qf_loss = F.mse_loss(qf1(observations, actions), target)
        qf_loss += F.mse_loss(qf2(observations, actions), target)
        q_optimizer.zero_grad()
        qf_loss.backward()
        q_optimizer.step()

        if step % DELAY == 0:
            actor_loss = -qf1(observations, actor(observations)).mean()
            actor_optimizer.zero_grad()
            with probe(step):
                actor_loss.backward()
            actor_optimizer.step()
            for net, slow in ((actor, target_actor), (qf1, qf1_target), (qf2, qf2_target)):
                for p, q in zip(net.parameters(), slow.parameters(), strict=True):
                    q.data.copy_(TAU * p.data + (1 - TAU) * q.data)

    probe.close()
    return [actor, qf1, qf2, target_actor, qf1_target, qf2_target], [actor_optimizer, q_optimizer]
