"""Fitted weights of mixtures: what they lose against the oracle, intervals, degenerate cases.

The expected cosine of one batch, against drawing batches.
"""

import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.statistics.grams import Grams, error_matrix, only
from gradlab.statistics.mixing import (
    direction_weights,
    mse_weights,
    regularised,
    simplex_weights,
)
from gradlab.statistics.moments import batch_cosine, estimates, expected_cosine
from tests.planted_moments import drawn_batch_cosine, explicit_grams, moments, planted
from tests.statistics.mixtures import SCALE, TRACE, D, Planted, by_enumeration


def regret(rng, K, repetitions, weights, **law):
    """Mean ratio of the true error of weights(found) to the least possible."""
    ratios = []
    for _ in range(repetitions):
        law_drawn = Planted(rng, K, 64, **law)
        w = weights(error_matrix(explicit_grams(law_drawn.X, folds=1), law_drawn.batch))
        best = simplex_weights(law_drawn.E)
        ratios.append((w @ law_drawn.E @ w) / (best @ law_drawn.E @ best))
    return np.mean(ratios)


def ours(found):
    return simplex_weights(regularised(found.value, found)[:-1, :-1])


def unprojected(found):
    return by_enumeration(found.value[:-1, :-1])


def regularised_but_unprojected(found):
    F = found.value + 0.5 * found.noise + 0.1 * np.diag(found.scale**2)
    return by_enumeration(F[:-1, :-1])


def ridge_of_the_mean(found):
    """The same ridge for everybody, 0.1 tr(E)/K."""
    E = found.value[:-1, :-1]
    values, vectors = np.linalg.eigh(E)
    E = (vectors * np.maximum(values, 0)) @ vectors.T
    return simplex_weights(E + 0.1 * np.trace(E) / len(E) * np.eye(len(E)))


@pytest.mark.parametrize("K, most", [(2, 1.05), (5, 1.15)])
@pytest.mark.parametrize("ratio", [0.2, 1.0, 5.0])
def test_weights_of_64_samples_lose_little_against_the_oracle(K, most, ratio):
    assert regret(np.random.default_rng(10), K, 80, ours, ratio=ratio) < most


def test_unprojected_weights_chase_the_noise_of_the_matrix():
    """Batches larger than the sample, so that E is mostly squared biases and often indefinite."""
    law = dict(ratio=0.3, times=4)
    kept, chasing, never_projected = (
        regret(np.random.default_rng(11), 5, 80, each, **law)
        for each in (ours, unprojected, regularised_but_unprojected)
    )
    assert kept < 1.3
    assert chasing > 1.3 * kept
    assert never_projected > 1.03 * kept


def test_an_exploding_estimator_does_not_drown_the_others():
    law = dict(spread=2.0)
    in_units, common = (
        regret(np.random.default_rng(12), 5, 60, each, **law) for each in (ours, ridge_of_the_mean)
    )
    assert in_units < 1.15 and common > 2


@pytest.mark.parametrize("times", [1, 16])
def test_the_oracle_s_weights_lie_in_their_intervals(times):
    rng, hits = np.random.default_rng(23), []
    for _ in range(25):
        law = Planted(rng, 3, 64, times=times)
        found, best = mse_weights(explicit_grams(law.X), law.batch), simplex_weights(law.E)
        hits.append((found.low - 1e-9 <= best) & (best <= found.high + 1e-9))
    assert np.mean(hits) >= 0.9


def test_the_scale_of_a_direction_lies_in_its_interval():
    rng, hits, n = np.random.default_rng(14), [], 64
    for _ in range(20):
        z = rng.normal(size=(n, 1, D)) * 6 * SCALE
        X = np.concatenate([1 + z, np.ones((n, 1, D))], axis=1)
        found = direction_weights(explicit_grams(X), batch=n)
        hits.append(found.scale_low <= D / (D + 36 * TRACE / n) <= found.scale_high)
    assert np.mean(hits) >= 0.8


def both(X, batch=8):
    grams = explicit_grams(X)
    return mse_weights(grams, batch), direction_weights(grams, batch)


def test_one_estimator_has_all_the_weight():
    X = np.random.default_rng(18).normal(size=(8, 2, 3)) + 1
    for found in both(X):
        assert found.share == pytest.approx([1]) and found.low == pytest.approx([1])


def test_identical_estimators_share_their_weight():
    rng = np.random.default_rng(19)
    g, t = rng.normal(size=(2, 8, 1, 3)) + 3
    for found in both(np.concatenate([g, g, g, t], axis=1)):
        assert found.share == pytest.approx(np.full(3, 1 / 3), abs=1e-5)


def test_all_but_identical_estimators_share_their_weight():
    """Their differences are real, and too small to pay for a choice between them."""
    rng, t = np.random.default_rng(22), np.ones((40, 1, D))
    common, aside = rng.normal(size=(40, 1, D)), 0.05 * rng.normal(size=(40, 4, D))
    found = mse_weights(explicit_grams(np.concatenate([t + 1 + common + aside, t], axis=1)), 8)
    assert found.share == pytest.approx(np.full(4, 0.25), abs=0.05)


def test_an_exact_estimator_takes_all_the_weight_at_scale_one():
    rng = np.random.default_rng(20)
    t = np.ones((40, 1, 3))
    for found in both(np.concatenate([t + 2 + rng.normal(size=(40, 1, 3)), t, t], axis=1)):
        assert found.share == pytest.approx([0, 1], abs=1e-6)
        assert found.scale == pytest.approx(1, abs=1e-6)


def test_where_nothing_points_along_the_truth_there_is_no_direction():
    rng = np.random.default_rng(21)
    t = np.ones((40, 1, 3))
    plain, direction = both(np.concatenate([-t, -2 * t + 0.1 * rng.normal(size=t.shape), t], 1))
    assert direction.share.tolist() == [0, 0] and direction.scale == 0
    assert plain.share == pytest.approx([1, 0], abs=0.05)


def test_without_any_gradient_weights_are_even_and_nothing_points_anywhere():
    plain, direction = both(np.zeros((8, 3, 4)))
    assert plain.share == pytest.approx([0.5, 0.5]) and direction.share.tolist() == [0, 0]


def test_infinite_gradients_too_few_groups_and_other_shapes_are_refused():
    X = np.ones((8, 3, 4))
    X[2, 1] = np.inf
    with np.errstate(invalid="ignore"), pytest.raises(InputError, match=r"estimators \[1\]"):
        explicit_grams(X)
    with pytest.raises(InputError, match="1 groups"):
        explicit_grams(np.ones((1, 3, 4)))
    with pytest.raises(InputError, match="at least 3"):
        only(explicit_grams(np.ones((5, 3, 4))), [1])
    good = explicit_grams(np.ones((4, 3, 4)))
    with pytest.raises(InputError, match="shapes"):
        Grams(good.size[:2], good.own, good.within, good.total, good.fold)


def by_formula(mean, truth, covariance, batch):
    t = truth / np.linalg.norm(truth)
    parts = (mean @ truth, truth @ truth, t @ covariance @ t, mean @ mean, np.trace(covariance))
    return float(batch_cosine(*(np.asarray(float(x)) for x in parts), batch))


@pytest.mark.parametrize("batch", [1, 8, 64])
@pytest.mark.parametrize(("d", "allowed"), [(1, 0.005), (2, 0.06), (5, 0.03), (40, 0.005)])
def test_it_is_the_mean_over_drawn_batches(d, allowed, batch):
    rng = np.random.default_rng(d)
    mean, truth = 0.3 * rng.normal(size=(2, d)) + 0.2
    covariance = np.diag(np.linspace(0.5, 1.5, d))
    drawn = drawn_batch_cosine(mean, truth, covariance**0.5, batch)
    assert by_formula(mean, truth, covariance, batch) == pytest.approx(drawn, abs=allowed)


def test_the_integral_is_the_expectation_over_a_normal():
    a = np.random.default_rng(0).normal(size=1_000_000)
    for mean, spread, rest in (
        (0.5, 1.0, 0.0),
        (0.5, 1.0, 0.3),
        (3.0, 0.01, 2.0),
        (30.0, 1.0, 5.0),
    ):
        draws = mean + np.sqrt(spread) * a
        want = (draws / np.sqrt(draws**2 + rest)).mean()
        found = expected_cosine(*(np.asarray(x) for x in (mean, spread, rest)))
        assert found == pytest.approx(want, abs=0.003)


def test_it_is_estimated_from_samples_as_resampling_them_would():
    data = planted(np.random.default_rng(1), 4000, ratio=100.0, size=0.3)
    for batch in (4, 64):
        found = estimates(moments(data.G, data.T), batch)["cosine_batch"].value
        rows = np.random.default_rng(2).integers(len(data.G), size=(4000, batch))
        means, truth = data.G[rows].mean(axis=1), data.truth
        cosines = means @ truth / np.linalg.norm(means, axis=1) / np.linalg.norm(truth)
        assert found == pytest.approx(cosines.mean(), abs=0.02)


def test_a_large_batch_has_the_cosine_of_the_means():
    data = planted(np.random.default_rng(3), 200, size=1.0)
    found = estimates(moments(data.G, data.T), 10**9)
    assert found["cosine_batch"].value == pytest.approx(min(found["cosine"].value, 1.0), abs=1e-4)
