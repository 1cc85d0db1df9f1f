"""Scores and pathwise gradients of recorded windows, and the inner products made of them."""

import numpy as np
import pytest
import torch

from gradlab.data.trajectories import segments
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.named import rp_dr
from gradlab.gradients.setting import Tail
from gradlab.systems.system import Recorded
from gradlab.tools.logs import gradients
from gradlab.tools.logs.arguments import windows
from gradlab.tools.logs.gradients import baselines, model_source, products, score_source
from gradlab.truth.lqr import ExactCritic
from tests.logs.carts import fallen, noisy, recorded, task, true_gradient

DISCOUNT = task().discount


def score(path, policy, horizons, critic=None, **how):
    width = path.states.shape[2]
    tail = Tail(max(horizons), critic, DISCOUNT)
    estimator = Estimator(Recorded(width, 1), None, "score", tail)
    return score_source(estimator, policy, path.cut(max(horizons)), horizons, 0, **how)


def explicit(source, count, k):
    return gradients.gram.path_gradients(*source.rows(slice(0, count)).until_end(k))


def by_autograd(data, policy, steps):
    """Σ_t γᵗ ∇ log π(a_t|s_t) Σ_{k≥t} γ^{k−t} r_k of every trajectory, [N, P]."""
    rows = []
    for which in range(int(data.trajectory.max()) + 1):
        here = (data.trajectory == which).nonzero()[:, 0][:steps]
        gamma = DISCOUNT ** torch.arange(len(here), dtype=torch.float64)
        togo = (gamma * data.reward[here]).flip(0).cumsum(0).flip(0)
        log_prob = policy.log_prob(data.state[here], data.action[here])
        found = torch.autograd.grad((log_prob * togo).sum(), list(policy.parameters()))
        rows.append(torch.cat([each.flatten() for each in found]))
    return torch.stack(rows)


def test_a_score_is_that_of_autograd_and_stops_where_its_trajectory_fell():
    data, policy = recorded(8, 6), noisy()
    found = explicit(score(windows(data, 6).path, policy, (6,), baseline=False), 8, 0)
    torch.testing.assert_close(found, by_autograd(data, policy, 6), rtol=1e-10, atol=1e-12)
    data, policy = fallen()
    found = explicit(score(windows(data, 6).path, policy, (6,), baseline=False), 40, 0)
    torch.testing.assert_close(found, by_autograd(data, policy, 6), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("baseline", [True, False])
def test_the_mean_score_is_the_gradient_of_the_recorded_return(baseline):
    path, horizons = windows(recorded(3000, 6), 6).path, (1, 3, 6)
    source = score(path, noisy(), horizons, baseline=baseline)
    for k, n in enumerate(horizons):
        G = explicit(source, 3000, k)
        error = (G.mean(dim=0) - true_gradient(n)) / (G.std(dim=0) / 3000**0.5)
        assert error.abs().max() < 4, n


def test_a_baseline_takes_away_noise_and_nothing_else():
    path = windows(recorded(1000, 6), 6).path
    with_, without = (
        explicit(score(path, noisy(), (6,), baseline=each), 1000, 0) for each in (True, False)
    )
    assert with_.var(dim=0).sum() < 0.02 * without.var(dim=0).sum()
    less = without - with_
    assert (less.mean(dim=0).abs() < 4 * less.std(dim=0) / 1000**0.5).all()


def test_no_trajectory_has_a_share_in_its_own_baseline():
    path = windows(recorded(40, 6), 6).path
    returns = torch.randn(2, 7, 40, generator=torch.Generator().manual_seed(0)).double()
    returns[0, 4:] = 0.0  # horizon 3 ends there
    changed = returns.clone()
    changed[:, :, 7] += 100.0
    before, after = (baselines(path, each, (3, 6), DISCOUNT) for each in (returns, changed))
    assert torch.equal(before[:, :, 7], after[:, :, 7])
    assert not torch.isclose(before[:, 0, 8], after[:, 0, 8]).any()


def test_a_quadratic_value_is_fitted_exactly():
    world, policy = task(), noisy()
    path = windows(recorded(200, 6), 6).path
    critic = ExactCritic(world.simulator, policy.policy.network[0].weight, DISCOUNT)
    value = critic(path.states.flatten(0, 1), policy.mean_action(path.states.flatten(0, 1)))
    V = value.detach().reshape(7, 200)
    gamma = DISCOUNT ** torch.arange(7, dtype=torch.float64)[:, None]
    # Returns to go that are the value itself, whatever the horizon.
    returns = torch.stack([gamma * V])
    found = baselines(path, returns, (6,), DISCOUNT)
    torch.testing.assert_close(found, returns, rtol=1e-4, atol=1e-4)


def test_the_model_gradient_is_rp_dr():
    world, policy, data = task(0.6), noisy(), recorded(12, 6)
    critic = ExactCritic(world.simulator, policy.policy.network[0].weight, DISCOUNT)
    path = windows(data, 6).path
    estimator = Estimator(Recorded(2, 1), world.prior, "all", Tail(5, critic, DISCOUNT))
    source = model_source(estimator, policy, path.cut(5), (0, 2, 5), 0)
    for k, n in enumerate((0, 2, 5)):
        known = rp_dr(world.prior, critic, DISCOUNT, n).gradients(
            policy, segments(data, 6).cut(n) if n else _begin(data)
        )
        torch.testing.assert_close(explicit(source, 12, k), known, rtol=1e-10, atol=1e-12)


def _begin(data):
    return segments(data, 6).cut(1)


@pytest.mark.parametrize("numbers", [1 << 24, 40])
def test_products_are_those_of_explicit_gradients(monkeypatch, numbers):
    monkeypatch.setattr(gradients, "NUMBERS", numbers)
    monkeypatch.setattr(gradients, "EXPLICIT", 6)
    path, policy = windows(recorded(7, 10), 4, every=3).path, noisy()
    model = Estimator(Recorded(2, 1), task(0.5).prior, "all", Tail(4, None, DISCOUNT))
    sources = {
        "model": model_source(model, policy, path, (2, 4), 0),
        "score": score(path, policy, (2, 4)),
    }
    cell, other = ("model", 4), ("score", 4)
    found = products(sources, [(cell, cell), (cell, other)], path, 2)
    group = path.group
    X, Z = (
        torch.zeros(7, 2).double().index_add_(0, group, explicit(sources[name], 21, 1))
        for name in ("model", "score")
    )
    pair = found.pair(other, cell)
    np.testing.assert_allclose(pair.own, (X * Z).sum(dim=1), rtol=1e-10)
    np.testing.assert_allclose(pair.left, (Z @ X.sum(dim=0)), rtol=1e-10)
    np.testing.assert_allclose(pair.right, (X @ Z.sum(dim=0)), rtol=1e-10)
    squares = explicit(sources["model"], 21, 1).square().sum(dim=1)
    known = torch.zeros(7).double().index_add_(0, group, squares)
    np.testing.assert_allclose(found.squares[cell], known, rtol=1e-10)
    assert found.size.tolist() == [3.0] * 7
