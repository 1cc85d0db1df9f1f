"""SAC with a temperature that is tuned, one environment, on a page of its user's own."""

import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

import gradlab
from analyses.loops.worlds import Replay, mlp, sizes
from gradlab.networks.actors import squashed

STARTS, BATCH, GAMMA, TAU = 400, 256, 0.99, 0.005


class Actor(nn.Module):
    def __init__(self, env):
        super().__init__()
        ds, da = sizes(env)
        self.net = mlp(ds, 2 * da)
        low, high = env.action_space.low, env.action_space.high
        self.register_buffer("action_scale", torch.tensor((high - low) / 2))
        self.register_buffer("action_bias", torch.tensor((high + low) / 2))

    def forward(self, x):
        mean, log_std = self.net(x).chunk(2, -1)
        return mean, -5 + 3.5 * (torch.tanh(log_std) + 1)

    def get_action(self, x):
        mean, log_std = self(x)
        normal = torch.distributions.Normal(mean, log_std.exp())
        u = normal.rsample()
        y = torch.tanh(u)
        log_prob = normal.log_prob(u)
        log_prob -= torch.log(self.action_scale * (1 - y.pow(2)) + 1e-6)
        return y * self.action_scale + self.action_bias, log_prob.sum(1, keepdim=True)


class QNetwork(nn.Module):
    def __init__(self, env):
        super().__init__()
        self.net = mlp(sum(sizes(env)), 1)

    def forward(self, x, a):
        return self.net(torch.cat([x, a], 1))


def train(env_id, seed, updates, log):
    np.random.seed(seed)
    torch.manual_seed(seed)
    env = gym.wrappers.RecordEpisodeStatistics(gym.make(env_id))
    env.action_space.seed(seed)

    actor, qf1, qf2 = Actor(env), QNetwork(env), QNetwork(env)
    qf1_target, qf2_target = copy.deepcopy(qf1), copy.deepcopy(qf2)
    q_optimizer = optim.Adam([*qf1.parameters(), *qf2.parameters()], lr=1e-3)
    actor_optimizer = optim.Adam(actor.parameters(), lr=3e-4)
    log_alpha = torch.zeros(1, requires_grad=True)
    a_optimizer = optim.Adam([log_alpha], lr=1e-3)
    rb = Replay(env)

    probe = gradlab.Probe(
        squashed(actor), actor_optimizer, critic=qf1, critic_optimizer=q_optimizer,
        critic_alone=True, env=lambda: gym.make(env_id), log=log,
    )  # fmt: skip
    env = probe.record(env)
    probe.networks(critic=[qf1, qf2], target=[qf1_target, qf2_target])

    obs, _ = env.reset(seed=seed)
    for step in range(STARTS + updates):
        if step < STARTS:
            action = env.action_space.sample()
        else:
            with torch.no_grad():
                action = actor.get_action(torch.as_tensor(obs, dtype=torch.float32)[None])[0][0]
                action = action.numpy()
        next_obs, reward, terminated, truncated, _ = env.step(action)
        rb.add(obs, action, reward, next_obs, terminated)
        obs = next_obs
        if terminated or truncated:
            obs, _ = env.reset()
        if step < STARTS:
            continue

        observations, actions, rewards, next_observations, dones = rb.sample(BATCH)
        alpha = log_alpha.exp().item()
        with torch.no_grad():
            next_actions, next_log_pi = actor.get_action(next_observations)
            next_q = torch.min(
                qf1_target(next_observations, next_actions),
                qf2_target(next_observations, next_actions),
            )
            next_value = next_q - alpha * next_log_pi
            target = rewards + GAMMA * (1 - dones) * next_value
        probe.batch(
            observation=observations, action=actions, reward=rewards,
            next_observation=next_observations, terminated=dones, next_value=next_value,
            target=target, discount=0.99,
        )  # fmt: skip
        qf_loss = F.mse_loss(qf1(observations, actions), target)
        qf_loss += F.mse_loss(qf2(observations, actions), target)
        q_optimizer.zero_grad()
        qf_loss.backward()
        q_optimizer.step()

        pi, log_pi = actor.get_action(observations)
        min_q = torch.min(qf1(observations, pi), qf2(observations, pi))
        actor_loss = (alpha * log_pi - min_q).mean()
        actor_optimizer.zero_grad()
        with probe(step):
            actor_loss.backward()
        actor_optimizer.step()

        alpha_loss = (-log_alpha.exp() * (log_pi.detach() - len(action))).mean()
        a_optimizer.zero_grad()
        alpha_loss.backward()
        a_optimizer.step()
        for net, slow in ((qf1, qf1_target), (qf2, qf2_target)):
            for p, q in zip(net.parameters(), slow.parameters(), strict=True):
                q.data.copy_(TAU * p.data + (1 - TAU) * q.data)

    probe.close()
    return [actor, qf1, qf2, qf1_target, qf2_target], [actor_optimizer, q_optimizer, a_optimizer]
