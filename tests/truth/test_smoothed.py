"""Gradients of smoothed returns: closed forms, quadrature, and errors against them."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab import systems
from gradlab.errors import InputError
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Setting
from gradlab.networks.policies import Gaussian
from gradlab.truth.lqr import lqr_gradient
from gradlab.truth.smoothed import Smoothing, smoothed_truth
from tests.gradients.worlds import linear

GAMMA, SIGMA, EDGE = 0.9, 0.4, 0.3


def jumping(slope=0.0):
    """s′ = s + a pays 1 beyond an edge, and a smooth share of the action."""

    def step(s, a):
        after = s + a
        return after, (after[:, 0] > EDGE).double() - slope * a[:, 0] ** 2

    return systems.from_function(step, state_dim=1, action_dim=1)


def line(weight=-0.4, bias=0.1):
    policy = nn.Linear(1, 1).double()
    policy.weight.data.fill_(weight)
    policy.bias.data.fill_(bias)
    return policy


def setting(system, policy, starts, horizon, termination="ignore"):
    begin = as_starts(starts, system.state_dim)
    return Setting(system, policy, begin, GAMMA, horizon, termination, seed=3)


def drawn(n, width=1):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def density(x):
    return torch.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def normal_cdf(x):
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def errors(found, want):
    """Distance of two means in standard errors of their difference, start by start."""
    gap = found - want
    return float((gap.mean(dim=0).abs() / gap.std(dim=0)).max()) * len(gap) ** 0.5


def test_smoothing_of_the_first_action_is_the_closed_form():
    """Both rewards jump in s_1 = s + a + σ u: at the edge, and where (1 + w) s_1 + b reaches it."""
    w, b, starts = -0.4, 0.1, drawn(400)
    here = setting(jumping(), line(w, b), starts, 2)
    reference = smoothed_truth(here, Smoothing(SIGMA, "first", pairs=32)).first
    middle = starts + w * starts + b
    later = (EDGE - b) / (1 + w)
    want = (density((EDGE - middle) / SIGMA) + GAMMA * density((later - middle) / SIGMA)) / SIGMA
    assert errors(reference.gradients, want) < 3.5
    assert reference.gradients.mean() > 10 * reference.standard_error / len(starts) ** 0.5


def quadrature(starts, w, b, sigma):
    """E r_0 + γ E r_1 with σ u_0, σ u_1 in both actions: u_1 in closed form, u_0 by
    Gauss–Hermite nodes."""
    nodes, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(80))
    middle = starts[:, 0] + w * starts[:, 0] + b
    first = normal_cdf((middle - EDGE) / sigma)
    after = middle[:, None] + sigma * nodes
    second = normal_cdf((after + w * after + b - EDGE) / sigma) @ (weights / weights.sum())
    return first + GAMMA * second


@pytest.mark.parametrize("controlled", [True, False])
@pytest.mark.parametrize("std", [0.0, 0.3])
def test_smoothing_of_all_actions_is_gauss_hermite_quadrature(std, controlled):
    """A policy's own Gaussian noise adds its variance to σ²."""
    w, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (-0.4, 0.1))
    starts = drawn(800)
    plain = line(-0.4, 0.1)
    policy = Gaussian(plain, std) if std else plain
    here = setting(jumping(), policy, starts, 2)
    smoothing = Smoothing(SIGMA, "all", 16, controlled)
    found = smoothed_truth(here, smoothing).every.gradients
    values = quadrature(starts, w, b, math.hypot(SIGMA, std))
    want = torch.stack(
        [torch.stack(torch.autograd.grad(x, (w, b), retain_graph=True)) for x in values]
    )
    assert errors(found, want) < 3.5
    assert float((found.mean(dim=0) / (found.std(dim=0) / len(found) ** 0.5)).abs().min()) > 4


def test_quadratic_returns_keep_their_gradients_and_see_the_noise_alone():
    system, starts = linear(), drawn(1500, 2)
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    here = setting(system, policy, starts, 3)
    second = starts[:, :, None] * starts[:, None]
    first = smoothed_truth(here, Smoothing(0.2, "first", pairs=8)).first.gradients
    want = lqr_gradient(system, policy.weight.detach(), second, GAMMA, "first", 3)
    assert errors(first * starts, want) < 3.5
    every = smoothed_truth(here, Smoothing((0.2,), "all", pairs=8)).every.gradients
    S = torch.tensor([[0.04]]).double()
    want = lqr_gradient(system, policy.weight.detach(), second, GAMMA, "all", 3, S)
    assert errors(every, want) < 3.5


@pytest.mark.parametrize("actions", ["first", "all"])
def test_pathwise_gradients_take_most_of_the_variance_of_a_smooth_return(actions):
    starts = drawn(200)
    here = setting(smooth_system(), line(), starts, 3)
    noise = {}
    for controlled in (True, False):
        twice = (
            smoothed_truth(replace(here, seed=seed), Smoothing(0.05, actions, 4, controlled))
            for seed in (3, 9)
        )
        one, two = ((truth.first or truth.every).gradients for truth in twice)
        assert errors(one, two) < 3.5
        noise[controlled] = float((one - two).var(dim=0).sum())
    assert noise[True] < 0.1 * noise[False]


def test_rewards_past_an_end_do_not_count():
    def step(s, a):
        return s + 1.0, a[:, 0] * torch.ones_like(s[:, 0])

    system = systems.from_function(step, state_dim=1, action_dim=1, alive=lambda s: s[:, 0] < 1.5)
    starts = torch.zeros(50, 1).double()
    one = smoothed_truth(setting(system, line(), starts, 4, "mask"), Smoothing(0.2, pairs=4))
    biases = one.every.gradients[:, 1]
    # Alive at s = 0 and s = 1; the action there is paid once each, with weight 1 and γ.
    assert abs(float(biases.mean()) - (1 + GAMMA)) < 4 * float(biases.std()) / 50**0.5


def task_of(system):
    def begin(n, generator):
        return 0.5 * torch.randn(n, 1, generator=generator, dtype=torch.float64)

    return gradlab.Task("jump", system, None, begin, GAMMA, 2)


def smooth_system():
    def step(s, a):
        after = 0.5 * s + a
        return after, torch.tanh(after[:, 0]) - 0.1 * a[:, 0] ** 2

    return systems.from_function(step, state_dim=1, action_dim=1)


@pytest.mark.parametrize(
    ("act", "word"),
    [
        (lambda: Smoothing(0.0), "sigma is 0.0, expected positive"),
        (lambda: Smoothing("wide"), "sigma is 'wide'"),
        (lambda: Smoothing(()), "sigma is"),
        (lambda: Smoothing(0.1, "score"), "actions of a smoothing is 'score'"),
        (lambda: Smoothing(0.1, pairs=1), "pairs is 1"),
        (
            lambda: smoothed_truth(setting(jumping(), line(), drawn(4), 0), Smoothing(0.1)),
            "expected an integer ≥ 1",
        ),
        (
            lambda: smoothed_truth(setting(jumping(), line(), drawn(4), 1), Smoothing((0.1, 0.2))),
            "sigma has 2 entries, expected 1",
        ),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused(act, word):
    with pytest.raises(InputError, match=word):
        act()
