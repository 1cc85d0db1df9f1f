"""Short-horizon actor-critic through a differentiable simulation, on a page of its user's own.

The actor's loss begins anew at every state of the last segment, so that it is a function of rows.
"""

import copy

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
        self.net = mlp(field.observe(field.start(1)).shape[1], field.actions, 64)
        self.limit = field.limit

    def forward(self, x):
        return torch.tanh(self.net(x)) * self.limit


def train(env_id, seed, updates, log):
    np.random.seed(seed)
    torch.manual_seed(seed)
    field = Field(env_id)
    actor = Actor(field)
    critic = mlp(field.observe(field.start(1)).shape[1], 1, 64)
    target_critic = copy.deepcopy(critic)
    actor_optimizer = optim.Adam(actor.parameters(), lr=1e-3)
    critic_optimizer = optim.Adam(critic.parameters(), lr=1e-3)

    def actor_loss(batch):
        state, total = batch["state"], 0.0
        for k in range(HORIZON):
            action = actor(field.observe(state))
            state, reward = field.step(state, action)
            total = total + GAMMA**k * reward
        total = total + GAMMA**HORIZON * target_critic(field.observe(state))[:, 0]
        return -total.mean() / HORIZON

    def critic_loss(batch):
        with torch.no_grad():
            next_value = target_critic(batch["next_observation"])[:, 0]
            target = batch["reward"] + GAMMA * (1 - batch["terminated"]) * next_value
        return F.mse_loss(critic(batch["observation"])[:, 0], target)

    probe = gradlab.Probe(actor, actor_optimizer, log=log)
    probe.networks(
        critic=critic, target=target_critic, optimizers={"critic": critic_optimizer}
    )  # fmt: skip
    probe.losses(critic=critic_loss, actor=actor_loss, model=field, discount=GAMMA)

    state, age = field.start(ENVS), torch.randint(field.length, (ENVS,))
    for update in range(updates):
        rows = []
        for _ in range(HORIZON):
            with torch.no_grad():
                action = actor(field.observe(state))
                action = action + 0.1 * field.limit * torch.randn_like(action)
                after, reward = field.step(state, action)
            rows.append((state, field.observe(state), action, reward, field.observe(after)))
            age = age + 1
            over = age >= field.length
            state = torch.where(over[:, None], field.start(ENVS), after)
            age = torch.where(over, 0, age)
        names = ("state", "observation", "action", "reward", "next_observation")
        columns = (torch.cat(x) for x in zip(*rows, strict=True))
        batch = dict(zip(names, columns, strict=True))
        batch["terminated"] = torch.zeros_like(batch["reward"])  # time alone ends an episode

        probe.look(batch)
        actor_optimizer.zero_grad()
        with probe(update):
            actor_loss(batch).backward()
        nn.utils.clip_grad_norm_(actor.parameters(), 1.0)
        actor_optimizer.step()
        for _ in range(FITS):
            critic_optimizer.zero_grad()
            critic_loss(batch).backward()
            critic_optimizer.step()
            for p, q in zip(critic.parameters(), target_critic.parameters(), strict=True):
                q.data.copy_(TAU * p.data + (1 - TAU) * q.data)

    probe.close()
    return [actor, critic, target_critic], [actor_optimizer, critic_optimizer]
