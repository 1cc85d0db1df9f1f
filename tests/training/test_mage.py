"""MAGE's critic loss: its value, and its gradient in the critic, against finite differences."""

from functools import partial

import pytest
import torch
from torch import nn

from gradlab.data.replay import Batch
from gradlab.systems import from_function
from gradlab.training.members import stacked
from gradlab.training.parts.context import Context, Objective
from gradlab.training.parts.critics import ActionGradient, Q, Valuing
from gradlab.training.parts.targets import OneStep

GAMMA, SCALE, N = 0.9, 0.5, 5


def push(state, action, noise):
    moved = 0.9 * state + torch.cat([torch.sin(action), action * state[:, :1]], 1) + 0.1 * noise
    return moved, -(state**2).sum(1) - 0.3 * (action**2).sum(1) + action[:, 0] * noise[:, 0]


MODEL = from_function(
    push, state_dim=2, action_dim=1, noise_dim=2, alive=lambda state: state[:, 0] < 0.5
)


def policy(state, noise):
    return torch.tanh(state.sum(dim=2, keepdim=True)), None


def target_critic(state, action, log_prob=None):
    return torch.cos(state).sum(dim=2) + action[..., 0] ** 3


class Drawn:
    def normal(self, name, iteration, shape):
        generator = torch.Generator().manual_seed(len(name))
        return torch.randn(1, *shape, generator=generator, dtype=torch.float64)


def given(masked=False):
    context = Context(
        Objective(GAMMA, SCALE, masked), policy, policy, policy, None, None, target_critic, None,
        None, MODEL, Drawn(), 0,
    )  # fmt: skip
    state = torch.randn(1, N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    nothing = state.new_zeros(1, N)
    return context, Batch(state, state[..., :1], nothing, state, nothing)


def two_critics():
    """Of one seed, smooth; their parameters, and their values [1, 2, N]."""
    torch.manual_seed(1)
    modules = [nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)) for _ in range(2)]
    pair = stacked(modules, "tanh", torch.float64, "cpu")
    valuing = Valuing(Q, 2, Objective(GAMMA))
    return pair, partial(valuing.every, pair)


def error(context, batch, critics, action):
    """δ [C, N] of the model's transition, without derivatives."""
    state, noise = batch.state[0], context.normal("penalty model noise", (1, N, 2))[0, 0]
    after = MODEL.step(state, action[0], noise)
    lives = after.alive.double() if context.objective.masked else 1.0
    value = target_critic(after.state[None], policy(after.state[None], None)[0])[0]
    return SCALE * after.reward + GAMMA * lives * value - critics(batch.state, action)[0]


def huber(size, threshold):
    """x² / 2 threshold where x is below it, else x − threshold / 2."""
    below = size**2 / (2 * max(threshold, 1e-300))
    return torch.where(size < threshold, below, size - threshold / 2)


@pytest.mark.parametrize(("masked", "threshold"), [(False, 0.0), (True, 0.0), (False, 0.7)])
def test_the_loss_is_the_size_of_the_td_errors_differences_in_the_action(masked, threshold):
    context, batch = given(masked)
    _, critics = two_critics()
    action, step = policy(batch.state, None)[0], 1e-5
    loss = ActionGradient(OneStep(twin=True), weight=0.3, threshold=threshold)
    got, value = loss(context, batch, critics, torch.zeros(1, N))
    with torch.no_grad():
        ends = [error(context, batch, critics, action + by) for by in (step, -step)]
        slope = (ends[0] - ends[1]) / (2 * step)  # one action: its absolute value is its norm
        sizes = slope.abs(), error(context, batch, critics, action).abs()
        parts = [huber(size, threshold).mean(dim=1) for size in sizes]
        wanted = parts[0] + 0.3 * parts[1]
        torch.testing.assert_close(got[0].detach(), wanted, rtol=1e-7, atol=0)
        torch.testing.assert_close(value.detach(), critics(batch.state, action))
    assert (slope.abs() > 1e-3).all()
    assert not threshold or ((sizes[1] < threshold).any() and (sizes[1] > threshold).any())


@pytest.mark.parametrize(("weight", "threshold"), [(0.0, 0.0), (0.2, 0.0), (0.2, 1.0)])
def test_its_gradient_in_the_critics_is_that_of_finite_differences(weight, threshold):
    context, batch = given()
    net, critics = two_critics()
    loss = ActionGradient(OneStep(twin=True), weight, threshold)

    def total():
        return loss(context, batch, critics, torch.zeros(1, N))[0].sum()

    gradients = torch.autograd.grad(total(), net.parameters, allow_unused=True)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        ways = [torch.randn(p.shape, generator=generator).double() for p in net.parameters]
        slope = sum((g * d).sum() for g, d in zip(gradients, ways, strict=True) if g is not None)
        ends = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                torch._foreach_add_(net.parameters, ways, alpha=step)
            ends.append(total().item())
        with torch.no_grad():
            torch._foreach_add_(net.parameters, ways, alpha=1e-6)
        assert float(slope) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)
