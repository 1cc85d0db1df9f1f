"""Paired comparisons, and whether the samples they ask for do decide.

Medians over seeds: the level of their interval, and what lost seeds do.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gradlab.errors import InputError
from gradlab.statistics.comparison import difference, log_ratio, more_samples
from gradlab.statistics.intervals import interval, jackknife_se
from gradlab.statistics.moments import Estimate, estimates, sample_mean
from gradlab.statistics.over_groups import (
    aggregate,
    innermost,
    level_of,
    mean_interval,
    ratio_of_means,
)
from tests.planted_moments import moments, planted

N = 64


def two(rng, n, second=1.0):
    """MSE and squared bias of two estimators on common noise; biases² 1 and `second` tr Σ/64."""
    data = planted(rng, n, ratio=n / N)
    aside = np.zeros(data.G.shape[1])
    aside[7] = np.sqrt(second * data.known["variance"] / N)
    first, other = (estimates(moments(G, data.T), N) for G in (data.G, data.G + aside))
    return first, other, data


def test_the_difference_of_squared_biases_is_covered_and_sharper_than_unpaired():
    rng, hits, sharper = np.random.default_rng(0), [], []
    for _ in range(200):
        first, other, data = two(rng, 256)
        found = difference(other["bias2"], first["bias2"])
        bias = data.mean - data.truth
        aside = np.zeros(len(bias))
        aside[7] = np.sqrt(data.known["variance"] / N)
        known = ((bias + aside) ** 2).sum() - (bias**2).sum()
        hits.append(found.low <= known <= found.high)
        apart = np.hypot(*(jackknife_se(each["bias2"].left_out) for each in (first, other)))
        sharper.append(found.se / apart)
    assert np.mean(hits) >= 0.9
    assert np.mean(sharper) < 1.0


def test_an_estimate_does_not_differ_from_itself():
    first, _, _ = two(np.random.default_rng(1), N)
    found, ratio = difference(first["mse"], first["mse"]), log_ratio(first["mse"], first["mse"])
    assert (found.low, found.high) == (0.0, 0.0)
    assert (ratio.low, ratio.high) == (0.0, 0.0)


def test_a_ratio_needs_both_above_zero():
    first, _, _ = two(np.random.default_rng(1), N)
    assert log_ratio(first["mse"], Estimate(-1.0, -np.ones(N))) is None


def test_other_groups_are_refused():
    with pytest.raises(InputError, match="same starts"):
        difference(Estimate(1.0, np.ones(4)), Estimate(1.0, np.ones(5)))


def test_the_samples_asked_for_show_a_bias():
    rng, decided = np.random.default_rng(2), []
    while len(decided) < 40:
        data = planted(rng, N, ratio=1.0)
        found = estimates(moments(data.G, data.T), N)["bias2"]
        ends = interval("bias2", found)
        more = more_samples(max(found.value, 0.0), ends.se, N)
        if ends.low > 0 or more is None or more > 3000:
            continue
        n = N + more
        data = planted(rng, n, ratio=n / N)
        again = estimates(moments(data.G, data.T), N)["bias2"]
        decided.append(interval("bias2", again).low > 0)
    assert np.mean(decided) >= 0.7


def test_the_samples_asked_for_tell_two_errors_apart():
    rng, decided = np.random.default_rng(3), []
    while len(decided) < 40:
        first, other, _ = two(rng, N, second=0.5)
        ratio = log_ratio(other["mse"], first["mse"])
        if ratio is None or not ratio.low < 0 < ratio.high:
            continue
        more = more_samples((ratio.low + ratio.high) / 2, ratio.se, N)
        if more is None or more > 3000:
            continue
        first, other, _ = two(rng, N + more, second=0.5)
        again = log_ratio(other["mse"], first["mse"])
        decided.append(not again.low < 0 < again.high)
    assert np.mean(decided) >= 0.7


def test_a_known_mean_is_decided_in_the_stated_share():
    """Mean 1 of unit noise, se known: N + M samples give power 80%."""
    gap, se, n = 0.2, 1 / 8, 64
    total = n + more_samples(gap, se, n)
    z = np.random.default_rng(4).normal(size=100_000)
    assert np.mean(abs(gap * np.sqrt(total) + z) > 1.96) == pytest.approx(0.8, abs=0.01)
    assert more_samples(0.0, 1.0, 64) is None
    assert more_samples(1e-9, 1.0, 64) is None
    assert more_samples(10.0, 1.0, 64) == 0


# Intervals of means over few groups and of ratios of two of them.


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
