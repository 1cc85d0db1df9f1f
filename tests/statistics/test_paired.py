"""Intervals of means over few groups and of ratios of two of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gradlab.statistics.moments import Estimate, sample_mean
from gradlab.statistics.paired import level_of, mean_interval, ratio_of_means


def mean_of(values: np.ndarray) -> Estimate:
    return sample_mean(values, np.ones(len(values)))


@pytest.mark.parametrize("groups", [16, 64])
def test_means_and_ratios_of_skewed_groups_are_covered(groups):
    """Quadratic forms of Gaussians, as gains of linear-quadratic systems are."""
    generator, hits = np.random.default_rng(groups), []
    for _ in range(2000):
        x, y = generator.standard_normal((2, groups))
        above, below = mean_of(0.5 * y**2 + 0.8 * x * y - 0.3 * x**2), mean_of(x**2 + 0.2 * y**2)
        mean, ratio = mean_interval(above), ratio_of_means(above, below)
        covered = ratio is None or ratio.low <= 0.2 / 1.2 <= ratio.high
        hits.append((mean.low <= 0.2 <= mean.high, covered))
    assert (np.mean(hits, axis=0) >= (0.92, 0.93)).all(), np.mean(hits, axis=0)


def test_a_ratio_ends_where_a_t_test_of_the_difference_just_rejects():
    generator = np.random.default_rng(0)
    below = 2 + generator.standard_normal(40)
    above = 0.5 * below + generator.standard_normal(40)
    found = ratio_of_means(mean_of(above), mean_of(below))
    for end in (found.low, found.high):
        assert stats.ttest_1samp(above - end * below, 0.0).pvalue == pytest.approx(0.05, rel=1e-6)
    assert ratio_of_means(mean_of(below), mean_of(below)).low == pytest.approx(1.0)


def test_a_ratio_to_what_may_be_zero_has_no_interval():
    noise = np.random.default_rng(1).standard_normal(30)
    assert ratio_of_means(mean_of(noise + 3), mean_of(noise)) is None


def test_of_several_intervals_each_is_wider():
    values = mean_of(np.random.default_rng(2).standard_normal(30))
    alone, among = mean_interval(values), mean_interval(values, 10)
    assert among.low < alone.low < values.value < alone.high < among.high
    assert level_of(1) == pytest.approx(0.975) and level_of(10) == pytest.approx(0.9975)
    half = stats.t.ppf(0.9975, 29) * alone.se
    assert among.high - values.value >= half * (1 - 1e-12)
