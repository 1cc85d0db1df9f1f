"""SAC with a temperature that is tuned, one environment, on a page of its user's own."""

import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

import gradlab
from analyses.loops.worlds import Replay, limits, mlp, sizes

STARTS, BATCH, GAMMA, TAU = 400, 256, 0.99, 0.005


class Actor(nn.Module):
    def __init__(self, env):
        super().__init__()
        ds, da = sizes(env)
        self.net = mlp(ds, 2 * da)
        limits(self, env)

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

    def critic_loss(batch):
        next_obs, alpha = batch["next_observation"], log_alpha.detach().exp()
        with torch.no_grad():
            next_action, next_log_pi = actor.get_action(next_obs)
            next_q = torch.min(qf1_target(next_obs, next_action), qf2_target(next_obs, next_action))
            next_value = next_q - alpha * next_log_pi
            target = batch["reward"] + GAMMA * (1 - batch["terminated"]) * next_value
        both = (qf(batch["observation"], batch["action"]) for qf in (qf1, qf2))
        return sum(F.mse_loss(q, target) for q in both)

    def actor_loss(batch):
        obs, alpha = batch["observation"], log_alpha.detach().exp()
        pi, log_pi = actor.get_action(obs)
        min_q = torch.min(qf1(obs, pi), qf2(obs, pi))
        return (alpha * log_pi - min_q).mean()

    probe = gradlab.Probe(actor, actor_optimizer, critic_alone=True, log=log)
    probe.networks(
        critic=[qf1, qf2], target=[qf1_target, qf2_target], optimizers={"critic": q_optimizer}
    )
    probe.losses(
        critic=critic_loss, actor=actor_loss, discount=GAMMA, temperature=log_alpha,
        draw=actor.get_action,
    )  # fmt: skip
    env = probe.record(env, discount=GAMMA)

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

        batch = rb.sample(BATCH)
        probe.look(batch)
        q_optimizer.zero_grad()
        critic_loss(batch).backward()
        q_optimizer.step()

        actor_optimizer.zero_grad()
        with probe(step):
            actor_loss(batch).backward()
        actor_optimizer.step()

        with torch.no_grad():
            _, log_pi = actor.get_action(batch["observation"])
        alpha_loss = (-log_alpha.exp() * (log_pi - len(action))).mean()
        a_optimizer.zero_grad()
        alpha_loss.backward()
        a_optimizer.step()
        for net, slow in ((qf1, qf1_target), (qf2, qf2_target)):
            for p, q in zip(net.parameters(), slow.parameters(), strict=True):
                q.data.copy_(TAU * p.data + (1 - TAU) * q.data)

    probe.close()
    return [actor, qf1, qf2, qf1_target, qf2_target], [actor_optimizer, q_optimizer, a_optimizer]
