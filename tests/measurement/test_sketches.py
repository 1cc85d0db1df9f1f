"""Sketches are what they stand for, and critics' variance is measured as planted."""

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.data.noise import stream
from gradlab.errors import InputError
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.measurement.sketches import explicit_sketch, jacobian_sketch, sketch_for
from gradlab.networks.mlp import Policy
from gradlab.statistics.tails import DIRECTIONS

ONE = torch.eye(1, dtype=torch.float64)


class Tilted(nn.Module):
    """Q(s, u) = −s² − u² − tilt · s u."""

    def __init__(self, tilt):
        super().__init__()
        self.tilt = tilt

    def forward(self, s, u):
        return -(s[:, 0] ** 2) - u[:, 0] ** 2 - self.tilt * s[:, 0] * u[:, 0]


def scalar_task():
    return gradlab.tasks.linear_quadratic(
        A=0.9 * ONE, B=0.5 * ONE, Q=ONE, R=ONE, noise_covariance=0.01 * ONE,
        start_mean=0.6 * torch.ones(1, dtype=torch.float64), start_covariance=0.5 * ONE,
        discount=0.9,
    )  # fmt: skip


def scalar_policy():
    policy = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(policy.weight, -0.3)
    return policy


@pytest.mark.parametrize("hidden", [(), (8,), (24, 24)])
def test_a_sketch_by_the_jacobian_is_that_of_the_explicit_gradient(hidden):
    torch.manual_seed(0)
    policy = Policy(3, 2, hidden=hidden).double()
    states, noise = torch.randn(5, 3).double(), torch.zeros(5, 0).double()
    g, sketch = torch.randn(5, 2).double(), sketch_for(policy)
    J = jacobian_sketch(sketch, policy_jacobian(policy, states, noise))
    found = torch.einsum("na,nas->ns", g, J)
    for i in range(5):
        grads = torch.autograd.grad(policy(states[i : i + 1])[0] @ g[i], policy.parameters())
        whole = torch.cat([each.flatten() for each in grads])
        assert torch.allclose(found[i], explicit_sketch(sketch, whole[None])[0], atol=1e-12)
    assert sketch.width == DIRECTIONS + min(whole.numel(), 256)


def test_frozen_parameters_have_no_sign():
    policy = Policy(3, 1, hidden=(4,)).double()
    first = next(policy.parameters())
    first.requires_grad_(False)
    columns = sketch_for(policy).columns
    assert int(columns.min()) >= first.numel()


@pytest.mark.parametrize("actions", ["first", "all"])
def test_variance_across_critics_is_that_of_exact_mean_gradients(actions):
    """The mean gradient at horizon 1 is linear in the critic's tilt: its variance is known."""
    task, policy = scalar_task(), scalar_policy()
    critics = [Tilted(tilt) for tilt in (0.0, 1.0, 3.0)]
    tail = gradlab.Tail(1, critics[0], task.discount)
    mine = gradlab.Estimator(task.simulator, task.simulator, actions, tail)
    measured = gradlab.measure(
        task, policy, critics, {"mine": mine}, horizon=1, starts=128, law="start"
    )
    row = measured.table().query("quantity == 'variance_critics' and horizon == 1").iloc[0]
    starts = task.starts(128, stream(0, "starts"))
    means = [
        gradlab.Estimator(
            task.simulator, task.simulator, actions, gradlab.Tail(1, c, task.discount)
        ).mean_gradient(policy, starts, 0)
        for c in critics
    ]
    plug_in = float(torch.stack(means).var(dim=0).sum())
    assert row.value < plug_in  # without the sampling noise
    assert row.value == pytest.approx(plug_in, rel=0.1)
    assert row.ci_low <= row.value <= row.ci_high


def test_equal_critics_have_no_variance_and_one_critic_none_to_tell():
    task, policy = scalar_task(), scalar_policy()
    given = dict(horizon=2, starts=16, law="start")
    same = gradlab.measure(task, policy, [Tilted(1.0), Tilted(1.0)], **given).table()
    across = same.query("quantity == 'variance_critics'")
    assert set(across.estimator) == {"data", "model", "mixed", "true_dynamics"}
    assert (across.value.abs() < 1e-20).all()
    alone = gradlab.measure(task, policy, Tilted(1.0), **given).table()
    assert "variance_critics" not in set(alone.quantity)
    rest = same.query("quantity != 'variance_critics'").reset_index(drop=True)
    np.testing.assert_allclose(rest.value, alone.value, rtol=1e-9, atol=1e-12)


def test_critics_that_are_none_are_refused():
    task, policy = scalar_task(), scalar_policy()
    for wrong in ([], [Tilted(1.0), "two"]):
        with pytest.raises(InputError, match="critic"):
            gradlab.measure(task, policy, wrong, horizon=1, starts=16)
