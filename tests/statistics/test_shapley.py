"""Shapley's axioms, the U-statistics under them, and the coverage of the intervals."""

import itertools
import math

import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.statistics.moments import Estimate, PairSums
from gradlab.statistics.shapley import (
    Game,
    estimates,
    fraction_interval,
    share_interval,
    shares,
    squared_norms,
    without,
)

NAMES = ("a", "b", "c", "d")


def game(value, players=NAMES):
    """A game without noise, as if of 5 groups."""
    value = np.asarray(value, dtype=np.float64)
    return Game(players, value, np.repeat(value[:, None], 5, axis=1))


def masks(k):
    return np.array([[S >> i & 1 for i in range(k)] for S in range(2**k)])


def values(estimates):
    return np.array([each.value for each in estimates])


def sums_of(Y):
    """Pair sums of groups of one, Y [K, G, d]."""
    whole = np.einsum("kgd,kd->kg", Y, Y.sum(axis=1))
    return PairSums((Y**2).sum(axis=2), whole, whole)


def test_an_additive_game_pays_everyone_what_he_takes_off():
    worth = np.array([3.0, -1.0, 0.0, 0.5])
    found = shares(game(7.0 - masks(4) @ worth))
    for each in (found.shapley, found.first, found.last):
        np.testing.assert_allclose(values(each), worth, rtol=0, atol=1e-14)
    assert found.total.value == 7.0


def test_a_symmetric_game_pays_everyone_alike_and_a_bystander_nothing():
    crowd = masks(4)[:, :3].sum(axis=1)  # d changes nothing
    found = shares(game((3.0 - crowd) ** 2))
    np.testing.assert_allclose(values(found.shapley), [3.0, 3.0, 3.0, 0.0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(values(found.first), [5.0, 5.0, 5.0, 0.0], rtol=0, atol=1e-14)
    np.testing.assert_allclose(values(found.last), [1.0, 1.0, 1.0, 0.0], rtol=0, atol=1e-14)


def test_shares_are_means_over_all_orders_of_arrival():
    value = np.random.default_rng(0).normal(size=16)
    expected = np.zeros(4)
    for order in itertools.permutations(range(4)):
        S = 0
        for i in order:
            expected[i] += (value[S] - value[S | 1 << i]) / math.factorial(4)
            S |= 1 << i
    np.testing.assert_allclose(values(shares(game(value)).shapley), expected, atol=1e-14)


def test_shares_sum_to_the_total_with_and_without_each_group():
    Y = np.random.default_rng(1).normal(size=(64, 30, 8)) + 0.3
    game = squared_norms("abcdef", sums_of(Y), np.ones(30))
    found = shares(game)
    parts = (*found.shapley, Estimate(game.value[-1], game.left_out[-1]))
    assert math.isclose(sum(values(parts)), found.total.value, rel_tol=1e-12)
    left_out = sum(each.left_out for each in parts)
    np.testing.assert_allclose(left_out, found.total.left_out, rtol=1e-12)


def test_left_out_shares_are_those_of_the_other_groups():
    Y = np.random.default_rng(2).normal(size=(8, 9, 5))
    found = shares(squared_norms("abc", sums_of(Y), np.ones(9)))
    fewer = shares(squared_norms("abc", sums_of(Y[:, 1:]), np.ones(8)))
    for one, other in zip(found.shapley, fewer.shapley, strict=True):
        assert math.isclose(one.left_out[0], other.value, rel_tol=1e-10)


def test_a_split_of_the_difference_splits_the_share():
    rng, k, player = np.random.default_rng(3), 3, 1
    Y = rng.normal(size=(2**k, 12, 6))
    total = None
    for S, weight in without(k, player):
        joined = Y[S] + Y[S | 1 << player]
        parts = rng.dirichlet(np.ones(4), size=(12, 6)).transpose(2, 0, 1)
        parts = parts * (Y[S] - Y[S | 1 << player])
        own = np.einsum("egd,gd->eg", parts, joined)
        left = parts @ joined.sum(axis=0)
        right = np.einsum("gd,ed->eg", joined, parts.sum(axis=1))
        sums = [weight * each for each in (own, left, right)]
        total = sums if total is None else [a + b for a, b in zip(total, sums, strict=True)]
    found = estimates(PairSums(*total), np.ones(12))
    share = shares(squared_norms("abc", sums_of(Y), np.ones(12))).shapley[player]
    assert math.isclose(sum(values(found)), share.value, rel_tol=1e-12)
    np.testing.assert_allclose(sum(each.left_out for each in found), share.left_out, rtol=1e-10)


def planted(rng, n, ratio, heavy):
    """Errors [8, n, d] of three causes: two that partly cancel and one that does nothing."""
    d, means, on = 20, np.zeros((3, 20)), 1 - masks(3)
    means[0, :4], means[1, 2:6] = 1.0, -0.6
    noise = rng.standard_t(4.5, size=(3, n, d)) if heavy else rng.normal(size=(3, n, d))
    spread = math.sqrt(4.0 / ratio * n / d)  # ratio = |mean of the first|² · n / tr Cov
    each = means[:, None] + spread * noise * np.array([1.0, 0.5, 0.0])[:, None, None]
    truth = shares(game(((on @ means) ** 2).sum(axis=1), ("a", "b", "c")))
    return np.einsum("kc,cnd->knd", on, each), values(truth.shapley), truth.total.value


@pytest.mark.parametrize(("ratio", "heavy"), [(1.0, False), (30.0, False), (30.0, True)])
def test_intervals_cover_the_shares_and_fractions(ratio, heavy):
    rng, hits, repetitions = np.random.default_rng(7), [], 300
    for _ in range(repetitions):
        Y, exact, total = planted(rng, 64, ratio, heavy)
        found = shares(squared_norms("abc", sums_of(Y), np.ones(64)))
        intervals = [share_interval(each) for each in found.shapley]
        intervals += [fraction_interval(each, found.total) for each in found.shapley]
        targets = (*exact, *(exact / total))
        hits.append([i.low <= x <= i.high for i, x in zip(intervals, targets, strict=True)])
        assert max(abs(intervals[2].low), abs(intervals[2].high)) < 1e-12  # does nothing
    coverage = np.mean(hits, axis=0)[[0, 1, 3, 4]]
    assert coverage.min() > 0.89  # 95% nominal less 4 standard errors of 300 repetitions


def test_a_fraction_of_nothing_is_unknown_and_an_overflow_is_said():
    Y = np.random.default_rng(4).normal(size=(8, 30, 8))
    found = shares(squared_norms("abc", sums_of(Y), np.ones(30)))
    interval = fraction_interval(found.shapley[0], found.total)
    assert (interval.low, interval.high) == (-np.inf, np.inf) and "noise" in interval.method
    lost = shares(game([np.inf, *np.ones(7)], ("a", "b", "c")))
    assert "overflows" in share_interval(lost.shapley[0]).method


def test_a_game_without_every_set_is_refused():
    with pytest.raises(InputError, match="expected 16"):
        game(np.ones(8))
    with pytest.raises(InputError, match="expected 1 to 6"):
        game(np.ones(128), tuple("abcdefg"))
