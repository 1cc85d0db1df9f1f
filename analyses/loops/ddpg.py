"""DDPG on a vector of two environments that reset by themselves, on a page of its user's own."""

import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

import gradlab
from analyses.loops.worlds import Replay, limits, mlp, sizes

STARTS, BATCH, GAMMA, TAU, ENVS = 200, 256, 0.99, 0.005, 2


class Actor(nn.Module):
    def __init__(self, envs):
        super().__init__()
        self.net = mlp(*sizes(envs))
        limits(self, envs)

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

    def critic_loss(batch):
        reward, terminated = batch["reward"].flatten(), batch["terminated"].flatten()
        with torch.no_grad():
            next_obs = batch["next_observation"]
            next_q = qf_target(next_obs, target_actor(next_obs))
            target = reward + GAMMA * (1 - terminated) * next_q
        return F.mse_loss(qf(batch["observation"], batch["action"]), target)

    def actor_loss(batch):
        return -qf(batch["observation"], actor(batch["observation"])).mean()

    probe = gradlab.Probe(actor, actor_optimizer, critic_alone=True, log=log)
    probe.networks(
        critic=qf, target=qf_target, target_actor=target_actor, optimizers={"critic": q_optimizer}
    )
    probe.losses(critic=critic_loss, actor=actor_loss, discount=GAMMA)
    envs = probe.record(envs, discount=GAMMA)

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

        batch = rb.sample(BATCH)
        probe.look(batch)
        q_optimizer.zero_grad()
        critic_loss(batch).backward()
        q_optimizer.step()

        actor_optimizer.zero_grad()
        with probe(step):
            actor_loss(batch).backward()
        actor_optimizer.step()
        for net, slow in ((actor, target_actor), (qf, qf_target)):
            for p, q in zip(net.parameters(), slow.parameters(), strict=True):
                q.data.copy_(TAU * p.data + (1 - TAU) * q.data)

    probe.close()
    return [actor, qf, target_actor, qf_target], [actor_optimizer, q_optimizer]
