"""Intervals over groups cover, and estimates are what they say."""

import numpy as np
import pytest

from gradlab.statistics import over_groups

TRIALS = 400


def test_group_sums_add_what_shares_a_label():
    sums = over_groups.group_sums(np.array([[1.0], [2.0], [4.0]]), np.array([7, 3, 7]))
    np.testing.assert_array_equal(sums, [[2.0], [5.0]])


@pytest.mark.parametrize("groups", [12, 100])
def test_the_interval_of_a_root_ratio_covers(groups):
    rng, inside = np.random.default_rng(0), 0
    for _ in range(TRIALS):
        common = rng.gamma(2.0, size=(groups, 1))
        X, Z = 0.09 * common * rng.gamma(4.0, size=(groups, 1)), common * 4.0
        found = over_groups.root_ratio(X, Z, np.array([groups]))
        inside += bool(found.low[0] <= 0.3 <= found.high[0])
    assert 0.91 < inside / TRIALS < 0.98


def test_an_error_of_exactly_zero_is_known_exactly():
    found = over_groups.root_ratio(np.zeros((5, 1)), np.ones((5, 1)), np.array([5]))
    assert (found.value[0], found.low[0], found.high[0]) == (0.0, 0.0, 0.0)


def test_a_ratio_to_nothing_is_unknown():
    found = over_groups.root_ratio(np.ones((5, 1)), np.zeros((5, 1)), np.array([5]))
    assert not np.isfinite(found.value[0])


@pytest.mark.parametrize("groups", [5, 60])
def test_the_interval_of_a_mean_covers(groups):
    draws = np.random.default_rng(1).normal(2.0, 3.0, size=(groups, TRIALS))
    found = over_groups.mean(draws)
    assert 0.92 < ((found.low <= 2.0) & (found.high >= 2.0)).mean() < 0.98


def test_a_mean_leaves_out_what_is_unknown():
    found = over_groups.mean(np.array([[1.0], [np.nan], [3.0]]))
    assert found.value[0] == 2.0
    assert found.n[0] == 2


@pytest.mark.parametrize("groups", [9, 10, 200])
def test_the_interval_of_a_median_covers_without_assumptions(groups):
    draws = np.random.default_rng(2).standard_cauchy((groups, 2000))
    found = over_groups.median(draws)
    np.testing.assert_allclose(found.value, np.median(draws, axis=0))
    assert 0.945 < ((found.low <= 0) & (found.high >= 0)).mean() < 0.99


def test_a_median_of_few_groups_has_no_bounds():
    found = over_groups.median(np.array([[1.0], [2.0], [np.inf]]))
    assert (found.value[0], found.low[0], found.high[0]) == (2.0, -np.inf, np.inf)
