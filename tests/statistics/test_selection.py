"""The set of candidates that may be best: its coverage, its power, and what it asks for.

What to replace first, on games whose mean errors are planted vectors.

b_S = Σ of the errors of players outside S, so that every v(S) = |b_S|² is known.

Shapley's axioms, the U-statistics under them, and the coverage of the intervals.
"""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from gradlab.errors import InputError
from gradlab.statistics.intervals import LEVEL, interval, pseudo_values
from gradlab.statistics.moments import Estimate, PairSums
from gradlab.statistics.selection import (
    best_replacement,
    chosen_level,
    largest,
    separations,
    signs,
    smallest,
)
from gradlab.statistics.shapley import (
    Game,
    estimates,
    fraction_interval,
    share_interval,
    shares,
    squared_norms,
    without,
)

SCALE = np.exp(-np.arange(20) / 4) ** 0.5
TRACE = (SCALE**2).sum()
TIED, JAGGED = np.ones(8), np.array([3.0, 1.0, 9.0, 1.2, 30.0, 1.1, 2.0, 60.0])
FLAT, FAR = 1 + 0.05 * np.arange(12), np.array([30.0, 1.0, 60.0, 90.0])


def drawn(rng, bias2, groups, correlation=0.0, heavy=False):
    """MSE at N′ = `groups` of K estimators with squared biases `bias2` · tr Σ / `groups`."""
    K, d = len(bias2), len(SCALE)
    shared, own = rng.normal(size=(1, groups, d)), rng.normal(size=(K, groups, d))
    noise = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    if heavy:
        noise /= np.sqrt(rng.chisquare(4.5, size=(1, groups, 1)) / 2.5)
    bias = np.sqrt(np.asarray(bias2) * TRACE / groups)[:, None] * np.eye(d)[:K]
    return errors(bias[:, None] + noise * SCALE, groups)


def errors(Y, batch):
    """U-statistic of the squared mean plus tr Cov / N′ of vectors [K, G, d], groups of one."""
    G = Y.shape[1]
    S = Y.sum(axis=1)
    own, left = (Y**2).sum(axis=2), np.einsum("kgd,kd->kg", Y, S)
    free = left.sum(axis=1) - own.sum(axis=1)
    pairs, second = free / (G * (G - 1)), own.mean(axis=1)
    pairs_out = (free[:, None] - 2 * left + 2 * own) / ((G - 1) * (G - 2))
    second_out = (own.sum(axis=1, keepdims=True) - own) / (G - 1)
    value = pairs + (second - pairs) / batch
    left_out = pairs_out + (second_out - pairs_out) / batch
    return [Estimate(float(v), out) for v, out in zip(value, left_out, strict=True)]


@pytest.mark.parametrize(
    "bias2, groups, correlation, heavy, repetitions",
    [
        (0 * TIED, 64, 0.0, False, 200),
        (TIED, 64, 0.0, False, 200),
        (TIED, 64, 0.95, False, 200),
        (30 * TIED, 64, 0.95, True, 200),
        (JAGGED, 64, 0.95, False, 200),
        (FLAT, 256, 0.95, True, 100),
        (TIED, 256, 0.95, False, 100),
        (30 * TIED, 1024, 0.0, False, 30),
    ],
)
def test_the_best_candidate_is_in_the_set_in_95_of_100(
    bias2, groups, correlation, heavy, repetitions
):
    rng, best = np.random.default_rng(0), int(bias2.argmin())
    hits = sum(
        smallest(drawn(rng, bias2, groups, correlation, heavy)).kept[best]
        for _ in range(repetitions)
    )
    assert hits >= stats.binom.ppf(0.005, repetitions, 0.95)


def test_where_candidates_tie_the_smallest_estimate_alone_is_mostly_wrong():
    rng = np.random.default_rng(1)
    found = [smallest(drawn(rng, TIED, 64)) for _ in range(60)]
    assert np.mean([each.best == 0 for each in found]) < 0.3
    assert np.mean([each.kept.sum() for each in found]) > 7


def test_candidates_that_are_clearly_worse_are_ruled_out():
    rng = np.random.default_rng(2)
    for _ in range(20):
        assert smallest(drawn(rng, FAR, 64)).kept.tolist() == [False, True, False, False]


def test_what_candidates_have_in_common_does_not_blur_their_difference():
    """A gap of half a standard error of either candidate, but of many of their difference."""
    common, aside = np.random.default_rng(3).normal(size=(2, 200))
    first = means(common)
    second = means(common + 0.5 / 200**0.5 + 0.01 * aside)
    assert smallest([first, second]).kept.tolist() == [True, False]


def means(values):
    """The mean of [G] as an estimate."""
    G = len(values)
    return Estimate(float(values.mean()), (values.sum() - values) / (G - 1))


def test_the_statistic_is_that_of_the_definition():
    candidates = drawn(np.random.default_rng(4), JAGGED, 64, 0.5)
    found = smallest(candidates)
    psi = [pseudo_values(each) for each in candidates]
    for n, each in enumerate(candidates):
        ratios = [
            (each.value - other.value) / (np.std(psi[n] - psi[m], ddof=1) / 8) if m != n else 0.0
            for m, other in enumerate(candidates)
        ]
        assert found.statistic[n] == pytest.approx(max(ratios), rel=1e-9)
        assert found.contender[n] == np.argmax(ratios)


def test_two_independent_candidates_are_compared_by_a_one_sided_test():
    a, b = np.random.default_rng(5).normal(size=(2, 2000))
    assert smallest([means(a), means(b)]).critical == pytest.approx(1.645, abs=0.15)


def test_the_same_estimate_twice_stays_twice_or_goes_twice():
    candidates = drawn(np.random.default_rng(6), FAR, 64)
    twin = Estimate(candidates[1].value * (1 + 1e-15), candidates[1].left_out)
    found = smallest([*candidates, twin, candidates[0]])
    assert found.kept.tolist() == [False, True, False, False, True, False]


def test_the_largest_cosine_is_the_smallest_of_its_negative():
    candidates = drawn(np.random.default_rng(8), JAGGED, 64)
    turned = [Estimate(-e.value, -e.left_out) for e in candidates]
    ours, other = largest(turned), smallest(candidates)
    assert ours.best == other.best and (ours.kept == other.kept).all()
    assert ours.value == pytest.approx([e.value for e in turned])


def test_a_single_candidate_is_best():
    found = smallest(drawn(np.random.default_rng(9), TIED[:1], 8))
    assert found.kept.tolist() == [True] and separations(found, 8) == {}


def test_what_is_lost_in_noise_or_overflows_is_neither_kept_nor_ruled_out():
    candidates = drawn(np.random.default_rng(10), FAR, 64)
    lost = Estimate(1.0, np.full(64, np.nan))
    found = smallest([lost, *candidates, Estimate(np.inf, np.full(64, np.inf))])
    assert found.unknown.tolist() == [True, False, False, False, False, True]
    assert found.kept.tolist() == [False, False, True, False, False, False]
    assert found.best == 2 and found.contender[1] == 2


def test_candidates_of_other_starts_or_without_any_number_are_refused():
    with pytest.raises(InputError, match="same starts"):
        smallest([Estimate(1.0, np.ones(4)), Estimate(1.0, np.ones(5))])
    with pytest.raises(InputError, match="0 of 1 are finite"):
        smallest([Estimate(np.nan, np.ones(4))])


def test_the_samples_asked_for_rule_the_member_out():
    """The squared biases stay what they are: in units of tr Σ / N′ they grow with N′."""
    rng, left = np.random.default_rng(11), []
    while len(left) < 16:
        found = smallest(drawn(rng, np.array([4.0, 8.0, 40.0]), 64))
        more = separations(found, 64).get(1, 1000)
        if more > 800:
            continue
        n = 64 + more
        again = smallest(drawn(rng, np.array([4.0, 8.0, 40.0]) * n / 64, n))
        assert found.contender[1] == 0
        left.append(not again.kept[1])
    assert np.mean(left) >= 0.6


def test_those_nearest_to_leaving_are_named_first():
    rng = np.random.default_rng(12)
    values = rng.normal(size=(3, 400)) + np.array([0.0, 0.08, 0.03])[:, None]
    values -= values.mean(axis=1, keepdims=True) - np.array([[0.0], [0.08], [0.03]])
    found = smallest([means(each) for each in values])
    asked = separations(found, 400)
    assert list(asked) == [1, 2] and found.contender[1:].tolist() == [0, 0]
    assert 0 < asked[1] < asked[2]


# Signs


def test_signs_are_right_for_all_candidates_together():
    rng, wrong, found = np.random.default_rng(11), 0, 0
    means = np.array([0.0, 0.0, 0.0, 0.6, -0.6, 0.0])
    for _ in range(200):
        X = means + rng.normal(size=(64, 1)) + rng.normal(size=(64, 6))
        sign = signs([mean_of(X[:, k]) for k in range(6)])
        wrong += bool((sign[means == 0] != 0).any() or sign[3] < 0 or sign[4] > 0)
        found += int((sign[3] == 1) + (sign[4] == -1))
    assert wrong <= 20  # 95% of 200, less three standard errors
    assert found > 150


def test_signs_of_what_is_not_finite_are_not_decided():
    rng = np.random.default_rng(12)
    up, lost = mean_of(5 + rng.normal(size=40)), mean_of(np.full(40, np.nan))
    exact, none = mean_of(np.full(40, -2.0)), mean_of(np.zeros(40))
    assert signs([up, lost, exact, none]).tolist() == [1, 0, -1, 0]


def mean_of(x):
    return Estimate(float(x.mean()), (x.sum() - x) / (len(x) - 1))


@pytest.mark.parametrize(
    "bias2, correlation", [(TIED, 0.0), (TIED, 0.95), (30 * TIED, 0.95), (FLAT, 0.5)]
)
def test_an_interval_of_the_chosen_candidate_pays_for_the_choice(bias2, correlation):
    rng, plain, paid = np.random.default_rng(5), [], []
    for _ in range(150):
        candidates = drawn(rng, bias2, 64, correlation)
        ranks = smallest(candidates)
        known = (bias2[ranks.best] + 1) * TRACE / 64
        level = chosen_level(candidates, ranks.kept)
        for hits, at in ((plain, LEVEL), (paid, level)):
            ends = interval("mse", candidates[ranks.best], at)
            hits.append(ends.low <= known <= ends.high)
    assert np.mean(paid) >= 0.94 - 2 * (0.05 * 0.95 / 150) ** 0.5
    assert np.mean(plain) < np.mean(paid)


def test_where_one_candidate_is_left_nothing_was_chosen():
    candidates = drawn(np.random.default_rng(1), FAR, 256, 0.95)
    ranks = smallest(candidates)
    assert ranks.kept.sum() == 1 and chosen_level(candidates, ranks.kept) == LEVEL
    same = [candidates[1]] * 3
    assert chosen_level(same, smallest(same).kept) == pytest.approx(LEVEL, abs=2e-3)


GROUPS, REPETITIONS = 64, 120


def game(errors, noise=1e-6, seed=0):
    """U-statistics of GROUPS samples of each player's error around its mean."""
    rng = np.random.default_rng(seed)
    means = np.array(list(errors.values()))
    samples = means + noise * rng.normal(size=(GROUPS, *means.shape))
    k = len(errors)
    outside = np.array([[not S >> i & 1 for i in range(k)] for S in range(2**k)], dtype=float)
    b = np.einsum("sk,gkd->sgd", outside, samples)
    total = b.sum(axis=1)
    own = (b**2).sum(axis=-1)
    along = np.einsum("sgd,sd->sg", b, total)
    return squared_norms(tuple(errors), PairSums(own, along, along), np.ones(GROUPS))


def test_a_player_whose_cure_alone_makes_it_worse_is_replaced_with_the_one_that_it_hides():
    """|b|²: .0125 of all; .8125 or 1.0025 with A or B cured; .0025 with both; .01 with C."""
    errors = {"A": (1.0, 0.0), "B": (-0.9, 0.0), "C": (0.0, 0.05)}
    best = best_replacement(game(errors))
    assert best.players == ("A", "B")
    assert best.taken_off.value == pytest.approx(0.01, rel=1e-3)
    assert best.rivals == ()


def test_of_additive_errors_the_largest_alone_comes_first():
    best = best_replacement(game({"A": (0.3, 0.0), "B": (0.0, 1.0), "C": (0.1, 0.0)}))
    assert best.players == ("B",)
    assert best.taken_off.value == pytest.approx(1.0, rel=1e-3)


def test_where_every_replacement_harms_the_best_one_is_negative():
    """(1, 0) − (½, √¾) − (½, −√¾) = 0 and a rest of .1: any one or two of them leave 1 or more."""
    third = 0.75**0.5
    best = best_replacement(
        game({"A": (1.1, 0.0), "B": (-0.5, third), "C": (-0.5, -third)}, noise=1e-4)
    )
    low, high = (
        getattr(share_interval(best.taken_off, best.level), end) for end in ("low", "high")
    )
    assert low < high < 0


def test_the_interval_of_the_chosen_one_pays_for_the_choice():
    """Four that take off 1 each: the largest estimate is too large, its interval must hold 1."""
    errors = dict(zip("ABCD", np.eye(4), strict=True))
    covered, plain = 0, 0
    for seed in range(REPETITIONS):
        best = best_replacement(game(errors, noise=1.0, seed=seed))
        truth = float(len(best.players))
        ends = share_interval(best.taken_off, best.level)
        covered += ends.low <= truth <= ends.high
        uncorrected = share_interval(best.taken_off)
        plain += uncorrected.low <= truth <= uncorrected.high
    assert covered >= 0.92 * REPETITIONS  # 95% less 1.5 standard errors
    assert plain < covered


def test_two_groups_say_nothing():
    few = game({"A": (1.0,), "B": (2.0,)})
    few = type(few)(few.players, few.value, few.left_out[:, :2])
    assert best_replacement(few) is None


NAMES = ("a", "b", "c", "d")


def game_of(value, players=NAMES):
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
    found = shares(game_of(7.0 - masks(4) @ worth))
    for each in (found.shapley, found.first, found.last):
        np.testing.assert_allclose(values(each), worth, rtol=0, atol=1e-14)
    assert found.total.value == 7.0


def test_a_symmetric_game_pays_everyone_alike_and_a_bystander_nothing():
    crowd = masks(4)[:, :3].sum(axis=1)  # d changes nothing
    found = shares(game_of((3.0 - crowd) ** 2))
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
    np.testing.assert_allclose(values(shares(game_of(value)).shapley), expected, atol=1e-14)


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
    truth = shares(game_of(((on @ means) ** 2).sum(axis=1), ("a", "b", "c")))
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
    lost = shares(game_of([np.inf, *np.ones(7)], ("a", "b", "c")))
    assert "overflows" in share_interval(lost.shapley[0]).method


def test_a_game_without_every_set_is_refused():
    with pytest.raises(InputError, match="expected 16"):
        game_of(np.ones(8))
    with pytest.raises(InputError, match="expected 1 to 6"):
        game_of(np.ones(128), tuple("abcdefg"))
