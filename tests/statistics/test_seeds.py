"""Medians over seeds: the level of their interval, and what lost seeds do."""

import numpy as np
import pytest
from scipy import stats

from gradlab.statistics.over_groups import aggregate, innermost


@pytest.mark.parametrize("seeds", [2, 3, 5, 6, 9, 20])
def test_the_interval_holds_the_median_as_often_as_it_says(seeds):
    rng, repetitions = np.random.default_rng(seeds), 4000
    for draw in (rng.normal, rng.standard_cauchy, rng.exponential):
        found = aggregate(draw(size=(repetitions, seeds)))
        median = np.log(2) if draw == rng.exponential else 0.0
        share = ((found.low <= median) & (median <= found.high)).mean()
        assert share == pytest.approx(found.level, abs=4 * 0.5 / repetitions**0.5)


def test_the_level_is_that_of_the_binomial():
    assert innermost(5) == (1, pytest.approx(1 - 2 / 32))
    assert innermost(9) == (2, pytest.approx(1 - 2 * 10 / 512))
    assert all(innermost(k)[1] >= 0.95 for k in range(6, 60))
    rank, level = innermost(20)
    assert level == pytest.approx(1 - 2 * stats.binom.cdf(rank - 1, 20, 0.5))


def test_lost_seeds_count_as_the_worst():
    four_of_five = np.array([5.0, 3.0, np.nan, 4.0, 1.0])
    returns = aggregate(four_of_five)
    assert returns.value == 3.0 and returns.lost == 1
    assert np.isnan(returns.low) and returns.high == 5.0
    losses = aggregate(four_of_five, worst="high")
    assert losses.value == 4.0 and losses.low == 1.0 and np.isnan(losses.high)
    most = aggregate(np.array([np.nan, np.nan, np.nan, 1.0, 2.0]))
    assert np.isnan(most.value) and most.lost == 3


def test_where_one_seed_in_five_is_lost_the_interval_still_holds():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4000, 5))
    values[rng.random(values.shape) < 0.2] = np.nan
    found = aggregate(values)
    median = stats.norm.ppf((0.5 - 0.2) / 0.8)  # of a law with a fifth below everything
    low = np.where(np.isnan(found.low), -np.inf, found.low)
    high = np.where(np.isnan(found.high), -np.inf, found.high)
    share = ((low <= median) & (median <= high)).mean()
    assert share == pytest.approx(15 / 16, abs=0.015)


def test_one_seed_has_no_interval():
    found = aggregate(np.ones((4, 1)))
    assert (found.value == 1).all() and np.isnan(found.low).all() and found.level == 0
