"""Loops in the manner of rsl_rl and Dreamer, sound: two lines of probe raise no alarm.

Every one is the framework's own update in short: whose module is called how, by which optimisers.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

import gradlab
from tests.probe.small_loops import probed

GAMMA, TRACE, N = 0.95, 0.9, 32
Made = tuple[nn.Module, torch.optim.Optimizer]


class World:
    """N points in the plane, as tensors: pushed, paid for being near 0, cut after 20 steps."""

    def __init__(self) -> None:
        self.state, self.age = torch.randn(N, 2), torch.randint(20, (N,))

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.state = 0.9 * self.state + 0.2 * action.clamp(-1, 1) + 0.05 * torch.randn(N, 2)
        reward, self.age = 1 - (self.state**2).sum(1), self.age + 1
        ended = self.age >= 20
        self.age = self.age * ~ended
        self.state = torch.where(ended[:, None], torch.randn(N, 2), self.state)
        return self.state, reward, ended.float()


def net(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 32), nn.ELU(), nn.Linear(32, outputs))


def gae(reward: Tensor, value: Tensor, ended: Tensor, last: Tensor) -> Tensor:
    advantage, carried, following = torch.zeros_like(value), torch.zeros_like(last), last
    for t in reversed(range(len(value))):
        delta = reward[t] + GAMMA * (1 - ended[t]) * following - value[t]
        carried = delta + GAMMA * TRACE * (1 - ended[t]) * carried
        advantage[t], following = carried, value[t]
    return advantage


class ActorCritic(nn.Module):
    """rsl_rl's: two networks and σ in one module that is never called as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.actor, self.critic = net(2, 2), net(2, 1)
        self.std = nn.Parameter(torch.ones(2))

    def forward(self) -> None:
        raise NotImplementedError

    def distribution(self, state: Tensor) -> Normal:
        mean = self.actor(state)
        return Normal(mean, mean * 0.0 + self.std)


class RslRl:
    """PPO on a storage of tensors, its rate adapted to the KL divergence."""

    def __init__(self) -> None:
        self.world, self.module, self.rate = World(), ActorCritic(), 1e-3
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=self.rate)
        self.made: Made = self.module, self.optimizer

    def run(self, probe: gradlab.Probe, updates: int) -> None:
        for iteration in range(updates // 10):
            storage: list[tuple[Tensor, ...]] = []
            state = self.world.state
            with torch.inference_mode():
                for _ in range(12):
                    pi, value = self.module.distribution(state), self.module.critic(state)[:, 0]
                    action = pi.sample()
                    following, reward, ended = self.world.step(action)
                    reward = reward + GAMMA * value * ended  # all ends are time limits
                    density = pi.log_prob(action).sum(-1)
                    row = state, action, density, pi.mean, pi.stddev, value, reward, ended
                    storage.append(row)
                    state = following
                s, a, old, mean, std, v, r, e = map(torch.stack, zip(*storage, strict=True))
                advantage = gae(r, v, e, self.module.critic(state)[:, 0])
                returns = advantage + v
                advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
            flat = [x.flatten(0, 1).clone() for x in (s, a, old, mean, std, v, returns, advantage)]
            for _ in range(5):
                for index in torch.randperm(12 * N).chunk(2):
                    self.update(probe, iteration, [x[index] for x in flat])

    def update(self, probe: gradlab.Probe, iteration: int, rows: list[Tensor]) -> None:
        s, a, old, mean, std, v, returns, advantage = rows
        pi, value = self.module.distribution(s), self.module.critic(s)[:, 0]
        with torch.inference_mode():
            kl = torch.distributions.kl_divergence(Normal(mean, std), pi).sum(-1).mean()
            self.rate *= 1 / 1.5 if kl > 0.02 else 1.5 if 0.0 < kl < 0.005 else 1
            self.rate = min(max(self.rate, 1e-5), 1e-2)
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate
        ratio = (pi.log_prob(a).sum(-1) - old).exp()
        loss = torch.max(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)).mean()
        clipped = v + (value - v).clamp(-0.2, 0.2)
        loss = loss + torch.max((value - returns) ** 2, (clipped - returns) ** 2).mean()
        loss = loss - 0.01 * pi.entropy().sum(-1).mean()
        self.optimizer.zero_grad()
        with probe(iteration):
            loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()


class WorldModel(nn.Module):
    """A recurrent state h of the observations and actions so far, its observation and reward."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.embed = nn.GRUCell(4, 16), nn.Linear(16, 2)
        self.decode, self.reward = net(16, 2), net(16, 1)

    def imagine(self, h: Tensor, action: Tensor) -> Tensor:
        return self.cell(torch.cat([self.embed(h), action], 1), h)

    def observe(self, h: Tensor, seen: Tensor, action: Tensor) -> Tensor:
        return self.cell(torch.cat([seen, action], 1), h)


class Dreamer:
    """An actor that is trained through imagined rollouts of a recurrent model, a slow critic."""

    def __init__(self) -> None:
        self.world, self.model, self.actor = World(), WorldModel(), net(16, 4)
        self.critic = net(16, 1)
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)
        self.of_model = torch.optim.Adam(self.model.parameters(), lr=3e-3)
        self.optimizer = torch.optim.Adam(self.actor.parameters(), lr=1e-3, eps=1e-5)
        self.of_critic = torch.optim.Adam(self.critic.parameters(), lr=1e-3, eps=1e-5)
        self.made: Made = self.actor, self.optimizer

    def act(self, h: Tensor) -> Tensor:
        mean, spread = self.actor(h).chunk(2, 1)
        std = nn.functional.softplus(spread) + 0.1
        return torch.tanh(mean + std * torch.randn_like(mean))

    def run(self, probe: gradlab.Probe, updates: int) -> None:
        h = torch.zeros(N, 16)
        for step in range(updates):
            seen = []
            with torch.no_grad():
                for _ in range(4):
                    action = self.act(h)
                    before = self.world.state
                    _, reward, ended = self.world.step(action)
                    seen.append((before, action, reward, self.world.state))
                    h = self.model.observe(h, before, action) * (1 - ended[:, None])
            begun = self.fit_model(seen)
            self.imagine(probe, step, begun)

    def fit_model(self, seen: list[tuple[Tensor, ...]]) -> Tensor:
        h, states, loss = torch.zeros(N, 16), [], torch.zeros(())
        for before, action, reward, following in seen:
            h = self.model.observe(h, before, action)
            loss = loss + ((self.model.decode(h) - following) ** 2).mean()
            loss = loss + ((self.model.reward(h)[:, 0] - reward) ** 2).mean()
            states.append(h)
        self.of_model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 100.0)
        self.of_model.step()
        return torch.cat(states).detach()

    def imagine(self, probe: gradlab.Probe, step: int, h: Tensor) -> None:
        self.model.requires_grad_(False)
        states, rewards = [h], []
        for _ in range(4):
            h = self.model.imagine(h, self.act(h.detach()))
            states.append(h)
            rewards.append(self.model.reward(h))
        values = [self.slow(each) for each in states]
        returns, following = [], values[-1]
        for t in reversed(range(4)):
            rest = (1 - TRACE) * values[t + 1] + TRACE * following
            following = rewards[t] + GAMMA * rest
            returns.insert(0, following)
        self.optimizer.zero_grad()
        with probe(step):
            (-torch.stack(returns).mean()).backward()
        nn.utils.clip_grad_norm_(self.actor.parameters(), 100.0)
        self.optimizer.step()
        self.model.requires_grad_(True)
        found = self.critic(torch.stack(states[:-1]).detach())
        loss = ((found - torch.stack(returns).detach()) ** 2).mean()
        self.of_critic.zero_grad()
        loss.backward()
        self.of_critic.step()
        with torch.no_grad():
            for slow, online in zip(self.slow.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(online, 0.02)


LOOPS: dict[str, Any] = {"rsl_rl": RslRl, "Dreamer": Dreamer}


@pytest.mark.parametrize("name", LOOPS)
def test_two_lines_accuse_no_sound_loop(name):
    torch.manual_seed(0)
    loop, rows = LOOPS[name](), []
    policy, optimizer = loop.made
    probe = probed(policy, optimizer, rows)
    loop.run(probe, 50)
    probe.close()
    assert not probe.alarms and any("vitals/looked" in row for row in rows)
