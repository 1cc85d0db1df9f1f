"""An engine's System as a simulator: measured, compared and trained on."""

from pathlib import Path

import jax.numpy as jnp
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.systems import Pendulum, from_jax


def step(state, action):
    angle, speed = state
    faster = jnp.clip(speed + 0.05 * (15 * jnp.sin(angle) + 3 * jnp.clip(action[0], -2, 2)), -8, 8)
    wrapped = jnp.mod(angle + jnp.pi, 2 * jnp.pi) - jnp.pi
    cost = wrapped**2 + 0.1 * speed**2 + 0.001 * jnp.clip(action[0], -2, 2) ** 2
    return jnp.stack([angle + 0.05 * faster, faster]), -cost


def starts(n: int, generator: torch.Generator) -> Tensor:
    return 0.1 * torch.randn(n, 2, generator=generator, dtype=torch.float64)


def policy() -> nn.Module:
    linear = nn.Linear(2, 1).double()
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[-8.0, -2.0]]))
        linear.bias.zero_()
    return linear


def critic(state: Tensor, action: Tensor) -> Tensor:
    return -10 * state.square().sum(1) - action.square().sum(1)


def measured(simulator: gradlab.systems.System) -> dict[tuple[str, int], float]:
    task = gradlab.Task("pendulum", simulator, Pendulum(), starts, 0.9, 3)
    profile = gradlab.measure(task, policy(), critic, horizon=3, starts=16, batch=16)
    rows = profile.table().query("quantity == 'mean_norm'")
    return {(r.estimator, r.horizon): r.value for r in rows.itertuples()}


def test_a_measurement_is_that_of_the_same_system_in_torch() -> None:
    ours, theirs = measured(from_jax(step, 2, 1, rows=64)), measured(Pendulum())
    assert ours.keys() == theirs.keys() and ("true_dynamics", 3) in ours
    assert list(ours.values()) == pytest.approx(list(theirs.values()), rel=1e-9)


def test_jacobians_are_compared_and_a_policy_is_trained(tmp_path: Path) -> None:
    simulator = from_jax(step, 2, 1, rows=64)
    first = starts(16, torch.Generator().manual_seed(0))
    compared = gradlab.compare_jacobians(simulator, Pendulum(), first, policy(), horizon=3)
    errors = compared.rows("block", quantity="relative error")["value"]
    assert (errors < 1e-10).all()
    task = gradlab.Task(
        "pendulum", simulator, simulator, starts, 0.9, 3, action_limit=(2.0,), exploration=(0.1,)
    )
    path = gradlab.train("svg-inf", task, tmp_path / "run.h5", iterations=4)
    assert path.exists()
