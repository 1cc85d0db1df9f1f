"""Gradients along a rollout by Jacobians of many steps at once are those of autograd."""

import pytest
import torch

from gradlab import tasks
from gradlab.data.noise import stream
from gradlab.training.parts import policy_losses
from gradlab.training.parts.policy_losses import MOST, RolloutSteps, followed

STEPS, ROWS = 7, 12


@pytest.fixture(params=["path_tracking", "inverted_pendulum"])
def task(request):
    return getattr(tasks, request.param)()


def gradients(model, task, noisy=True):
    """Of a linear policy's return with a value at the end, and of the first states."""
    states = task.starts(ROWS, stream(0, "starts"))
    states[0] *= 40.0  # a path tracker beyond its range of speeds
    states.requires_grad_()
    torch.manual_seed(0)
    policy = (0.1 * torch.randn(states.shape[1], task.prior.action_dim)).double()
    policy.requires_grad_()
    state, total = states, 0.0
    for t in range(STEPS):
        noise = task.prior.sample_noise(ROWS, stream(0, "noise", t)) if noisy else None
        after = model.step(state, (state @ policy).tanh(), noise)
        total = total + 0.9**t * after.reward * after.alive
        state = after.state
    loss = (total + state.square().sum(dim=1)).sum()
    return [*torch.autograd.grad(loss, (policy, states), retain_graph=True)], loss


@pytest.mark.parametrize("rows", [ROWS, 3 * ROWS, 4096])
@pytest.mark.parametrize("noisy", [True, False])
def test_they_are_those_of_autograd(task, noisy, rows, monkeypatch):
    monkeypatch.setattr(policy_losses, "ROWS", rows)
    expected, loss = gradients(task.prior, task, noisy)
    found, same = gradients(RolloutSteps(task.prior), task, noisy)
    torch.testing.assert_close(same, loss, rtol=0, atol=0)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_a_step_that_is_made_after_a_backward_pass_has_its_own_jacobian(task):
    path, state = RolloutSteps(task.prior), task.starts(ROWS, stream(0, "starts")).requires_grad_()
    action = torch.zeros(ROWS, task.prior.action_dim, dtype=state.dtype)
    for scale in (1.0, 2.0):
        after, expected = (m.step(scale * state, action) for m in (path, task.prior))
        (found,) = torch.autograd.grad(after.state.sum(), state, retain_graph=True)
        torch.testing.assert_close(found, torch.autograd.grad(expected.state.sum(), state)[0])


def test_only_formulas_on_few_rows_are_followed(task):
    assert isinstance(followed(task.prior, MOST), RolloutSteps)
    assert followed(task.prior, MOST + 1) is task.prior
    assert followed(task.simulator, 1) is task.simulator
    assert followed(None, 1) is None
