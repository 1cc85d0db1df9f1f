"""Estimates against their definitions and against known laws."""

from dataclasses import replace

import numpy as np
import pytest

from gradlab.statistics.moments import PairSums, estimates, pair_mean
from tests.planted_moments import moments, pairs, planted


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
