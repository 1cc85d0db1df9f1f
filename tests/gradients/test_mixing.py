"""Gradients of mixed orders against autograd written out, closed forms and known variances."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gradlab import Estimator, Tail, systems
from gradlab.data.noise import child
from gradlab.gradients import named
from gradlab.gradients.bptt import horizon_gradients
from gradlab.gradients.courses import TermRequest
from gradlab.gradients.nodes import nodes
from gradlab.gradients.starts import as_starts
from gradlab.gradients.weighted_terms import (
    _given,
    _inverse_variance,
    _pilot,
    _propagated,
    _swept,
    fitted,
    share_of_first,
)
from gradlab.networks.policies import Gaussian
from gradlab.truth.lqr import lqr_gradient
from tests.gradients.both_orders import baseline, both_orders, explained, pulled_back
from tests.gradients.noisy import GAMMA, SIM, ingredients
from tests.gradients.worlds import linear

H = 3


def mixing(actions, system=SIM, horizon=H, critic=None, gamma=GAMMA):
    return Estimator(system, system, actions, Tail(horizon, critic, gamma))


def pilot_signals(policy, critic, starts, seed):
    """Both orders on the pilot, and its baseline, all by autograd and numpy."""
    begin = _pilot(as_starts(starts, 2), starts)
    first, to_go, scores, states = both_orders(
        SIM, policy, critic, begin, child(seed, "pilot"), H, GAMMA
    )
    fits = baseline(states, to_go)
    zeroth = (to_go - explained(fits, states))[..., None] * scores
    return first, zeroth, fits


@pytest.mark.parametrize("squash", [False, True])
def test_ivw_is_the_mixture_written_out(squash):
    policy, critic, starts = ingredients(squash)
    policy.requires_grad_(True)
    first, zeroth, fits = pilot_signals(policy, critic, starts, 5)
    v1, v0 = first.var(dim=1), zeroth.var(dim=1)
    share = (v0 / (v0 + v1))[:, None]
    begin = as_starts(starts, 2)
    first, to_go, scores, states = both_orders(SIM, policy, critic, begin, 5, H, GAMMA)
    zeroth = (to_go - explained(fits, states))[..., None] * scores
    want = pulled_back(policy, states, share * first + (1 - share) * zeroth)
    got = mixing("ivw", critic=critic).gradients(policy, starts, seed=5)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    assert float(share.min()) > 0.05
    assert float(share.max()) < 0.999


def test_total_propagation_passes_the_mixture_on():
    """The sweep against one that differentiates z of every step by autograd, sample by sample."""
    policy, critic, starts = ingredients()
    asked = TermRequest(policy, as_starts(starts, 2), (H,), 5, "ignore")
    estimator = mixing("total", critic=critic)
    here, fit = nodes(estimator, asked, None), fitted(estimator, asked, _propagated)
    advantage = here.advantage(fit.baseline)
    path, got = here.linear.path, _swept(here, advantage, _given(fit))[0]
    assert fit.shares.min() > 0.01
    assert fit.shares.max() < 0.999
    s_n = path.states[H].clone().requires_grad_()
    a_n = path.actions[H].clone().requires_grad_()
    p, through = torch.autograd.grad(critic(s_n, a_n).sum(), (s_n, a_n))
    for t in reversed(range(H + 1)):
        s = path.states[t].clone().requires_grad_()
        if t < H:
            a = path.actions[t].clone().requires_grad_()
            out = SIM.step(s, a, path.dynamics_noise[t])
            value = out.reward + GAMMA * (out.state * p).sum(dim=1)
            p, through = torch.autograd.grad(value.sum(), (s, a))
        mean, log_std = policy.normal(s)
        z = torch.cat([mean, log_std], dim=1).detach().requires_grad_()
        a = z[:, :2] + z[:, 2:].exp() * path.policy_noise[t]
        first = torch.autograd.grad((a * through).sum(), z)[0]
        u = path.actions[t]
        density = torch.distributions.Normal(z[:, :2], z[:, 2:].exp()).log_prob(u).sum(dim=1)
        weight = advantage[0, t] / GAMMA**t
        zeroth = torch.autograd.grad((density * weight).sum(), z)[0]
        mix = fit.shares[0, t] * first + (1 - fit.shares[0, t]) * zeroth
        torch.testing.assert_close(got[t], GAMMA**t * mix, rtol=1e-9, atol=1e-11)
        shown = torch.cat(policy.normal(s), dim=1)
        p = p + torch.autograd.grad(shown, s, mix)[0]


def test_total_propagations_limits_are_both_orders():
    policy, critic, starts = ingredients(squash=True)
    asked = TermRequest(policy, as_starts(starts, 2), (0, 2, H), 5, "mask")
    here = nodes(mixing("total", critic=critic), asked, None)
    ones = _swept(here, here.to_go, lambda t, k, *_: torch.ones(len(k), 1, 1))
    torch.testing.assert_close(ones, here.first, rtol=1e-9, atol=1e-12)
    none = _swept(here, here.to_go, lambda t, k, *_: torch.zeros(len(k), 1, 1))
    torch.testing.assert_close(none, here.draws.zeroth(here.to_go), rtol=1e-9, atol=1e-12)
    score = named.likelihood_ratio(SIM, critic, GAMMA, H).gradients(policy, starts, 5, "mask")
    zeroth = pulled_back(policy, here.linear.path.states, none[2])
    torch.testing.assert_close(zeroth, score, rtol=1e-8, atol=1e-10)


def test_total_propagation_weighs_by_the_trace_of_the_variance_in_theta():
    policy, critic, starts = ingredients()
    first, zeroth, fits = pilot_signals(policy, critic, starts, 5)
    begin = _pilot(as_starts(starts, 2), starts)
    states = both_orders(SIM, policy, critic, begin, child(5, "pilot"), H, GAMMA)[3]
    of_last = [pulled_back(policy, states[H:], x[H:]).var(dim=0).sum() for x in (first, zeroth)]
    asked = TermRequest(policy, as_starts(starts, 2), (H,), 5, "ignore")
    fit = fitted(mixing("total", critic=critic), asked, _propagated)
    want = of_last[1] / (of_last[0] + of_last[1])
    torch.testing.assert_close(fit.shares[0, H].squeeze(), want, rtol=1e-9, atol=0)
    weights = torch.from_numpy(np.stack([weights for *_, weights in fits]))
    torch.testing.assert_close(fit.baseline.weights[0], weights, rtol=1e-7, atol=1e-8)


def one_step(reward):
    def step(s, a):
        return s, reward(a[:, 0])

    return systems.from_function(step, state_dim=1, action_dim=1)


def test_the_share_of_known_variances():
    """r = a², a = σ ε about 0: ∂r/∂a = 2 σ ε of variance 4 σ², and the score less its baseline
    (σ² ε² − σ²) ε/σ of variance σ² E(ε³ − ε)² = 10 σ²."""
    policy = Gaussian(nn.Linear(1, 1, bias=False).double(), 0.5)
    policy.policy.weight.data.zero_()
    starts = torch.ones(40, 1).double()
    shares = []
    for seed in range(24):
        asked = TermRequest(policy, as_starts(starts, 1), (1,), seed, "ignore")
        shares.append(fitted(mixing("ivw", one_step(torch.square), 1), asked, _inverse_variance))
    mean = torch.stack([fit.shares[0, 0, 0, 0] for fit in shares]).mean()
    assert abs(float(mean) - 10 / 14) < 0.02
    assert share_of_first(torch.tensor(0.0), torch.tensor(0.0)) == 1
    assert share_of_first(torch.tensor(1.0), torch.tensor(torch.inf)) == 0
    assert share_of_first(torch.tensor(torch.inf), torch.tensor(1.0)) == 1


@pytest.mark.parametrize("actions", ["ivw", "ddcg", "total"])
def test_the_mean_is_the_closed_form_of_linear_quadratic_systems(actions):
    system, gamma = linear(), 0.9
    policy = Gaussian(nn.Linear(2, 1, bias=False).double(), 0.4)
    policy.policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    starts = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0)).double()
    S = torch.tensor([[0.16]]).double()
    want = lqr_gradient(
        system, policy.policy.weight.detach(), starts[:, :, None] * starts[:, None], gamma,
        "all", 3, S,
    )  # fmt: skip
    error, spread = {}, {}
    for way in (actions, "score", "all"):
        model = None if way == "score" else system
        G = Estimator(system, model, way, Tail(3, None, gamma)).gradients(policy, starts)
        gap = G - want
        error[way] = float((gap.mean(dim=0) / gap.std(dim=0)).abs().max()) * len(G) ** 0.5
        spread[way] = float(G.var(dim=0).sum())
    assert error[actions] < 3.5
    # Each step's weights are its own, and steps are correlated: no least variance of their sum.
    assert spread[actions] < 1.5 * spread["all"] < 0.01 * spread["score"]


@pytest.mark.parametrize("actions", ["ivw", "ddcg", "total"])
def test_gradients_depend_neither_on_blocks_nor_on_other_horizons(actions):
    policy, critic, starts = ingredients()
    estimator = mixing(actions, critic=critic)
    whole = estimator.gradients(policy, starts, seed=5)
    for block in (2, 100):
        found = horizon_gradients(estimator, policy, starts, seed=5, block=block)
        torch.testing.assert_close(found.means[-1], whole.mean(dim=0), rtol=1e-9, atol=1e-12)
        norms = whole.square().sum(dim=1)
        torch.testing.assert_close(found.squared_norms[-1], norms, rtol=1e-9, atol=1e-12)
    short = replace(estimator, tail=replace(estimator.tail, horizon=1))
    rows = horizon_gradients(estimator, policy, starts, horizons=(1,), seed=5).means[0]
    mean = short.mean_gradient(policy, starts, seed=5)
    torch.testing.assert_close(rows, mean, rtol=1e-9, atol=1e-12)


def test_the_pilot_shares_no_noise_and_follows_a_policy_that_is_trained_in_place():
    policy, critic, starts = ingredients()
    begin = as_starts(starts, 2)
    estimator = mixing("ivw", critic=critic)
    asked = TermRequest(policy, begin, (H,), 5, "ignore")
    before = fitted(estimator, asked, _inverse_variance)
    assert fitted(estimator, asked, _inverse_variance) is before
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.1)
    assert (fitted(estimator, asked, _inverse_variance).shares - before.shares).abs().max() > 0
    draws = _pilot(begin, starts).policy_noise(policy, child(5, "pilot"), 0)
    assert not torch.isin(draws, begin.policy_noise(policy, 5, 0)).any()
