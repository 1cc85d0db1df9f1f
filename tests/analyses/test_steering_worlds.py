"""The worlds in which steering is tried: returns and gradients are those of the package."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from analyses.steering import linear_quadratic as lq
from analyses.steering.linear_quadratic import ACTION, ARMS, GAMMA, HORIZONS, STATE, Arm, Policy
from gradlab import Estimator, Tail
from gradlab.truth.lqr import lqr_gradient, lqr_return


class Quadratic(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, s, a):
        both = torch.cat([s, a], dim=1)
        return -((both @ self.matrix) * both).sum(dim=1)


@pytest.fixture(scope="module")
def worlds():
    return lq.Worlds(tuple(lq.world_of(seed) for seed in (3, 4, 7)))


@pytest.mark.parametrize("place", range(len(HORIZONS)))
def test_a_closed_form_gradient_is_that_of_the_estimator(worlds, place):
    critic, _ = lq.fit_critic(worlds, worlds.weight, 2)
    states = torch.randn(16, STATE, generator=torch.Generator().manual_seed(0)).double()
    horizon = torch.full((1, 3), HORIZONS[place])
    moments = (states.T @ states / 16).expand(3, -1, -1)
    found = lq.model_gradient(worlds, worlds.weight[None], critic, horizon, moments)
    for i, world in enumerate(worlds.each):
        policy = nn.Linear(STATE, ACTION, bias=False).double()
        policy.weight.data = world.weight.clone()
        tail = Tail(HORIZONS[place], Quadratic(critic[i]), GAMMA)
        estimator = Estimator(world.prior, world.prior, "all", tail)
        expected = estimator.mean_gradient(policy, states)
        assert torch.allclose(found[0, i].flatten(), expected)


def test_exact_returns_and_gradients_are_those_of_closed_forms(worlds):
    value, true = lq.compute_value(worlds, worlds.weight), lq.true_gradient(worlds, worlds.weight)
    unit = torch.eye(STATE).double()
    for i, world in enumerate(worlds.each):
        assert torch.allclose(value[i], lqr_return(world.system, world.weight, unit, GAMMA))
        expected = lqr_gradient(world.system, world.weight, unit, GAMMA, "all")
        assert torch.allclose(true[i].flatten(), expected)
    wild = worlds.weight + 100.0
    assert (lq.compute_value(worlds, wild) == -torch.inf).all()


def test_judged_returns_are_those_of_rollouts(worlds):
    states = torch.randn(lq.JUDGES, STATE, generator=torch.Generator().manual_seed(1)).double()
    moments = (states.T @ states / lq.JUDGES).expand(3, -1, -1)
    weight = torch.zeros_like(worlds.weight)
    weight[:, 0, 0] = 0.1
    found = lq.judged_return(worlds, weight, moments)
    for i, world in enumerate(worlds.each):
        state, total = states, torch.zeros(lq.JUDGES).double()
        for t in range(lq.T):
            out = world.system.step(state, state @ weight[i].T)
            total, state = total + GAMMA**t * out.reward, out.state
        assert torch.allclose(found[i], total.mean(), rtol=1e-10)


def test_updates_are_those_of_torchs_adam(worlds):
    theta = worlds.weight.clone().requires_grad_()
    optimizer = torch.optim.Adam([theta], lr=0.01)
    none = torch.zeros_like(worlds.weight)
    policy = Policy(worlds.weight, none, none)
    for k in range(4):
        gradient = torch.sin(k + worlds.weight)
        theta.grad = -gradient
        optimizer.step()
        policy = lq.ascend(policy, gradient, torch.full((3,), 0.01).double())
    assert torch.allclose(policy.weight, theta.detach())


def test_a_candidate_among_others_takes_its_own_updates(worlds):
    critic, _ = lq.fit_critic(worlds, worlds.weight, 0)
    none = torch.zeros_like(worlds.weight)
    policy, batches = Policy(worlds.weight, none, none), worlds.draws(0).batches
    places = torch.tensor([[0, 1, 2], [3, 3, 3]])
    both = lq.follow(worlds, policy, critic, places, worlds.rate, batches, (1, 5))
    alone = lq.follow(worlds, policy, critic, places[:1], worlds.rate, batches, (5,))
    assert torch.allclose(both.weight[1], alone.weight[0])
    assert torch.equal(both.picked(torch.tensor([1, 1, 3])).weight[2], both.weight[3, 2])


def test_a_policy_is_held_where_the_judges_see_it_fall():
    worlds = lq.Worlds(tuple(lq.world_of(seed) for seed in range(8)))
    none = torch.zeros_like(worlds.weight)
    policy, draws = Policy(worlds.weight, none, none), worlds.draws(0)
    critic, _ = lq.fit_critic(worlds, worlds.weight, 0)
    place = torch.full((1, 8), HORIZONS.index(1))
    tried = lq.follow(worlds, policy, critic, place, worlds.rate, draws.batches, (25,)).weight[0]
    before, after = (
        lq.judged_return(worlds, each, draws.judges[0]) for each in (policy.weight, tried)
    )
    falls = after <= before
    assert 0 < falls.sum() < 8
    shares, refused = lq.run_arm(worlds, Arm("fixed", hold=True, horizon=1), 1)
    assert refused.tolist() == falls.double().tolist()
    expected = torch.where(falls, 0.0, lq.share_of(worlds, tried))
    assert torch.allclose(torch.from_numpy(shares[0]), expected)


def test_a_policy_without_a_return_stays(worlds):
    lost = tuple(
        lq.World(w.seed, w.system, w.prior, w.weight + 100.0, w.error, w.rate) for w in worlds.each
    )
    shares, refused = lq.run_arm(lq.Worlds(lost), Arm("fixed"), 1)
    assert (refused == 1).all()
    assert not (shares == shares).any()  # −∞ − (−∞)


def test_prices_count_fits_gains_and_judged_policies():
    assert ARMS["fixed 5"].price == 5760
    assert ARMS["gain 5"].price == 5760 * 6
    assert ARMS["rehearse"].price == 5760 + 13 * 1440
    assert ARMS["rehearse, no hold"].price == 5760 + 12 * 1440
    assert ARMS["accept"].price == 5760 + 5 * 2 * 1440
    assert lq.fits_of(ARMS["fixed 5"]) == 34 and lq.fits_of(ARMS["rehearse"]) == lq.FITS
    better = lq.KINDS["better critics"]
    assert better.price == ARMS["rehearse"].price and lq.fits_of(better) == lq.FITS


def test_a_rate_that_falls_makes_smaller_steps_and_better_critics_err_less(worlds):
    critic, _ = lq.fit_critic(worlds, worlds.weight, 0)
    better, _ = lq.fit_critic(worlds, worlds.weight, 0, better=2.0)
    exact, _ = lq.fit_critic(worlds, worlds.weight, 0, better=1e12)
    assert torch.allclose(better - exact, (critic - exact) / 2)
    whole, _ = lq.run_arm(worlds, Arm("fixed", (1,), horizon=25), 1)
    falling, _ = lq.run_arm(worlds, Arm("fixed", (1,), horizon=25, decay=True), 1)
    assert not (falling == whole).any()
