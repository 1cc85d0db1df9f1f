"""OPT-H: gradients and variances against gradlab's estimator, the verdict on planted profiles."""

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.bounds import opt_h
from analyses.bounds.tailed_gradients import QuadraticCritic
from analyses.bounds.wrong_quadratics import make_world
from gradlab.data.noise import stream
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.networks.mlp import Policy
from gradlab.systems.linear import LinearQuadratic


@pytest.fixture(scope="module")
def world():
    return make_world(discount=0.9)


@pytest.mark.parametrize("h", [0, 1, 4])
@pytest.mark.parametrize("actions", ["all", "first"])
def test_means_and_variances_are_those_of_gradlabs_estimator(world, h, actions):
    model, critic = opt_h.wrong(world, 1, 1.0)
    setting = world.setting
    gradient = opt_h.all_actions if actions == "all" else opt_h.first_action
    noise = torch.zeros(2, 2, dtype=torch.float64)
    system = LinearQuadratic(model.A[0], model.B[0], setting.Q, setting.R, noise)
    policy = Policy(2, 1, hidden=(), bias=False).double()
    with torch.no_grad():
        next(policy.parameters()).copy_(setting.weight)
    n = 20_000
    starts = torch.randn(n, 2, generator=stream(0, "opt-h test"), dtype=torch.float64) * 0.5**0.5
    estimator = Estimator(system, system, actions, Tail(h, QuadraticCritic(critic[0]), 0.9))
    samples = estimator.gradients(policy, starts)
    mean = gradient(setting, model, critic, h).flatten()
    trace = float(opt_h.spread(setting, model, critic, h, gradient))
    assert float((samples.mean(dim=0) - mean).norm()) < 4 * (trace / n) ** 0.5
    assert float(samples.var(dim=0).sum()) == pytest.approx(trace, rel=0.08)


def test_long_horizons_of_the_truth_are_the_exact_gradients(world):
    true = world.dynamics
    every = opt_h.all_actions(world.setting, true, world.critic, 300).flatten()
    torch.testing.assert_close(every, world.truth, rtol=1e-10, atol=0)
    first = [opt_h.first_action(world.setting, true, world.critic, h) for h in (0, 1, 300)]
    for each in first:
        torch.testing.assert_close(each, first[0], rtol=1e-10, atol=0)


def test_the_errors_have_the_ratio_they_are_called_by(world):
    for ratio in (0.1, 1000.0):
        model, critic = opt_h.wrong(world, 3, ratio)
        off = [
            torch.linalg.matrix_norm(x, 2)
            for x in (model.A - world.system.A, model.B - world.system.B)
        ]
        critic_error = opt_h.critic_error(world, critic - world.critic)
        found = critic_error / sum(off)
        torch.testing.assert_close(found, torch.full_like(found, ratio))


def test_visitation_is_the_discounted_share_of_steps(world):
    F = world.dynamics.closed_loop(world.setting.weight)
    found = opt_h.visitation(world)
    # ν = (1 − γ) Σ_0 + γ F ν Fᵀ
    torch.testing.assert_close(found, 0.1 * world.setting.moment + 0.9 * F @ found @ F.T)


def planted(best_of):
    """Profiles whose smallest error is where `best_of(ratio)` says, for every seed and reading."""
    cells = [
        {"reading": name, "discount": g, "ratio": r, "horizon": h, "seed": seed,
         "bias2": (h - best_of(r)) ** 2 + 1.0, "variance": 0.0}
        for name in opt_h.READINGS for g in opt_h.DISCOUNTS for r in opt_h.RATIOS
        for h in range(12) for seed in range(20)
    ]  # fmt: skip
    return pd.DataFrame(cells)


@pytest.mark.parametrize(
    ("best_of", "holds", "opening"),
    [
        (lambda r: 2 * np.log10(10 * r) + 1, True, "True"),
        (lambda r: 3.0, False, "Not seen"),
        (lambda r: 9 - 2 * np.log10(10 * r), False, "Not seen"),
    ],
)
def test_only_a_horizon_that_rises_with_the_ratio_passes(best_of, holds, opening):
    verdict = opt_h.judge(planted(best_of))
    assert verdict.holds == holds
    assert verdict.sentence.startswith(opening)
    assert "nan" not in verdict.sentence


def test_the_horizon_of_least_bias_rises_where_errors_are_all_there_is():
    ends = [opt_h.profiles(make_world(), 6, 20, r) for r in (0.1, 1000.0)]
    best = opt_h.chosen(pd.concat(ends), np.inf)
    middle = best.groupby(["reading", "ratio"])["horizon"].median()
    assert middle["errors alone", 0.1] == 0 and middle["errors alone", 1000.0] >= 5
