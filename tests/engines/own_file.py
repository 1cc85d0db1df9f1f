"""A user's file: a body on a line in JAX, and a task of it."""

import jax.numpy as jnp
import torch

import gradlab


def step(state, action):
    """Pushed by a spring and a motor, dt = 0.05 s."""
    x, v = state
    v = v + 0.05 * (2.0 * jnp.tanh(action[0]) - 3.0 * x - 0.2 * v)
    x = x + 0.05 * v
    return jnp.stack([x, v]), -(x**2) - 0.1 * v**2 - 0.01 * action[0] ** 2


def body():
    return gradlab.systems.from_jax(step, state_dim=2, action_dim=1, rows=64)


def task():
    def starts(n, generator):
        return 0.5 * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    return gradlab.Task("body", body(), None, starts, discount=0.9, horizon=3)
