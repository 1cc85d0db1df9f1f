"""Estimates against their definitions and against known laws.

Signal and noise from successive gradients, against draws whose signal is known.


The generalised Pareto shape of tails that are known.

The tail index tells heavy tails from light ones, whatever the dimension.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from gradlab.statistics.moments import PairSums, estimates, pair_mean
from gradlab.statistics.successive import Signal, pooled, signal
from gradlab.statistics.tails import HEAVY, heavier, tail_index
from tests.planted_moments import moments, pairs, planted, tails_of


def test_variance_is_the_trace_of_the_sample_covariance():
    data = planted(np.random.default_rng(0), 40)
    found = estimates(moments(data.G, data.T), batch=40)
    assert found["variance"].value == pytest.approx(np.trace(np.cov(data.G.T)), rel=1e-12)


def test_squared_bias_is_the_plug_in_less_its_noise():
    data = planted(np.random.default_rng(0), 40)
    Y = data.G - data.T
    plug_in, noise = (Y.mean(0) ** 2).sum(), np.trace(np.cov(Y.T)) / len(Y)
    found = estimates(moments(data.G, data.T), batch=40)
    assert found["bias2"].value == pytest.approx(plug_in - noise, rel=1e-10)
    total = found["bias2"].value + found["variance"].value / 40
    assert found["mse"].value == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("group", [None, [0, 0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 7]])
def test_left_out_values_are_recomputations_without_the_group(group):
    data = planted(np.random.default_rng(1), 12, size=3.0)
    group = np.arange(12) if group is None else np.array(group)
    found = estimates(moments(data.G, data.T, group), batch=12)
    for k, label in enumerate(np.unique(group)):
        kept = group != label
        again = estimates(moments(data.G[kept], data.T[kept], group[kept]), batch=12)
        for name, estimate in found.items():
            if name == "tail_index":
                continue  # has a test of its own: with a group left out, Y may be the heavier
            rough = name in ("cosine_batch", "sign_agreement")  # to first order in a group
            assert estimate.left_out[k] == pytest.approx(
                again[name].value, rel=0.05 if rough else 1e-8
            ), name


def test_estimates_are_unbiased_with_and_without_groups():
    rng = np.random.default_rng(2)
    for group in (None, np.repeat(np.arange(8), [1, 2, 3, 4, 1, 2, 3, 4])):
        n = 20
        found = []
        for _ in range(300):
            data = planted(rng, n, ratio=2.0)
            all_of_it = estimates(moments(data.G, data.T, group), batch=n)
            found.append([all_of_it[name].value for name in ("bias2", "variance")])
        mean, error = np.mean(found, axis=0), np.std(found, axis=0) / np.sqrt(300)
        known = np.array([data.known["bias2"], data.known["variance"]])
        assert (abs(mean - known) < 4 * error).all()


def test_groups_that_repeat_a_sample_do_not_pretend_to_more_samples():
    data = planted(np.random.default_rng(3), 30)
    twice = np.repeat(np.arange(30), 2)
    single = pair_mean(moments(data.G).gradient, np.ones(30))
    double = moments(data.G[twice], group=twice)
    assert pair_mean(double.gradient, double.size).value == pytest.approx(single.value)


def test_without_a_truth_there_is_no_bias():
    data = planted(np.random.default_rng(4), 10)
    assert set(estimates(moments(data.G), batch=10)) == {
        "mean_norm",
        "variance",
        "snr",
        "tail_index",
    }


def test_no_error_is_exactly_no_bias():
    data = planted(np.random.default_rng(5), 16)
    found = estimates(moments(data.T, data.T), batch=16)
    assert found["bias2"].value == 0.0
    assert found["cosine"].value == pytest.approx(1.0, abs=1e-12)


def test_variance_across_critics_is_that_of_the_planted_means():
    rng, n, d, critics, found = np.random.default_rng(8), 30, 12, 4, []
    planted_means = rng.normal(size=(critics, d)) / n**0.5
    known = np.trace(np.cov(planted_means.T))
    plug_in = []
    for _ in range(500):
        common = rng.normal(size=(n, d))
        G = planted_means[:, None] + common + rng.normal(size=(critics, n, d))
        D = (G - G.mean(0)) / (critics - 1) ** 0.5
        whole = moments(G[0])
        parts = [pairs(each, each) for each in D]
        sums = PairSums(*(sum(getattr(p, k) for p in parts) for k in ("own", "left", "right")))
        found.append(estimates(replace(whole, critics=sums), n)["variance_critics"].value)
        plug_in.append(np.trace(np.cov(G.mean(1).T)))
    assert np.mean(found) == pytest.approx(known, abs=4 * np.std(found) / 500**0.5)
    assert np.mean(plug_in) > 1.5 * known  # with the sampling noise it is much more


D, PAIRS, TRIALS = 40, 32, 1000


def draws(size: float, seed: int) -> NDArray[np.float64]:
    """Gradients [TRIALS, PAIRS + 1, D] with |μ|² = size² and covariance of trace D."""
    generator = np.random.default_rng(seed)
    mu = np.zeros(D)
    mu[0] = size
    return generator.standard_normal((TRIALS, PAIRS + 1, D)) + mu


def found(g: NDArray[np.float64]) -> Signal:
    return signal((g[:-1] * g[1:]).sum(1), (g**2).sum(1))


@pytest.mark.parametrize("size", [0.0, 1.0, 4.0])
def test_products_of_successive_gradients_estimate_the_squared_mean(size):
    each = [found(g) for g in draws(size, 0)]
    centre = np.array([x.signal for x in each])
    energy = np.array([x.energy for x in each])
    assert abs(centre.mean() - size**2) < 4 * centre.std() / TRIALS**0.5
    assert abs(energy.mean() - (size**2 + D)) < 4 * energy.std() / TRIALS**0.5


@pytest.mark.parametrize("size", [0.0, 1.0, 4.0])
def test_the_share_of_the_signal_is_covered_by_its_error(size):
    true = size**2 / (size**2 + D)
    each = [found(g) for g in draws(size, 1)]
    inside = np.mean([abs(x.share - true) < 1.96 * x.se for x in each])
    assert 0.9 <= inside <= 0.98


def test_without_a_signal_z_is_standard_normal():
    z = np.array([found(g).z for g in draws(0.0, 2)])
    assert abs(z.mean()) < 0.12 and 0.9 < z.std() < 1.1
    assert 0.02 < (abs(z) > 1.96).mean() < 0.08


def test_snr_and_noise_scale_are_those_of_one_batch():
    each = pooled([found(g) for g in draws(4.0, 3)])
    assert each.snr == pytest.approx(16 / D, rel=0.02)
    assert each.noise_scale == pytest.approx(D / 16, rel=0.02)
    assert each.cosine == pytest.approx((16 / (16 + D)) ** 0.5, rel=0.02)


def test_pooled_bursts_have_the_error_of_all_of_them():
    each = [found(g) for g in draws(1.0, 4)]
    spread = np.std([x.share for x in each])
    together = pooled(each)
    assert together.pairs == PAIRS * TRIALS
    assert together.se == pytest.approx(spread / TRIALS**0.5, rel=0.15)


def test_a_gradient_of_zero_has_no_signal_and_no_error():
    one = signal(np.zeros(8), np.zeros(9))
    assert one.share == 0 and np.isnan(one.se) and one.z == 0


def flagged(tails, n, repetitions=60):
    rng = np.random.default_rng(0)
    found = [tails_of(planted(rng, n, tails=tails).G, np.ones(n)) for _ in range(repetitions)]
    return np.mean([each.value > HEAVY for each in found])


@pytest.mark.parametrize("n", [64, 256, 1024])
def test_heavy_tails_are_flagged_and_gaussian_ones_are_not(n):
    assert flagged("gaussian", n) <= 0.02
    assert flagged("t4.5", n) >= 0.75
    assert flagged("lognormal", n) >= 0.85


def test_a_gaussian_of_one_dimension_is_not_heavy():
    rng = np.random.default_rng(1)
    found = [tail_index(rng.normal(size=(256, 1)), np.ones(256)).value for _ in range(200)]
    assert np.mean(np.array(found) > HEAVY) < 0.08
    assert np.mean(found) == pytest.approx(1.0, abs=0.03)


def test_it_is_the_known_kurtosis():
    rng = np.random.default_rng(2)
    exponential = rng.exponential(size=(400_000, 1))  # kurtosis 9
    assert tail_index(exponential, np.ones(len(exponential))).value == pytest.approx(3.0, rel=0.05)


def test_left_out_values_are_recomputations_and_groups_without_samples_change_nothing():
    x = np.random.default_rng(3).normal(size=(12, 4))
    size = np.r_[np.ones(10), 0, 0]
    x[10:] = 0
    found = tail_index(x, size)
    for k in range(10):
        kept = np.arange(12) != k
        assert found.left_out[k] == pytest.approx(tail_index(x[kept], size[kept]).value, rel=1e-9)
    assert (found.left_out[10:] == found.value).all()


def test_what_does_not_vary_has_no_index_and_yields_to_what_does():
    nothing = tail_index(np.ones((5, 2)), np.ones(5))
    some = tail_index(np.random.default_rng(4).normal(size=(5, 2)), np.ones(5))
    assert np.isnan(nothing.value)
    assert heavier(nothing, some) is some and heavier(some, nothing) is some
