"""DDPG on a vector of two environments that reset by themselves, on a page of its user's own."""

import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

import gradlab
from analyses.loops.worlds import Replay, mlp, sizes

STARTS, BATCH, GAMMA, TAU, ENVS = 200, 256, 0.99, 0.005, 2


class Actor(nn.Module):
    def __init__(self, envs):
        super().__init__()
        self.net = mlp(*sizes(envs))
        low, high = envs.single_action_space.low, envs.single_action_space.high
        self.register_buffer("action_scale", torch.tensor((high - low) / 2))
        self.register_buffer("action_bias", torch.tensor((high + low) / 2))

    def forward(self, x):
        return torch.tanh(self.net(x)) * self.action_scale + self.action_bias


class QNetwork(nn.Module):
    def __init__(self, envs):
        super().__init__()
        self.net = mlp(sum(sizes(envs)), 1)

    def forward(self, x, a):
        return self.net(torch.cat([x, a], 1)).squeeze(-1)


def train(env_id, seed, updates, log):
    np.random.seed(seed)
    torch.manual_seed(seed)
    envs = gym.vector.SyncVectorEnv(
        [lambda: gym.make(env_id) for _ in range(ENVS)],
        autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
    )
    envs.action_space.seed(seed)
    low, high = envs.single_action_space.low, envs.single_action_space.high

    actor, qf = Actor(envs), QNetwork(envs)
    target_actor, qf_target = copy.deepcopy(actor), copy.deepcopy(qf)
    q_optimizer = optim.Adam(qf.parameters(), lr=1e-3)
    actor_optimizer = optim.Adam(actor.parameters(), lr=3e-4)
    rb = Replay(envs)

    probe = gradlab.Probe(
        actor, actor_optimizer, critic=qf, critic_optimizer=q_optimizer, critic_alone=True,
        env=lambda: gym.make(env_id), log=log,
    )  # fmt: skip
    envs = probe.record(envs)
    probe.networks(critic=qf, target=[target_actor, qf_target])

    obs, _ = envs.reset(seed=seed)
    for step in range(STARTS + updates):
        if step < STARTS:
            actions = envs.action_space.sample()
        else:
            with torch.no_grad():
                actions = actor(torch.as_tensor(obs, dtype=torch.float32))
                actions += 0.1 * actor.action_scale * torch.randn_like(actions)
                actions = actions.numpy().clip(low, high)
        next_obs, rewards, terminated, _, infos = envs.step(actions)
        real_next_obs = next_obs.copy()
        for i, final in enumerate(infos.get("final_obs", ())):
            if final is not None:
                real_next_obs[i] = final
        for i in range(ENVS):
            rb.add(obs[i], actions[i], rewards[i], real_next_obs[i], terminated[i])
        obs = next_obs
        if step < STARTS:
            continue

        observations, actions, rewards, next_observations, dones = rb.sample(BATCH)
        rewards, dones = rewards.flatten(), dones.flatten()
        with torch.no_grad():
            next_q = qf_target(next_observations, target_actor(next_observations))
            target = rewards + GAMMA * (1 - dones) * next_q
        probe.batch(
            observation=observations, action=actions, reward=rewards,
            next_observation=next_observations, terminated=dones, next_value=next_q,
            target=target, discount=0.99,
        )  # fmt: skip
        qf_loss = F.mse_loss(qf(observations, actions), target)
        q_optimizer.zero_grad()
        qf_loss.backward()
        q_optimizer.step()

        actor_loss = -qf(observations, actor(observations)).mean()
        actor_optimizer.zero_grad()
        with probe(step):
            actor_loss.backward()
        actor_optimizer.step()
        for net, slow in ((actor, target_actor), (qf, qf_target)):
            for p, q in zip(net.parameters(), slow.parameters(), strict=True):
                q.data.copy_(TAU * p.data + (1 - TAU) * q.data)

    probe.close()
    return [actor, qf, target_actor, qf_target], [actor_optimizer, q_optimizer]
