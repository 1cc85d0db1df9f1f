"""Starts that no sample holds: seen where the law has tails, not where it is Gaussian."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

import gradlab
from analyses.gain_coverage import networks, turning
from gradlab.measurement.rare_starts import RARE_STARTS, farthest, share
from gradlab.runs.check_results import RARE, CheckResult, rare_starts
from gradlab.statistics.moments import Moments, PairSums
from gradlab.verdicts.measurement.verdict import verdict

TASK = turning()
MEAN = torch.tensor([0.6, -0.3], dtype=torch.float64)


def tailed(freedom):
    """The task's Gaussian starts with the tails of Student's t, of the same covariance."""

    def starts(n, generator):
        x = 0.5**0.5 * torch.randn(n, 2, generator=generator, dtype=torch.float64)
        seed = int(torch.randint(2**31, (1,), generator=generator))
        chi2 = stats.chi2.rvs(freedom, size=(n, 1), random_state=seed)
        return MEAN + x * torch.from_numpy(((freedom - 2) / chi2) ** 0.5)

    return replace(TASK, starts=starts)


def check(task, seed, starts=64):
    policy, critic = networks(TASK)
    profile = gradlab.measure(task, policy, critic, horizon=1, starts=starts, seed=seed, judges=4)
    return profile, rare_starts(profile.sanity)


def test_heavy_tails_are_seen_and_gaussian_ones_are_not():
    heavy = [check(tailed(4.5), seed)[1].passed for seed in range(8)]
    light = [check(TASK, seed)[1].passed for seed in range(8)]
    assert sum(heavy) <= 3 and all(light)


def test_where_they_are_seen_sentences_on_errors_decide_nothing():
    profile = next(
        profile for profile, found in (check(tailed(4.5), s) for s in range(9)) if not found.passed
    )
    told = {each.about: each for each in verdict(profile)}
    assert not told["variance"].decided and told["variance"].text.startswith("Not reliable at N =")
    passed = CheckResult(RARE, "", "", True)
    others = [each for each in profile.sanity if each.check != RARE]
    again = {each.about: each for each in verdict(replace(profile, sanity=(*others, passed)))}
    assert again["variance"].text == told["variance"].text.removeprefix("Not reliable at N = 64: ")
    assert "tails" not in told


def test_starts_that_were_given_have_no_law_to_ask():
    policy, critic = networks(TASK)
    states = TASK.starts(64, torch.Generator().manual_seed(0))
    profile = gradlab.measure(TASK, policy, critic, horizon=1, starts=states)
    assert rare_starts(profile.sanity) is None


def test_the_farthest_are_a_stratum_of_half_a_start_in_n():
    n = 64
    rare = farthest(TASK, n, 0) - MEAN
    radius2 = (rare**2).sum(dim=1) / 0.5
    assert len(rare) == RARE_STARTS
    # Beyond a radius that 1 in 2 N Gaussian starts exceeds.
    assert float(radius2.min()) == pytest.approx(stats.chi2.isf(1 / (2 * n), 2), rel=0.2)
    assert farthest(replace(TASK, starts=lambda k, generator: MEAN.expand(k, 2)), n, 0) is None


def test_the_share_is_that_of_a_law_with_a_rare_value():
    # 1 start in 2 N has a gradient of 100, all others ±1: the share is 10⁴/(2N) of the whole.
    n = 64
    ones = np.where(np.arange(n) % 2, 1.0, -1.0)
    far = np.full(RARE_STARTS, 100.0)
    found = share(moments(ones), moments(far), n)
    assert found == pytest.approx(1e4 / 128 / (1e4 / 128 + 1), rel=0.01)
    assert share(moments(ones), moments(np.ones(RARE_STARTS)), n) < 0.01


def moments(x):
    """Of gradients in one parameter."""
    return Moments(np.ones(len(x)), x**2, PairSums(x * x, x * x.sum(), x * x.sum()))
