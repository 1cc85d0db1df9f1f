"""Starts that no sample holds: seen where the law has tails, not where it is Gaussian."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

import gradlab
from analyses.gain_coverage import networks, turning
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import Starts
from gradlab.measurement.chosen import estimators_at
from gradlab.measurement.moments.squared_norms import mean_squares
from gradlab.measurement.rare_starts import ENOUGH, RARE_STARTS, stratum, tail
from gradlab.runs.check_results import RARE, UNDRAWN, CheckResult, rare_starts
from gradlab.statistics.moments import Moments, PairSums
from gradlab.truth.reference import reference_gradients
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


def check(task, seed, starts=64, **given):
    policy, critic = networks(TASK)
    profile = gradlab.measure(
        task, policy, critic, horizon=1, starts=starts, seed=seed, judges=4, **given
    )
    return profile, rare_starts(profile.sanity)


def test_heavy_tails_are_seen_and_gaussian_ones_are_not():
    heavy = [check(tailed(4.5), seed)[1].passed for seed in range(6)]
    light = [check(TASK, seed)[1].passed for seed in range(6)]
    assert sum(heavy) <= 1 and all(light)


def test_where_they_are_seen_sentences_on_errors_decide_nothing():
    profile = next(
        profile for profile, found in (check(tailed(4.5), s) for s in range(9)) if not found.passed
    )
    told = {each.about: each for each in verdict(profile)}
    assert not told["variance"].decided and told["variance"].text.startswith("Not reliable at N =")
    passed = CheckResult(RARE, "", "", True)
    others = [each for each in profile.sanity if each.check != RARE]
    again = {each.about: each for each in verdict(replace(profile, sanity=(*others, passed)))}
    assert again["variance"].text in told["variance"].text
    assert "tails" not in told
    helped = [each for each in told.values() if "--trim-starts 0.01" in each.text]
    assert [each.about for each in helped if each.about != "sanity"] == ["horizon"]


def test_trimmed_starts_have_no_tail():
    profile, result = check(tailed(4.5), 0, trim_starts=0.01)
    assert result.passed and "no tail" in result.result
    assert "Not reliable" not in " ".join(each.text for each in verdict(profile))


def test_starts_that_were_given_have_no_law_to_ask():
    policy, critic = networks(TASK)
    states = TASK.starts(64, torch.Generator().manual_seed(0))
    states[7] *= 1e3  # gradients are linear in it
    given = gradlab.measure(TASK, policy, critic, horizon=1, starts=states)
    visited = gradlab.measure(TASK, policy, critic, horizon=1, starts=8, truth="matched")
    for profile, why in ((given, "they were given"), (visited, "each is a visited state")):
        assert rare_starts(profile.sanity) is None
        instead = next(each for each in profile.sanity if each.check == UNDRAWN)
        assert instead.passed and why in instead.result
        assert ("carries up to 100%" in instead.meaning) == (profile is given)


def test_the_stratum_is_of_half_a_start_in_n():
    n = 64
    radius2 = ((stratum(TASK.starts, n, 0).states - MEAN) ** 2).sum(dim=1) / 0.5
    assert len(radius2) == RARE_STARTS
    # Beyond a radius that 1 in 2 N Gaussian starts exceeds, on average by 2 in its square.
    edge = stats.chi2.isf(1 / (2 * n), 2)
    assert float(radius2.min()) == pytest.approx(edge, rel=0.05)
    assert float(radius2.mean()) == pytest.approx(edge + 2, rel=0.1)
    assert stratum(lambda k, generator: MEAN.expand(k, 2), n, 0) is None


@pytest.mark.parametrize("power", [1, 2, 3])
def test_share_and_shape_of_powers_of_gaussian_and_of_heavy_starts(power):
    n, rng = 64, np.random.default_rng(0)
    for task, freedom in ((TASK, np.inf), (tailed(4.5), 4.5)):
        there = stratum(task.starts, n, 0)
        starts = task.starts(100_000, torch.Generator().manual_seed(1))
        far = norms(there.states) ** power
        common = norms(starts) ** power
        sign = rng.choice([-1.0, 1.0], size=len(common))
        found = tail(moments(sign * common), (far**2).mean(), there, n)
        edge = np.quantile(norms(starts), 1 - 1 / (2 * n))
        beyond = common[norms(starts) > edge]
        assert found.unknown(ENOUGH) == (freedom == 4.5 and power > 1)
        assert found.unknown(n) == (freedom == 4.5)  # fewer starts bear lighter tails only
        if 2 * power < freedom:  # else the mean square is infinite itself
            assert found.share == pytest.approx((beyond**2).sum() / (common**2).sum(), rel=0.35)
            assert found.k == pytest.approx(2 * power / freedom, abs=0.15 * power + 0.1)


def test_starts_without_a_tail_need_no_gradients(monkeypatch):
    def refuse(*arguments):
        raise AssertionError("gradients were taken")

    monkeypatch.setattr("gradlab.measurement.rare_starts.mean_squares", refuse)
    result = check(TASK, 0)[1]
    assert result.passed and "no tail" in result.result


@pytest.mark.parametrize("n", [64, 2048])
def test_no_gradient_is_flagged_where_the_heaviest_is_not(n):
    rng = np.random.default_rng(1)
    common = moments(rng.normal(size=400))
    for freedom in (np.inf, 60.0, 9.0, 4.5):
        there = stratum(tailed(freedom).starts if freedom < np.inf else TASK.starts, n, 0)
        flags = [tail(common, far, there, n).unknown(n) for far in rng.lognormal(4, 4, 50)]
        assert there.heaviest.unknown(n) or not any(flags)
        assert there.heaviest.unknown(n) == (freedom < 20)


def test_mean_squares_are_those_of_plain_autograd():
    policy, critic = networks(TASK)
    estimators = estimators_at(TASK, critic, None, 3, every=True)
    ones, labels = torch.ones(8, dtype=torch.float64), torch.arange(8)
    starts = Starts(TASK.starts(8, torch.Generator().manual_seed(2)), ones, labels)
    setting = Setting(TASK.simulator, policy.double(), starts, TASK.discount, 3, seed=5)
    at = Starts(starts.states + 0.3, 2 * ones, labels)
    squares = mean_squares(estimators, setting, at)
    for (name, h), square in squares.items():
        estimator = estimators[name]
        shorter = replace(estimator, tail=replace(estimator.tail, horizon=h))
        there = starts if estimator.way.every else at
        G = reference_gradients(shorter, policy, there, seed=5)
        assert square == pytest.approx(float((G**2).sum(dim=1).mean()), rel=1e-10), (name, h)
    assert len(squares) == 1 + 6 * 4


def norms(states):
    """Mahalanobis distances: both laws have the covariance ½."""
    return ((states - MEAN).norm(dim=1) / 0.5**0.5).numpy()


def moments(x):
    """Of gradients in one parameter."""
    return Moments(np.ones(len(x)), x**2, PairSums(x * x, x * x.sum(), x * x.sum()))
