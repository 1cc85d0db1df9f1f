"""What the loops share: environments, one replay, one kind of network.

Pendulum-v1, InvertedPendulum-v5 and Hopper-v5 are Gymnasium's. `Puck-v0` is this file's: a puck on
ice is pushed to the middle of a disc, over whose edge an episode ends.

    s' = (p + h v, v + h (a − .1 v)),  r = 1 − |p|² / 4 − .02 |a|²,  |p| > 3: terminated, r − 20

`Field` is the puck or Pendulum-v1 in torch, many side by side, for loops that differentiate it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

PUCK, PENDULUM = "Puck-v0", "Pendulum-v1"
ROWS = 50_000
LIMITS = {PUCK: 1.5, PENDULUM: 2.0}  # of an action
STEPS = {PUCK: 100, PENDULUM: 200}  # of an episode
H, EDGE, FALL = 0.1, 3.0, 20.0


class Puck(gymnasium.Env[Any, Any]):
    """The puck, one at a time."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
        self.action_space = gymnasium.spaces.Box(-LIMITS[PUCK], LIMITS[PUCK], (2,), np.float32)
        self.state = np.zeros(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = np.concatenate([self.np_random.uniform(-1.5, 1.5, 2), np.zeros(2)])
        return self.state.astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        a = np.clip(np.asarray(action, dtype=float), -LIMITS[PUCK], LIMITS[PUCK])
        place, speed = self.state[:2], self.state[2:]
        reward = 1 - float(place @ place) / 4 - 0.02 * float(a @ a)
        self.state = np.concatenate([place + H * speed, speed + H * (a - 0.1 * speed)])
        fallen = bool(np.linalg.norm(self.state[:2]) > EDGE)
        return self.state.astype(np.float32), reward - FALL * fallen, fallen, False, {}


gymnasium.register(PUCK, Puck, max_episode_steps=STEPS[PUCK])


class Field:
    """Differentiable worlds side by side: observations [N, ds], rewards [N], ends by time alone."""

    def __init__(self, env_id: str, number: int, seed: int) -> None:
        self.env_id, self.number, self.limit = env_id, number, LIMITS[env_id]
        self.generator = torch.Generator().manual_seed(seed)
        self.state = self._starts()
        self.age = torch.randint(STEPS[env_id], (number,), generator=self.generator)

    def observe(self) -> Tensor:
        if self.env_id == PUCK:
            return self.state
        angle, speed = self.state.unbind(1)
        return torch.stack([angle.cos(), angle.sin(), speed], 1)

    def cut(self) -> Tensor:
        """The gradient's path ends here."""
        self.state = self.state.detach()
        return self.observe()

    def step(self, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Observations of what goes on, rewards, the last observations, and whose time is up."""
        a = action.clamp(-self.limit, self.limit)
        if self.env_id == PUCK:
            place, speed = self.state[:, :2], self.state[:, 2:]
            reward = 1 - place.square().sum(1) / 4 - 0.02 * a.square().sum(1)
            after = torch.cat([place + H * speed, speed + H * (a - 0.1 * speed)], 1)
        else:
            angle, speed = self.state.unbind(1)
            turn = torch.remainder(angle + np.pi, 2 * np.pi) - np.pi
            reward = -(turn.square() + 0.1 * speed.square() + 0.001 * a[:, 0].square())
            speed = (speed + 0.05 * (15 * angle.sin() + 3 * a[:, 0])).clamp(-8, 8)
            after = torch.stack([angle + 0.05 * speed, speed], 1)
        self.state = after
        last, self.age = self.observe(), self.age + 1
        over = self.age >= STEPS[self.env_id]
        self.state = torch.where(over[:, None], self._starts(), after)
        self.age = torch.where(over, 0, self.age)
        return self.observe(), reward, last, over

    def _starts(self) -> Tensor:
        draw = 2 * torch.rand(self.number, 2, generator=self.generator) - 1
        if self.env_id == PUCK:
            return torch.cat([1.5 * draw, torch.zeros_like(draw)], 1)
        return draw * torch.tensor([np.pi, 1.0], dtype=torch.float32)


def sizes(env: Any) -> tuple[int, int]:
    """Of an observation and an action, of one environment of a vector."""
    spaces = (getattr(env, f"single_{x}_space", None) for x in ("observation", "action"))
    given = (env.observation_space, env.action_space)
    one, two = (own or space for own, space in zip(spaces, given, strict=True))
    return int(np.prod(one.shape)), int(np.prod(two.shape))


def mlp(inputs: int, outputs: int, width: int = 256) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, outputs),
    )  # fmt: skip


class Replay:
    """Rows of observation, action, reward [·, 1], next observation, terminated [·, 1]."""

    def __init__(self, env: Any) -> None:
        ds, da = sizes(env)
        self.columns = [torch.zeros(ROWS, width) for width in (ds, da, 1, ds, 1)]
        self.count = 0

    def add(self, *row: Any) -> None:
        for column, value in zip(self.columns, row, strict=True):
            column[self.count % ROWS] = torch.as_tensor(np.asarray(value, dtype=np.float32))
        self.count += 1

    def sample(self, n: int) -> list[Tensor]:
        at = torch.randint(min(self.count, ROWS), (n,))
        return [column[at] for column in self.columns]
