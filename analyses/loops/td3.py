"""TD3, one environment, on a page of its user's own."""

import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

import gradlab
from analyses.loops.worlds import Replay, limits, mlp, sizes

STARTS, BATCH, GAMMA, TAU, DELAY = 400, 256, 0.99, 0.005, 2


class Actor(nn.Module):
    def __init__(self, env):
        super().__init__()
        self.net = mlp(*sizes(env))
        limits(self, env)

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

    def critic_loss(batch):
        next_obs = batch["next_observation"]
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(batch["action"])).clamp(-0.5, 0.5)
            next_action = target_actor(next_obs) + noise * actor.action_scale
            next_action = next_action.clamp(low, high)
            next_q = torch.min(qf1_target(next_obs, next_action), qf2_target(next_obs, next_action))
            target = batch["reward"] + GAMMA * (1 - batch["terminated"]) * next_q
        both = (qf(batch["observation"], batch["action"]) for qf in (qf1, qf2))
        return sum(F.mse_loss(q, target) for q in both)

    def actor_loss(batch):
        return -qf1(batch["observation"], actor(batch["observation"])).mean()

    probe = gradlab.Probe(actor, actor_optimizer, critic_alone=True, log=log)
    probe.networks(
        critic=[qf1, qf2], target=[qf1_target, qf2_target], target_actor=target_actor,
        optimizers={"critic": q_optimizer},
    )  # fmt: skip
    probe.losses(critic=critic_loss, actor=actor_loss, discount=GAMMA)
    env = probe.record(env, discount=GAMMA)

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

        batch = rb.sample(BATCH)
        probe.look(batch)
        q_optimizer.zero_grad()
        critic_loss(batch).backward()
        q_optimizer.step()

        if step % DELAY == 0:
            actor_optimizer.zero_grad()
            with probe(step):
                actor_loss(batch).backward()
            actor_optimizer.step()
            for net, slow in ((actor, target_actor), (qf1, qf1_target), (qf2, qf2_target)):
                for p, q in zip(net.parameters(), slow.parameters(), strict=True):
                    q.data.copy_(TAU * p.data + (1 - TAU) * q.data)

    probe.close()
    return [actor, qf1, qf2, target_actor, qf1_target, qf2_target], [actor_optimizer, q_optimizer]
