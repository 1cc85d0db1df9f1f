"""MONOTONE, run small: each piece of the bound by simulation, and a verdict that can fail."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from analyses.bounds import monotone
from analyses.harness import verdicts
from analyses.harness.criteria import read_verdicts


@pytest.fixture(scope="module")
def small():
    return monotone.measure(small=True)


@pytest.fixture(scope="module")
def some():
    return list(monotone.trials(8))


def test_no_path_leaves_the_reachable_states(some):
    draw = torch.Generator().manual_seed(0)
    for trial in some:
        ds, W = trial.system.state_dim, trial.weight
        state = torch.eye(ds, dtype=torch.float64).repeat(200, 1)
        largest, both = monotone.reachable(trial, W)
        for _ in range(60):
            # The noise at its extremes, in the worst order found by chance.
            kick = torch.randint(0, 2, (len(state), 1), generator=draw).double() * 2 - 1
            action = state @ W.T + monotone.CUT * trial.sigma * kick
            assert float(state.norm(dim=1).max()) <= largest
            assert float(torch.cat([state, action], 1).norm(dim=1).max()) <= both
            state = trial.system.step(state, action).state


def test_an_unstable_policy_has_no_bounded_states(some):
    assert monotone.reachable(some[0], 100 * some[0].weight) == (math.inf, math.inf)


def test_the_distance_of_two_cut_normals_is_below_pinskers_bound_for_whole_ones():
    grid = np.linspace(-8, 8, 200_001)
    density = scipy.stats.truncnorm(-monotone.CUT, monotone.CUT).pdf
    for shift in (1e-3, 0.1, 1.0):
        difference = np.abs(density(grid) - density(grid - shift))
        assert 0.5 * difference.sum() * (grid[1] - grid[0]) < shift / 2


def test_gradient_errors_stay_below_lemma_a1_and_losses_below_the_corrected_theorem(small):
    assert small.holds
    assert small.numbers["violations_lemma"] == 0
    assert small.numbers["violations_repaired"] == 0
    assert small.numbers["steps"] > 80


def test_the_printed_form_fails_where_steps_are_small(small):
    assert small.numbers["violations_printed"] > 0


def test_the_loss_is_the_change_of_the_return_along_the_gradients_difference(small):
    """First order in α: loss / α tends to a constant, which the rows at 1e-5 and 1e-3 share."""
    wide = small.table.pivot(index="trial", columns="alpha", values="loss").dropna()
    low, high = wide.columns[np.isclose(wide.columns, 1e-5)], 1e-3
    slope = wide[low[0]] / 1e-5
    later = wide[wide.columns[np.isclose(wide.columns, high)][0]] / high
    close = np.isclose(slope, later, rtol=0.2, atol=1e-2 * slope.abs().max())
    assert close.mean() > 0.8


def test_two_states_lose_more_than_the_theorem_allows_a_discounted_sum():
    """Against a sum over 10,000 steps of the chain itself."""
    gamma, change = 0.9, 1e-3
    left = 1 - (1 - change) ** np.arange(10_000)
    loss = (gamma ** np.arange(10_000) * 2 * left).sum()
    allowed = 2 / (1 - gamma) * change
    assert monotone.chain(gamma, change) == pytest.approx(loss / allowed)
    assert monotone.chain(gamma, change) > 1


def test_a_violated_bound_is_reported(small):
    worse = small.table.assign(loss=small.table["corrected"] * 2 + 1)
    verdict = monotone.judge(worse)
    assert not verdict.holds
    assert verdict.numbers["violations_corrected"] == len(worse)


def test_the_verdict_is_saved(small, tmp_path):
    verdicts.save(small, tmp_path, "python -m analyses.bounds.monotone")
    made = read_verdicts(tmp_path)["monotone"]
    assert np.isfinite(list(made["numbers"].values())).all()
