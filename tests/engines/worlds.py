"""Another engine's System beside the same system written in torch, its closed form.

Each function returns both and the relative error that the engine's precision allows.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradlab.systems import System, from_function

World = tuple[System, System, float]
Step = Callable[[Tensor, Tensor], Tensor]


def cost(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
    return -after.square().sum(1) - 0.1 * action.square().sum(1)


def closed_form(step: Step, state_dim: int, action_dim: int) -> System:
    def paid(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        after = step(state, action)
        return after, cost(state, action, after)

    return from_function(paid, state_dim, action_dim)


def sliding(substeps: int, dt: float, acceleration: float) -> System:
    """A body pushed along a line: v' = v + c a dt, x' = x + v' dt in every substep."""

    def step(state: Tensor, action: Tensor) -> Tensor:
        x, v = state[:, :1], state[:, 1:]
        for _ in range(substeps):
            v = v + dt * acceleration * action
            x = x + dt * v
        return torch.cat([x, v], 1)

    return closed_form(step, 2, 1)


def jax() -> World:
    pytest.importorskip("jax")
    from gradlab.systems import from_jax

    def step(state, action):
        x, v = state
        for _ in range(2):
            v = v + 0.2 * action[0]
            x = x + 0.02 * v
        after = state.at[0].set(x).at[1].set(v)
        return after, -(after @ after) - 0.1 * action[0] ** 2

    return from_jax(step, 2, 1, rows=64), sliding(2, 0.02, 10.0), 1e-9


def warp() -> World:
    wp = pytest.importorskip("warp")
    from gradlab.systems import from_warp
    from tests.engines.kernels import slid

    middle = wp.zeros((64, 2), dtype=wp.float64, device="cpu", requires_grad=True)

    def step(state, action, after) -> None:
        for before, then in ((state, middle), (middle, after)):
            wp.launch(slid, 64, [before, action], [then], device="cpu")

    system = from_warp(step, 2, 1, cost, dtype="float64", rows=64)
    return system, sliding(2, 0.02, 10.0), 1e-9


ALL = (jax, warp)
