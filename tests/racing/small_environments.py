"""Environments with reset and step alone, whose returns are known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn


class Sliding:
    """x′ = 0.9 x + 0.2 a, reward −x′², from x₀ ~ U(1, 2) by the seed, ten steps."""

    STEPS = 10

    def reset(self, seed: int | None = None) -> Any:
        self.x, self.t = np.random.default_rng(seed).uniform(1.0, 2.0, 1), 0
        return self.x.astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.x, self.t = 0.9 * self.x + 0.2 * action, self.t + 1
        return self.x.astype(np.float32), -float(self.x[0] ** 2), False, self.t == self.STEPS, {}

    @classmethod
    def return_of(cls, gain: float, start: float) -> float:
        """Of the policy a = gain · x."""
        factor = (0.9 + 0.2 * gain) ** 2
        return -(start**2) * sum(factor**t for t in range(1, cls.STEPS + 1))


class Unseeded(Sliding):
    """A reset that takes no seed; its starts are drawn one after the other."""

    def __init__(self) -> None:
        self.draws = np.random.default_rng(1)

    def reset(self) -> Any:  # type: ignore[override]
        return super().reset(int(self.draws.integers(2**31)))


class Noisy(Sliding):
    """The seed fixes the start and not the steps."""

    NOISE = np.random.default_rng(0)

    def step(self, action: Any) -> Any:
        return super().step(action + 0.01 * self.NOISE.normal(size=1))


class Side(Sliding):
    """Three of them side by side, of lengths of their own."""

    num_envs = 3
    single_action_space = None

    def reset(self, seed: int | None = None) -> Any:
        self.x, self.t = np.random.default_rng(seed).uniform(1.0, 2.0, (3, 1)), 0
        return self.x.astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.x, self.t = 0.9 * self.x + 0.2 * action, self.t + 1
        ended = self.t % np.array([10, 5, 2]) == 0  # and begins again by itself
        return self.x.astype(np.float32), -(self.x[:, 0] ** 2), ended, np.zeros(3, dtype=bool), {}


class Once:
    """One step with a reward that is a function of the action; every start is the same."""

    def __init__(self, reward: Any) -> None:
        self.reward = reward

    def reset(self, seed: int | None = None) -> Any:
        return np.ones(1, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        return np.ones(1, dtype=np.float32), self.reward(float(action[0])), True, False, {}


def gain_of(value: float) -> nn.Linear:
    """The policy a = value · x."""
    policy = nn.Linear(1, 1, bias=False)
    nn.init.constant_(policy.weight, value)
    return policy


class Counting(nn.Module):
    """a = gain · (its steps so far), a recurrent policy."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([[gain]]))

    def forward(self, state: Any, hidden: Any) -> Any:
        hidden = 0.0 if hidden is None else hidden + 1.0
        return self.gain * (hidden + 0.0 * state), hidden


class Keeping(nn.Module):
    """The same with its count inside, and `reset` where it has one."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain, self.count = nn.Parameter(torch.tensor([[gain]])), 0.0

    def forward(self, state: Any) -> Any:
        self.count += 1.0
        return self.gain * (self.count - 1.0 + 0.0 * state)


class Begun(Keeping):
    def reset(self) -> None:
        self.count = 0.0


class Drawing(nn.Linear):
    def forward(self, state: Any) -> Any:
        return super().forward(state) + 0.1 * torch.randn(len(state), 1)
