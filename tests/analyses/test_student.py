"""Student's interval against SciPy's own."""

import numpy as np
from scipy import stats

from analyses.harness.student import geometric_mean, half_width

VALUES = np.random.default_rng(0).normal(3.0, 1.0, size=(2, 6))


def test_a_half_width_is_that_of_scipys_test_of_one_mean():
    for level in (0.9, 0.95):
        interval = stats.ttest_1samp(VALUES, 0.0, axis=1).confidence_interval(level)
        np.testing.assert_allclose(half_width(VALUES, level), (interval.high - interval.low) / 2)


def test_one_value_has_no_interval():
    assert np.isnan(half_width([2.0]))


def test_a_geometric_mean_has_the_ends_of_its_logarithms():
    value, low, high = geometric_mean(np.exp(VALUES[0]))
    interval = stats.ttest_1samp(VALUES[0], 0.0).confidence_interval()
    assert value == np.exp(VALUES[0].mean())
    np.testing.assert_allclose((low, high), np.exp([interval.low, interval.high]))
