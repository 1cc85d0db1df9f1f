"""A user's file: a body on a line in JAX, the same in torch, and tasks of both."""

import jax.numpy as jnp
import torch
from torch import nn

import gradlab


def step(state, action):
    """Pushed by a spring and a motor, dt = 0.05 s."""
    x, v = state
    v = v + 0.05 * (2.0 * jnp.tanh(action[0]) - 3.0 * x - 0.2 * v)
    x = x + 0.05 * v
    return jnp.stack([x, v]), -(x**2) - 0.1 * v**2 - 0.01 * action[0] ** 2


def in_torch(state, action):
    x, v = state.unbind(1)
    v = v + 0.05 * (2.0 * torch.tanh(action[:, 0]) - 3.0 * x - 0.2 * v)
    x = x + 0.05 * v
    return torch.stack([x, v], 1), -(x**2) - 0.1 * v**2 - 0.01 * action[:, 0] ** 2


def body():
    return gradlab.systems.from_jax(step, state_dim=2, action_dim=1, rows=64)


def body_in_torch():
    return gradlab.systems.from_function(in_torch, state_dim=2, action_dim=1)


def starts(n, generator):
    return 0.5 * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def task():
    """The engine as the simulator, torch as its model."""
    return gradlab.Task("body", body(), body_in_torch(), starts, discount=0.9, horizon=3)


def task_in_jax():
    system = body()
    return gradlab.Task("body", system, system, starts, discount=0.9, horizon=3)


def task_in_torch():
    system = body_in_torch()
    return gradlab.Task("body", system, system, starts, discount=0.9, horizon=3)


def policy():
    linear = nn.Linear(2, 1).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[-0.5, -0.3]]))
        linear.bias.zero_()
    return linear
