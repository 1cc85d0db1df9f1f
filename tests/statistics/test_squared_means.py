"""Ends of a squared norm from the noncentral χ² of its sample's mean."""

from __future__ import annotations

import numpy as np
import pytest
import scipy

from analyses.coverage.synthetic import moments, pairs, planted
from gradlab.statistics.intervals import interval, noncentral_ends, noncentrality
from gradlab.statistics.moments import estimates, squared_norm


def test_the_noncentrality_is_that_of_scipys_distribution():
    for x, dimensions, quantile in [(30.0, 3.0, 2.0), (30.0, 12.5, -2.0), (4e4, 40.0, 2.0)]:
        there = noncentrality(x, dimensions, quantile)
        level = scipy.stats.ncx2.cdf(x, dimensions, there)
        assert level == pytest.approx(scipy.stats.norm.cdf(quantile), abs=2e-4)
    assert noncentrality(3.0, 3.0, 2.0) == 0.0  # a mean of 0 explains it


@pytest.mark.parametrize(("ratio", "floor", "ceiling"), [(0, 0.955, 0.995), (1, 0.925, 0.98)])
def test_a_bias_that_is_small_or_none_is_covered_as_often_as_promised(ratio, floor, ceiling):
    rng, hits, above_zero = np.random.default_rng(ratio), [], []
    for _ in range(500):
        data = planted(rng, 64, ratio=ratio)
        found = interval("bias2", estimates(moments(data.G, data.T), batch=64)["bias2"])
        hits.append(found.low <= data.known["bias2"] <= found.high)
        above_zero.append(found.high > 0)
    assert floor < np.mean(hits) < ceiling
    assert all(above_zero)  # no sample shows that there is none


def test_the_variance_along_the_mean_is_that_of_the_samples():
    rng = np.random.default_rng(0)
    Y = rng.normal(size=(50, 4)) * (3.0, 1.0, 0.5, 0.1) + 1
    mean = squared_norm(pairs(Y, Y), np.ones(50)).mean
    centre = Y.mean(axis=0)
    assert mean.square == pytest.approx(centre @ centre)
    along = centre @ np.cov(Y.T) @ centre / 50 / (centre @ centre)
    assert mean.variance_along == pytest.approx(along)


def test_without_the_mean_or_its_error_there_are_no_ends():
    exact = squared_norm(pairs(np.ones((8, 2)), np.ones((8, 2))), np.ones(8))
    assert noncentral_ends(exact.value, exact.mean, 0.0, (-2.0, 2.0)) is None
    assert noncentral_ends(1.0, None, 0.1, (-2.0, 2.0)) is None
