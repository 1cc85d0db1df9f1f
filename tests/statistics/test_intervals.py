"""Intervals cover what they say they cover.

One row per quantity, and everything that is named in it exists.

Ends of a squared norm from the noncentral χ² of its sample's mean.

Numbers decide what their intervals exclude, and say how many samples would exclude the rest.

Intervals at N = 64 where standard errors are themselves badly known.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy
from scipy import stats

from gradlab.errors import InputError
from gradlab.statistics.comparison import Number, decide
from gradlab.statistics.growth import error_growth, variance_growth
from gradlab.statistics.intervals import (
    METHODS,
    freedom,
    interval,
    jackknife_se,
    noncentral_ends,
    noncentrality,
)
from gradlab.statistics.moments import WITHOUT_TRUTH, Estimate, estimates, squared_norm
from gradlab.statistics.quantities import QUANTITIES, TABLE
from tests.planted_moments import drawn_batch_cosine, moments, pairs, planted
from tests.statistics import quadratic_gradients as lq

CELLS = [(0.0, 1.0), (1.0, 1.0), (30.0, 1.0), (1.0, 0.3)]


def coverage(n, tails, repetitions, seed=0):
    """Share of intervals that hold the known value, per quantity and cell."""
    rng, hits = np.random.default_rng(seed), {}
    for ratio, size in CELLS:
        for _ in range(repetitions):
            data = planted(rng, n, ratio=ratio, size=size, tails=tails)
            for name, estimate in estimates(moments(data.G, data.T), batch=n).items():
                if name not in data.known:
                    continue
                found = interval(name, estimate)
                inside = found.low <= data.known[name] <= found.high
                hits.setdefault((name, ratio, size), []).append(inside)
    return {cell: float(np.mean(each)) for cell, each in hits.items()}


@pytest.mark.slow
def test_intervals_cover_light_tails():
    found = coverage(64, "gaussian", 250)
    assert min(found.values()) > 0.88  # 95% nominal less 4 standard errors of 250 repetitions
    for name in ("bias2", "variance", "mse"):
        assert np.mean([c for (n, *_), c in found.items() if n == name]) > 0.92


@pytest.mark.slow
@pytest.mark.parametrize(("tails", "floor"), [("gaussian", 0.92), ("t4.5", 0.86)])
@pytest.mark.parametrize("n", [64, 256])
def test_intervals_cover_in_every_cell(n, tails, floor):
    for cell, share in coverage(n, tails, 2000).items():
        if cell[0] in ("bias2", "variance", "mse"):
            assert share >= floor, cell


def test_ends_are_ordered_and_clipped():
    rng = np.random.default_rng(1)
    for _ in range(50):
        data = planted(rng, 16, ratio=0.0, size=0.2)
        for name, estimate in estimates(moments(data.G, data.T), batch=16).items():
            found = interval(name, estimate)
            assert found.low <= found.high or np.isnan(found.low)
            lowest, highest = QUANTITIES[name].range
            assert np.isnan(found.low) or lowest <= found.low
            assert np.isnan(found.high) or found.high <= highest


def test_a_norm_whose_square_is_estimated_below_zero_is_not_known_to_be_zero():
    rng, hits, below = np.random.default_rng(5), [], 0
    for _ in range(400):
        data = planted(rng, 64, ratio=0.0, size=0.1)  # |mean|² = 0.64 of the noise of the mean
        norm = estimates(moments(data.G), batch=64)["mean_norm"]
        found = interval("mean_norm", norm)
        below += norm.value == 0
        hits.append(found.low <= data.known["mean_norm"] <= found.high)
    assert below > 40
    assert np.mean(hits) > 0.9


def test_a_cosine_lost_in_noise_is_anything():
    lost = Estimate(float("nan"), np.full(8, np.nan))
    found = interval("cosine", lost)
    assert (found.low, found.high) == (-1.0, 1.0)
    assert "noise" in found.method


def test_cosines_of_products_of_states_are_covered_and_missed_on_either_side():
    """Gradients (M z) s₀ᵀ of a linear-quadratic world: where the gap is small, so is its error."""
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(3, 3)), 0.5 * rng.normal(size=(3, 2))
    A *= 0.8 / np.abs(np.linalg.eigvals(A)).max()
    prior = A + 0.2 * rng.normal(size=(3, 3)), B + 0.2 * rng.normal(size=(3, 2))
    world = lq.World("", A, B, *prior, 0.1 * rng.normal(size=(2, 3)), noise=0.1, steps=20)
    M = lq.action_gradients(world, (1, 5))
    true, missed = lq.mean_of(world, M["truth"]), []
    for k, name in enumerate(("data", "model 1", "mixed 1", "model 5")):
        mean, rng = lq.mean_of(world, M[name]), np.random.default_rng(k)
        known = mean @ true / np.linalg.norm(mean) / np.linalg.norm(true)
        assert 0.5 < abs(known) < 0.98
        for _ in range(200):
            data = lq.drawn(world, {"G": M[name], "T": M["truth"]}, 64, rng)
            found = interval("gain", estimates(moments(data["G"], data["T"]), 64)["gain"])
            better, worse = found.low > known, found.high < known
            missed.append((better, worse) if known > 0 else (worse, better))
    too_good, too_bad = np.mean(missed, axis=0)
    assert too_good + too_bad < 0.056  # 800 repetitions: 0.05 and 0.8 standard errors
    assert 0 < too_bad < 0.035
    assert 0 < too_good < 0.045


@pytest.mark.parametrize("side", [-1, 1])
def test_the_sign_of_a_cosine_is_known_where_its_size_is_lost(side):
    """|E G|² as large as the noise of the mean, along a truth: one direction of many is enough."""
    rng, known, decided, lost = np.random.default_rng(4), [], [], 0
    for _ in range(300):
        T = np.zeros((64, 24))
        T[:, 0] = 3 + rng.normal(size=64)
        G = rng.normal(size=(64, 24)) + side * (24 / 64) ** 0.5 * np.eye(24)[0]
        cosine = estimates(moments(G, T), 64)["cosine"]
        found = interval("cosine", cosine)
        lost += np.isnan(found.se)
        known.append(found.low <= side <= found.high)
        decided.append(side * (found.low + found.high) > 0 and found.low * found.high > 0)
    assert lost > 0
    assert np.mean(known) > 0.95
    assert np.mean(decided) > 0.9


def test_every_name_stands_once_and_has_an_interval():
    assert len(QUANTITIES) == len(TABLE)
    assert {each.interval for each in TABLE} == set(METHODS)


def test_what_is_estimated_is_in_the_table_and_needs_what_its_row_says():
    data = planted(np.random.default_rng(0), 12)
    with_truth = set(estimates(moments(data.G, data.T), batch=12))
    without = set(estimates(moments(data.G), batch=12))
    assert with_truth <= set(QUANTITIES)
    assert without <= set(WITHOUT_TRUTH)
    assert {QUANTITIES[name].needs for name in with_truth - without} == {"truth", "return"}


def test_values_stated_for_a_batch_change_with_it_and_no_others():
    data = planted(np.random.default_rng(1), 40, ratio=30.0, size=0.5)
    small, large = (estimates(moments(data.G, data.T), batch=n) for n in (4, 400))
    changed = {name for name in small if small[name].value != large[name].value}
    assert changed == {each.name for each in TABLE if each.per_batch}


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


NAN = float("nan")


@pytest.mark.parametrize(
    ("number", "kind", "guess"),
    [
        (Number(0.5, 0.1, 0.9, 64), "above", "above"),
        (Number(-0.5, -0.9, -0.1, 64), "below", "below"),
        (Number(0.5, 0.0, 0.9, 64), "undecided", "above"),  # an end on the threshold excludes none
        (Number(-0.5, -0.9, 0.0, 64), "undecided", "below"),
        (Number(0.0, -0.1, 0.1, 64), "undecided", "unknown"),
        (Number(NAN, -1.0, 1.0, 64), "undecided", "unknown"),
        (Number(1.3, 0.2, 1.0, 64), "above", "above"),  # a noise-corrected cosine beyond its range
    ],
)
def test_an_interval_decides_what_it_excludes(number, kind, guess):
    found = decide(number, 0.0)
    assert (found.kind, found.guess, found.decided) == (kind, guess, kind != "undecided")
    assert (found.more == 0) == found.decided
    mirror = decide(Number(-number.value, -number.high, -number.low, number.n), 0.0)
    sides = {"above": "below", "below": "above"}
    assert (mirror.kind, mirror.guess) == (sides.get(kind, kind), sides.get(guess, guess))
    assert mirror.more == found.more


def test_the_promised_samples_decide_in_the_promised_share_of_repetitions():
    rng, mean, n, z = np.random.default_rng(0), 0.2, 64, stats.norm.ppf(0.975)

    def known(value, n):
        return Number(value, value - z / n**0.5, value + z / n**0.5, n)

    for power in (0.6, 0.8, 0.95):
        more = decide(known(mean, n), 0.0, power).more
        values = mean + rng.normal(size=20_000) / (n + more) ** 0.5
        share = np.mean([decide(known(value, n + more), 0.0).kind == "above" for value in values])
        assert share == pytest.approx(power, abs=0.01)


def test_only_the_end_that_faces_the_threshold_prices_the_decision():
    near = decide(Number(0.5, -0.1, 0.6, 64), 0.0).more
    assert decide(Number(0.5, -0.1, 50.0, 64), 0.0).more == near
    assert decide(Number(0.5, -0.4, 0.6, 64), 0.0).more > near
    assert decide(Number(1e-9, -1.0, 1.0, 64), 0.0).more is None  # nobody can afford it


@pytest.mark.parametrize(
    ("number", "unknown"),
    [
        (Number(1.0, 0.2, 1.9, 64), False),
        (Number(1.0, 0.1, 1.1, 64), True),
        (Number(-1.0, -1.1, -0.1, 64), True),
        (Number(1.0, 2.8e-14, 2.7e5, 64), True),
        (Number(0.1, -0.2, 0.4, 64), False),
        (Number(0.001, 0.0, 0.003, 64), False),  # a bound from above
        (Number(NAN, -1.0, 1.0, 64), True),
        (Number(1.0, 0.5, float("inf"), 64), True),
    ],
)
def test_intervals_over_more_than_a_decade_are_no_results(number, unknown):
    assert number.spans_decades is unknown


def test_the_samples_promised_for_the_sign_of_a_gain_decide_it():
    """By the median over undecided repetitions, and a fifth of them would not be enough."""
    rng = np.random.default_rng(5)

    def measured(n):
        T = rng.normal(size=(n, 12))
        G = 0.6 * T + 0.8 * rng.normal(size=(n, 12))
        T[:, 0] += 1.5
        G[:, :2] += 0.18, 0.4  # gain 0.41
        found = interval("gain", (gain := estimates(moments(G, T), n)["gain"]))
        return Number(gain.value, found.low, found.high, n)

    found = [decide(measured(48), 0.0) for _ in range(150)]
    promised = [each.more for each in found if each.more]
    assert len(promised) > 50
    size = 48 + int(np.median(promised))
    assert np.mean([decide(measured(size), 0.0).kind == "above" for _ in range(100)]) > 0.75
    fewer = 48 + int(np.median(promised)) // 5
    assert np.mean([decide(measured(fewer), 0.0).kind == "above" for _ in range(100)]) < 0.75


def test_a_known_standard_error_prices_the_decision_in_the_place_of_the_interval():
    plain = Number(0.5, -0.1, 1.1, 64)
    assert decide(Number(0.5, -0.1, 1.1, 64, 0.6 / stats.norm.ppf(0.975)), 0.0) == decide(
        plain, 0.0
    )
    assert decide(Number(0.5, -0.1, 1.1, 64, 0.2), 0.0).more < decide(plain, 0.0).more
    assert decide(plain.negative, 0.0).more == decide(plain, 0.0).more


N, REPETITIONS = 64, 200
SAMPLING = 2 * (0.05 * 0.95 / REPETITIONS) ** 0.5  # two standard errors of a coverage of 95%


def test_degrees_of_freedom_are_those_of_the_squares_of_what_was_drawn():
    # Var s² of G draws is σ⁴ (κ − 1)/G: of a uniform κ = 9/5, of an exponential 9.
    rng = np.random.default_rng(0)
    for draw, kurtosis in ((rng.uniform, 1.8), (rng.exponential, 9.0)):
        found = np.median([freedom(draw(size=400)) for _ in range(200)])
        assert found == pytest.approx(min(2 * 400 / (kurtosis - 1), 399), rel=0.25)
    assert freedom(np.full(10, 3.0)) == 9


def test_the_mean_of_heavy_tails_is_covered_more_often_with_the_freedom_that_they_leave():
    rng, plain, freed = np.random.default_rng(1), 0, 0
    for _ in range(600):
        x = stats.lognorm.rvs(1.0, size=N, random_state=rng) * rng.choice([-1.0, 1.0], size=N)
        left_out = (x.sum() - x) / (N - 1)
        reach = abs(x.mean()) / jackknife_se(left_out)
        plain += reach < stats.t.ppf(0.975, N - 1)
        freed += reach < stats.t.ppf(0.975, freedom(left_out))
    assert freed >= 0.94 * 600 - 2 * (0.05 * 0.95 * 600) ** 0.5
    assert freed > plain


@pytest.mark.parametrize("world", [lq.WORLDS[1], lq.WORLDS[2]], ids=lambda world: world.name)
def test_the_cosine_of_a_batch_is_covered(world):
    M = lq.action_gradients(world)
    m, truth = M["model 5"], M["truth"]
    many = lq.drawn(world, {"G": m}, 100_000, np.random.default_rng(1))["G"]
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(many.T)))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    known = drawn_batch_cosine(lq.mean_of(world, m), lq.mean_of(world, truth), root, N)
    rng, hits = np.random.default_rng(2), 0
    for _ in range(REPETITIONS):
        data = lq.drawn(world, {"G": m, "T": truth}, N, rng)
        found = interval(
            "cosine_batch", estimates(moments(data["G"], data["T"]), N)["cosine_batch"]
        )
        hits += found.low <= known <= found.high
    assert hits / REPETITIONS >= 0.93 - SAMPLING


def test_the_rate_of_growth_is_covered():
    M = lq.action_gradients(lq.UNSTABLE, lq.LENGTHS)
    models = {name: m for name, m in M.items() if name.startswith("model")}
    exact = np.log([lq.trace_of(lq.UNSTABLE, m) for m in models.values()])
    rng, hits, repetitions = np.random.default_rng(3), 0, 80
    for _ in range(repetitions):
        variances = [variance(G) for G in lq.drawn(lq.UNSTABLE, models, N, rng).values()]
        found = variance_growth(
            STEPS,
            np.array([each.value for each in variances]),
            np.stack([each.left_out for each in variances]),
        )
        stretch = slice(found.onset - 1, found.last)
        slope = np.polyfit(STEPS[stretch], exact[stretch], 1)[0]
        hits += found.low <= slope <= found.high
    assert hits / repetitions >= 0.93 - 2 * (0.05 * 0.95 / repetitions) ** 0.5


def variance(G):
    """tr Cov of gradients [N, d] with each sample left out, from its definition."""
    n, sums, squares = len(G), G.sum(axis=0), (G**2).sum(axis=1)
    whole = (squares.sum() - sums @ sums / n) / (n - 1)
    left = sums - G
    rest = (squares.sum() - squares - (left**2).sum(axis=1) / (n - 1)) / (n - 2)
    return Estimate(float(whole), rest)


STEPS = np.arange(1.0, 26.0)


def distances(law, starts=128, seed=0):
    """A curve per start: the law times a factor of its own, and a little noise."""
    draw = np.random.default_rng(seed)
    size = draw.lognormal(0, 0.5, size=(starts, 1))
    return size * law(STEPS) * draw.lognormal(0, 0.05, size=(starts, len(STEPS)))


@pytest.mark.parametrize(
    ("law", "name"),
    [
        (lambda i: 0.3 * i, "linear"),
        (lambda i: 0.3 * np.exp(0.2 * i), "exponential"),
        (lambda i: 0.3 * i**2, "faster"),
        (lambda i: 0.3 * np.sqrt(i), "slower"),
        (lambda i: 3 * np.exp(-0.2 * i), "slower"),  # one that only shrinks is no violation
        (lambda i: 10 + 0.1 * i, "slower"),  # a line far from the origin
    ],
)
def test_the_law_of_growth_is_recognised(law, name):
    assert error_growth(distances(law)).law == name


def test_a_poor_fit_leaves_the_question_open():
    found = error_growth(distances(lambda i: i * np.exp(0.8 * np.sin(i))))
    assert found.power_fit < 0.95
    assert found.law == "undecided"


def test_the_interval_of_the_exponent_covers_it():
    """Every start has an exponent of its own, with mean 1 and equal sizes of error."""
    covered, repetitions = 0, 200
    for seed in range(repetitions):
        draw = np.random.default_rng(seed)
        noise = np.cumsum(draw.normal(0, 0.1, size=(64, len(STEPS))), axis=1)
        found = error_growth(STEPS * np.exp(noise) * np.exp(-0.01 * STEPS))
        covered += found.exponent.low <= 1.0 <= found.exponent.high
    # |s − ŝ|² averages exp(2 noise), whose mean is exp(2 · 0.01 i): the factor above cancels it
    # in expectation, so that the curve is linear.
    assert covered / repetitions > 0.88


def test_a_model_without_error_has_no_growth():
    assert error_growth(np.zeros((8, 25))) is None


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (np.ones(25), "shape"),
        (np.ones((8, 3)), "shape"),
        (-np.ones((8, 25)), "finite"),
        (np.full((8, 25), np.nan), "finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(values, named):
    with pytest.raises(InputError, match=named):
        error_growth(values)


# Planted growth is found; none is not.


H = np.arange(1.0, 26.0)


def planted_growth(law, noise=0.05, groups=40):
    """Variances of a law, with left-out values whose jackknife error is about `noise`."""
    rng = np.random.default_rng(0)
    wobble = noise * rng.normal(size=(len(H), groups)) / np.sqrt(groups)
    return variance_growth(H, law, law[:, None] * np.exp(wobble - wobble.mean(1, keepdims=True)))


def test_exponential_growth_is_found_with_its_onset_and_rate():
    law = np.exp(np.where(H < 8, 0.0, 0.35 * (H - 8)))
    found = planted_growth(law)
    assert found.grows
    assert found.law == "exponential"
    assert found.onset == 8
    assert found.slope == pytest.approx(0.35, abs=1e-9)
    assert found.low < 0.35 < found.high


def test_a_power_law_is_not_called_exponential():
    found = planted_growth(H**3)
    assert found.grows
    assert found.law == "power"
    assert found.power == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize("law", [np.exp(-0.2 * H), 1 + 1e-3 * H, np.ones(25)])
def test_decay_and_plateaus_do_not_grow(law):
    found = planted_growth(law)
    assert not found.grows or found.factor < 2


def test_a_short_noisy_stretch_does_not_tell_the_two_apart():
    wiggle = 1 + 0.3 * (-1.0) ** H
    found = planted_growth(wiggle * H**1.5)
    assert found.grows
    assert found.law == "either"


def test_too_few_horizons_or_no_variance_give_no_growth():
    assert variance_growth(H[:3], H[:3], H[:3, None]) is None
    assert variance_growth(H, 0 * H, 0 * H[:, None]) is None
