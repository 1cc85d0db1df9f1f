"""Short-horizon actor-critic through a differentiable simulation, on a page of its user's own."""

import copy

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn, optim

import gradlab
from analyses.loops.worlds import Field, mlp

ENVS, HORIZON, FITS, GAMMA, TAU = 32, 16, 4, 0.99, 0.02


class Actor(nn.Module):
    def __init__(self, field):
        super().__init__()
        self.net = mlp(field.observe().shape[1], 2 if field.env_id == "Puck-v0" else 1, 64)
        self.register_buffer("action_scale", torch.tensor(field.limit))
        self.register_buffer("action_bias", torch.tensor(0.0))

    def forward(self, x):
        return torch.tanh(self.net(x)) * self.action_scale


def train(env_id, seed, updates, log):
    np.random.seed(seed)
    torch.manual_seed(seed)
    field = Field(env_id, ENVS, seed)
    actor, critic = Actor(field), mlp(field.observe().shape[1], 1, 64)
    target_critic = copy.deepcopy(critic)
    actor_optimizer = optim.Adam(actor.parameters(), lr=1e-3)
    critic_optimizer = optim.Adam(critic.parameters(), lr=1e-3)

    probe = gradlab.Probe(
        actor, actor_optimizer, critic_optimizer=critic_optimizer,
        env=lambda: gym.make(env_id), log=log,
    )  # fmt: skip
    probe.networks(critic=critic, target=target_critic)

    for update in range(updates):
        obs = field.cut()
        actor_loss, discount, rows = 0.0, torch.ones(ENVS), []
        for _ in range(HORIZON):
            action = actor(obs)
            action = action + 0.1 * actor.action_scale * torch.randn_like(action)
            next_obs, reward, last_obs, over = field.step(action)
            actor_loss = actor_loss - (discount * reward).sum()
            discount = GAMMA * discount
            ended = over.float()
            actor_loss = actor_loss - (discount * ended * target_critic(last_obs)[:, 0]).sum()
            discount = torch.where(over, 1.0, discount)
            rows.append((obs.detach(), reward.detach(), last_obs.detach()))
            obs = next_obs
        actor_loss = actor_loss - (discount * target_critic(obs)[:, 0]).sum()
        actor_loss = actor_loss / (HORIZON * ENVS)
        actor_optimizer.zero_grad()
        with probe(update):
            actor_loss.backward()
        nn.utils.clip_grad_norm_(actor.parameters(), 1.0)
        actor_optimizer.step()

        observations, rewards, last = (torch.cat(x) for x in zip(*rows, strict=True))
        with torch.no_grad():
            next_value = target_critic(last)[:, 0]
            target = rewards + GAMMA * next_value
        probe.batch(
            reward=rewards, terminated=torch.zeros_like(rewards), next_value=next_value,
            target=target, discount=0.99,
        )  # fmt: skip
        for _ in range(FITS):
            critic_loss = F.mse_loss(critic(observations)[:, 0], target)
            critic_optimizer.zero_grad()
            critic_loss.backward()
            critic_optimizer.step()
            for p, q in zip(critic.parameters(), target_critic.parameters(), strict=True):
                q.data.copy_(TAU * p.data + (1 - TAU) * q.data)

    probe.close()
    return [actor, critic, target_critic], [actor_optimizer, critic_optimizer]
