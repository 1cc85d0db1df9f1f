"""Actions that are planned through a model at test."""

import numpy as np
import pytest
import torch

from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.training.loop import train
from gradlab.training.parts.context import Objective
from gradlab.training.parts.critics import nothing
from gradlab.training.planning import Planner
from gradlab.training.settings import Planning
from tests.training.small_runs import SMALL, row, task

A, B, COST, GAMMA = 0.9, 0.5, 0.3, 0.95


def column(path, table, name):
    return read(path).groups[table][name].values


def linear():
    """s' = a s + b u, reward −(s² + c u²)."""
    step = lambda s, u: (A * s + B * u, -(s[:, 0] ** 2 + COST * u[:, 0] ** 2))  # noqa: E731
    return from_function(step, state_dim=1, action_dim=1)


def riccati(horizon):
    """u = −k s, the best first action over the horizon."""
    value, gain = 0.0, 0.0
    for _ in range(horizon):
        gain = GAMMA * A * B * value / (COST + GAMMA * B**2 * value)
        value = 1 + COST * gain**2 + GAMMA * value * (A - B * gain) ** 2
    return gain


def planner(horizon, value=nothing, **changes):
    return Planner(
        Planning(horizon, **({"samples": 400, "elites": 40, "rounds": 8} | changes)),
        linear(),
        draw=lambda state, noise: noise,
        act=lambda state: -0.5 * state,
        value=value, objective=Objective(GAMMA), action_dim=1, limit=None,
    )  # fmt: skip


@pytest.mark.parametrize("horizon", [2, 4])
def test_a_plan_is_the_linear_quadratic_one(horizon):
    state = torch.tensor([[[1.0], [-2.0]], [[0.5], [3.0]]], dtype=torch.float64)
    action = planner(horizon)(state, 0)
    torch.testing.assert_close(action, -riccati(horizon) * state, rtol=0.02, atol=0.02)


def test_a_plan_ends_in_the_critic():
    def value(state, action=None, log_prob=None):
        return -4 * state[..., 0] ** 2

    state = torch.tensor([[[1.0], [-2.0]]], dtype=torch.float64)
    gain = GAMMA * A * B * 4 / (COST + GAMMA * B**2 * 4)
    torch.testing.assert_close(planner(1, value)(state, 0), -gain * state, rtol=0.02, atol=0.02)


SMALL_PLAN = Planning(2, samples=8, elites=3, rounds=2, starts=3)


def test_a_run_evaluates_with_and_without_a_plan_on_the_same_starts(tmp_path, small_run):
    plain = small_run(row("mpg-v2"), **SMALL)
    path = train(row("mpg-v2"), task(), tmp_path / "a.h5", **SMALL, planning=SMALL_PLAN)
    returns = [column(file, "evaluations", "return_mean") for file in (plain, path)]
    assert np.array_equal(*returns)
    assert np.isfinite(column(path, "evaluations", "planned_gain_mean")).all()
    assert (column(path, "evaluations", "planned_gain_se") > 0).all()
