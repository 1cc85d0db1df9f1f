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
COLUMNS = ("observation", "action", "reward", "next_observation", "terminated")


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
    """A differentiable world: states [N, ·] → observations [N, ds], and a step of them. Episodes
    end by time alone."""

    def __init__(self, env_id: str) -> None:
        self.env_id, self.limit, self.length = env_id, LIMITS[env_id], STEPS[env_id]
        self.actions = 2 if env_id == PUCK else 1

    def start(self, number: int) -> Tensor:
        draw = 2 * torch.rand(number, 2) - 1
        if self.env_id == PUCK:
            return torch.cat([1.5 * draw, torch.zeros_like(draw)], 1)
        return draw * torch.tensor([np.pi, 1.0], dtype=torch.float32)

    def observe(self, state: Tensor) -> Tensor:
        if self.env_id == PUCK:
            return state
        angle, speed = state.unbind(1)
        return torch.stack([angle.cos(), angle.sin(), speed], 1)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The next states, and rewards [N]."""
        a = action.clamp(-self.limit, self.limit)
        if self.env_id == PUCK:
            place, speed = state[:, :2], state[:, 2:]
            reward = 1 - place.square().sum(1) / 4 - 0.02 * a.square().sum(1)
            return torch.cat([place + H * speed, speed + H * (a - 0.1 * speed)], 1), reward
        angle, speed = state.unbind(1)
        turn = torch.remainder(angle + np.pi, 2 * np.pi) - np.pi
        reward = -(turn.square() + 0.1 * speed.square() + 0.001 * a[:, 0].square())
        speed = (speed + 0.05 * (15 * angle.sin() + 3 * a[:, 0])).clamp(-8, 8)
        return torch.stack([angle + 0.05 * speed, speed], 1), reward


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


def limits(module: nn.Module, env: Any) -> None:
    """The half width and the middle of the actions, as buffers of an actor."""
    space = getattr(env, "single_action_space", env.action_space)
    module.register_buffer("action_scale", torch.tensor((space.high - space.low) / 2))
    module.register_buffer("action_bias", torch.tensor((space.high + space.low) / 2))


class Replay:
    """Rows by column, reward and terminated [·, 1]."""

    def __init__(self, env: Any) -> None:
        ds, da = sizes(env)
        self.columns = [torch.zeros(ROWS, width) for width in (ds, da, 1, ds, 1)]
        self.count = 0

    def add(self, *row: Any) -> None:
        for column, value in zip(self.columns, row, strict=True):
            column[self.count % ROWS] = torch.as_tensor(np.asarray(value, dtype=np.float32))
        self.count += 1

    def sample(self, n: int) -> dict[str, Tensor]:
        at = torch.randint(min(self.count, ROWS), (n,))
        return {name: x[at] for name, x in zip(COLUMNS, self.columns, strict=True)}
