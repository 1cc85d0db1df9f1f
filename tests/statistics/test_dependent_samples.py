"""Products of Jacobians against closed forms, plain products, volumes and eigenvalues.

Intervals over groups cover, and estimates are what they say.
"""

import numpy as np
import pytest

from gradlab.statistics import over_groups
from gradlab.statistics.chains import (
    exponents,
    log_singular_values,
    product_error,
    second_half,
    swing,
)


def random_steps(shape, seed=0, spread=0.3):
    rng = np.random.default_rng(seed)
    return np.eye(shape[-1]) + spread * rng.standard_normal((*shape, shape[-1]))


def rotations(angles):
    c, s = np.cos(angles), np.sin(angles)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def test_commuting_diagonal_products_have_the_sums_of_their_logarithms():
    logs = np.random.default_rng(1).normal(size=(30, 4, 3))
    found = log_singular_values(np.exp(logs)[..., None] * np.eye(3))
    expected = -np.sort(-np.cumsum(logs, 0), axis=2)
    np.testing.assert_allclose(found[1:], expected, atol=1e-12)


@pytest.mark.parametrize("d", [1, 2, 5, 12])
def test_they_are_the_singular_values_of_the_product(d):
    M = np.random.default_rng(3).standard_normal((8, 6, d, d))
    found, P = log_singular_values(M), np.eye(d)
    for t in range(8):
        P = M[t] @ P
        sigma = np.linalg.svd(P, compute_uv=False)
        accurate = sigma > 1e-7 * sigma[:, :1]
        np.testing.assert_allclose(np.exp(found[t + 1])[accurate], sigma[accurate], rtol=1e-8)


def test_volumes_multiply_over_two_thousand_steps_without_overflow():
    M = 3.0 * random_steps((2000, 2, 4), spread=0.5)
    found = log_singular_values(M)
    assert np.isfinite(found).all()
    assert found[-1].max() > 2000  # far beyond e^709, the end of float64
    volume = np.cumsum(np.linalg.slogdet(M)[1], 0)
    np.testing.assert_allclose(found[1:].sum(2), volume, rtol=1e-10, atol=1e-8)


def test_exponents_of_a_linear_closed_loop_are_its_eigenvalues():
    A = np.array([[1.0, 0.1, 0.0], [0.0, 1.1, 5.0], [0.0, 0.0, 0.7]])
    B, K = np.array([[0.0], [0.3], [0.2]]), np.array([[-0.4, -0.9, -0.5]])
    loop = A + B @ K
    rate = exponents(log_singular_values(np.broadcast_to(loop, (800, 1, 3, 3))))[0]
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(loop))))[::-1]
    np.testing.assert_allclose(rate, expected, atol=2e-3)


@pytest.mark.parametrize("loop", [[[0.5, 1.0], [0.0, 2.0]], [[1e-3, 1.0], [0.0, 1e3]]])
def test_a_growing_direction_is_found_even_where_the_first_one_never_turns(loop):
    rate = exponents(log_singular_values(np.broadcast_to(np.array(loop), (2000, 1, 2, 2))))
    np.testing.assert_allclose(rate[0], np.log(np.diag(loop))[::-1], atol=1e-9)


@pytest.mark.slow
def test_the_slope_of_turning_modes_is_off_by_no_more_than_its_swing():
    """Complex modes on the unit circle, in oblique coordinates: the largest of four slopes was
    0.028 at 25 steps, and every start had it."""
    rng, inside = np.random.default_rng(1), []
    for steps in (20, 25, 40, 100, 200) * 8:
        turn, oblique = np.zeros((4, 4)), rng.normal(size=(4, 4))
        for block, angle in zip((slice(0, 2), slice(2, 4)), rng.uniform(0.2, 3, 2), strict=True):
            turn[block, block] = rotations(np.array([[angle]]))[0, 0]
        loop = np.linalg.solve(oblique, turn @ oblique)
        logs = log_singular_values(np.broadcast_to(loop, (steps, 1, 4, 4)).copy())
        rate, off = exponents(logs)[0], swing(second_half(logs[:, 0]))
        norms = [np.linalg.norm(np.linalg.matrix_power(loop, t), 2) for t in (steps // 2, steps)]
        slope = np.log(norms[1] / norms[0]) / (steps - steps // 2)
        rounding = steps * np.linalg.cond(oblique) ** 2 * np.finfo(float).eps
        assert rate[0] == pytest.approx(slope, abs=max(1e-12, rounding))
        inside.append(abs(rate[0]) <= off[0])
    assert np.mean(inside) > 0.9
    assert swing(0.3 * np.arange(9.0)) == pytest.approx(0.0, abs=1e-12)


def test_a_singular_product_has_a_logarithm_of_minus_infinity():
    found = log_singular_values(np.broadcast_to(np.array([[1.0, 1.0], [0.0, 0.0]]), (6, 1, 2, 2)))
    np.testing.assert_allclose(found[1:, 0, 0], 0.5 * np.log(2), atol=1e-12)
    assert np.isneginf(found[1:, 0, 1]).all()
    assert np.isneginf(exponents(found)[0, 1])


def test_a_step_passed_over_is_a_step_left_out():
    M = random_steps((10, 1, 3), seed=4)
    skip = np.zeros((10, 1), dtype=bool)
    skip[[2, 7]] = True
    broken = M.copy()
    broken[skip] = np.nan
    found = log_singular_values(broken, skip)
    without = log_singular_values(M[~skip[:, 0]])
    np.testing.assert_allclose(found[-1], without[-1], atol=1e-12)
    rate = exponents(found, skip)
    np.testing.assert_allclose(rate, (found[10] - found[5]) / 4, atol=1e-12)


def test_the_error_of_a_model_that_is_one_percent_too_strong_compounds():
    M = np.exp(0.4) * random_steps((2000, 2, 3), seed=5)
    error = product_error(M, 1.01 * M)
    t = np.arange(2001)
    np.testing.assert_allclose(error, np.expm1(t * np.log(1.01))[:, None].repeat(2, 1), rtol=1e-8)
    assert (error[:, 0] <= 1).sum() - 1 == 69  # 1.01^70 > 2


def test_the_error_of_a_product_is_that_of_plain_products():
    M, guess = random_steps((12, 3, 4), seed=6), random_steps((12, 3, 4), seed=7)
    P, Q, found = np.eye(4), np.eye(4), product_error(M, guess)
    for t in range(12):
        P, Q = M[t] @ P, guess[t] @ Q
        plain = np.linalg.norm(Q - P, axis=(1, 2)) / np.linalg.norm(P, axis=(1, 2))
        np.testing.assert_allclose(found[t + 1], plain, rtol=1e-10)


def test_a_guess_that_leaves_every_scale_is_infinitely_wrong():
    error = product_error(np.full((900, 1, 1, 1), 0.5), np.full((900, 1, 1, 1), 2.0))
    assert np.isinf(error[-1]).all()
    assert not np.isnan(error).any()


def test_intervals_over_starts_cover_the_known_exponent():
    rng, inside, trials = np.random.default_rng(8), 0, 300
    for _ in range(trials):
        scale = 0.1 + 0.5 * rng.standard_normal((10, 12))
        M = np.exp(scale)[..., None, None] * rotations(rng.uniform(0, 6, (10, 12)))
        found = over_groups.mean(exponents(log_singular_values(M)))
        inside += bool(found.low[0] <= 0.1 <= found.high[0])
    assert 0.92 < inside / trials < 0.98


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
