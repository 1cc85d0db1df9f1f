"""What the tests of integrations share: a small world, its task, and all that a run leaves."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

import gradlab

A = np.array([[1.0, 0.1], [0.0, 0.9]])
B = np.array([0.0, 0.1])


class Integrator(gymnasium.Env):
    """s' = A s + B a, reward −|s|² − a², 20 steps; starts by the environment's own stream."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.state, self.steps = self.np_random.normal(size=2), 0
        return self.state.astype(np.float32), {}

    def step(self, action: Any) -> Any:
        u = float(np.asarray(action).reshape(-1)[0])
        reward = -float(self.state @ self.state) - u**2
        self.state, self.steps = A @ self.state + B * u, self.steps + 1
        return self.state.astype(np.float32), reward, False, self.steps >= 20, {}


def integrator_task(factor: float = 1.0) -> gradlab.Task:
    """The environment's system, its actions `factor` times as strong; the prior is a bit wrong."""
    a, b = torch.as_tensor(A), torch.as_tensor(B)[:, None]

    def system(a_: Tensor, b_: Tensor) -> Any:
        def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
            reward = -(state**2).sum(-1) - (action**2).sum(-1)
            return state @ a_.T + action @ b_.T, reward

        return gradlab.systems.from_function(step, 2, 1)

    return gradlab.Task(
        name="integrator",
        simulator=system(a, factor * b),
        prior=system(1.05 * a, 0.9 * factor * b),
        starts=lambda n, generator: torch.randn(n, 2, generator=generator, dtype=torch.float64),
        discount=0.5,
        horizon=5,
        action_limit=(2.0,),
    )


def seeded() -> None:
    torch.manual_seed(0), np.random.seed(0), random.seed(0)


def streams() -> dict[str, Any]:
    """Where the global random streams stand; torch's is that of the CPU and of all devices."""
    found = {"torch": torch.get_rng_state(), "numpy": np.random.get_state()}
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return found | {"python": random.getstate(), "devices": devices}


def trained(*modules: Any) -> list[Any]:
    """Parameters, gradients, buffers and modes."""
    return [
        (m.state_dict(), [p.grad for p in m.parameters()], [x.training for x in m.modules()])
        for m in modules
    ]


def same(one: Any, other: Any) -> bool:
    """Bit for bit."""
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def often(every: int = 250) -> dict[str, Any]:
    """Arguments of a probe that measures four times in so many updates."""
    return {"every": max(every // 8, 1)}


def tables(rows: list[dict[str, Any]]) -> dict[str, int]:
    """How many rows of each table a log function was given."""
    names = [next(k for k in row if "/" in k).split("/")[0] for row in rows]
    return {name: names.count(name) for name in names}


def example(name: str) -> Any:
    """A script of examples/ as a module."""
    place = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
