"""Weights replace those in force where they are better, and hardly ever where they are not."""

import numpy as np
import pytest
from scipy import stats

from gradlab.training.measured.switching import (
    ALPHA,
    errors,
    floored,
    propose_horizon,
    propose_weights,
)
from tests.planted_moments import explicit_grams

BATCH = 256


def world(generator, starts, bias, noise=0.3, law="normal", common=1.0, parameters=12):
    """Gradients of K estimators and the truth, with the estimators' biases [K, P]."""

    def draw(*shape):
        z = generator.standard_normal((starts, *shape, parameters))
        tail = (starts,) + (1,) * (z.ndim - 1)
        if law == "t4":
            z = z / np.sqrt(generator.chisquare(4, tail) / 4)
        if law == "lognormal":
            z = z * np.exp(generator.standard_normal(tail))
        return z

    truth = 1 + draw()
    G = truth[:, None] + bias + common * draw()[:, None] + noise * draw(len(bias))
    return explicit_grams(np.concatenate([G, truth[:, None]], axis=1))


def one_each(K, size=1.5):
    return size * np.eye(K, 12)


def alike(K):
    return np.tile(one_each(1), (K, 1))


def test_two_independent_biases_have_the_weights_of_the_closed_form():
    grams = world(np.random.default_rng(0), 4000, np.diag([3.0, 1.0]) @ np.eye(2, 12), noise=0.0)
    found = propose_weights(errors(grams, BATCH), np.array([0.5, 0.5]))
    # E = diag(9, 1) and what both share: w_2 = E_11 / (E_11 + E_22), then the floor.
    assert found.weights[1] == pytest.approx((1 - ALPHA) * 0.9 + ALPHA / 2, abs=0.01)
    assert found.better and found.least > 0
    assert found.gain == pytest.approx(2.5 - (0.01 * 9 + 0.81), abs=0.1)


def test_the_price_of_the_floor_is_at_most_a_standard_error():
    generator = np.random.default_rng(3)
    for _ in range(20):
        measured = errors(world(generator, 64, generator.normal(size=(4, 12))), BATCH)
        best = np.eye(4)[np.argmin(np.diagonal(measured.value))]
        A = generator.normal(size=(4, 4))
        E = A @ A.T
        w = floored(best, measured, E)
        left_out = measured.mse(best).left_out
        allowed = np.sqrt((len(left_out) - 1) * left_out.var())
        assert w @ E @ w - best @ E @ best <= allowed * (1 + 1e-9)
        share = 4 * w[best == 0].min()
        assert w == pytest.approx((1 - share) * best + share / 4)
        assert share <= ALPHA + 1e-12


@pytest.mark.parametrize("law", ["normal", "t4", "lognormal"])
@pytest.mark.parametrize(("K", "biases"), [(2, alike), (4, alike), (2, one_each), (4, one_each)])
@pytest.mark.sampled(4)
def test_equal_weights_do_not_flip_on_noise(law, K, biases):
    # Equal errors: equal weights are a best mixture (`one_each`), or any weights are (`alike`).
    trials, generator, even = 100, np.random.default_rng(4), np.full(K, 1 / K)
    flips = {"weights": 0, "horizon": 0}
    for _ in range(trials):
        measured = errors(world(generator, 32, biases(K), law=law), BATCH)
        flips["weights"] += propose_weights(measured, even).better
        flips["horizon"] += propose_horizon(measured, even).better
    most = stats.binom.isf(1e-3, trials, ALPHA)
    assert max(flips.values()) <= most, flips


def test_a_horizon_in_force_stays_while_it_is_in_the_set():
    trials, generator, flips = 150, np.random.default_rng(5), 0
    for _ in range(trials):
        measured = errors(world(generator, 32, one_each(4)), BATCH)
        found = propose_horizon(measured, np.eye(4)[1])
        flips += found.better
        assert found.better == (not found.kept[1])
    assert flips <= stats.binom.isf(1e-3, trials, ALPHA)


# By gain


def turned(cosines, lengths=1.0, starts=128, seed=8, noise=0.3):
    """Gradients of given cosines with the truth, off it in directions of their own, and lengths."""
    generator, P = np.random.default_rng(seed), 12
    c = np.asarray(cosines)[:, None]
    truth = np.eye(P)[0] + noise * generator.normal(size=(starts, P))
    G = c * np.eye(P)[0] + np.sqrt(1 - c**2) * np.eye(P)[1 : len(c) + 1]
    G = G + noise * generator.normal(size=(starts, len(c), P))
    G = G * np.broadcast_to(lengths, len(c))[:, None]
    return errors(explicit_grams(np.concatenate([G, truth[:, None]], axis=1)), BATCH)


def test_the_gain_is_the_share_of_the_step_that_is_along_the_truth():
    measured = turned([0.2, -0.9], [1.0, 30.0], starts=4000, noise=0.01)
    assert measured.gain(np.array([1.0, 0.0])).value == pytest.approx(0.2, abs=0.01)
    assert measured.gain(np.array([0.0, 1.0])).value == pytest.approx(-0.9, abs=0.01)
    one, other = (measured.gain(scale * np.array([0.5, 0.5])) for scale in (1.0, 7.0))
    assert one.value == pytest.approx(other.value)


def test_weights_by_gain_follow_lengths_as_the_same_mixture_needs():
    found = []
    for lengths in ([1.0, 1.0, 1.0], [50.0, 0.1, 3.0], [1e-3, 1e3, 1.0]):
        measured = turned([0.9, 0.6, -0.5], lengths)
        weights = propose_weights(measured, np.full(3, 1 / 3), "gain").weights * lengths
        found.append(weights / weights.sum())
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert found[2] == pytest.approx(found[0], rel=1e-6)
    assert found[0][0] > found[0][1] > found[0][2] > 0


@pytest.mark.parametrize(("law", "K"), [("normal", 2), ("t4", 2), ("normal", 4)])
def test_equal_gains_do_not_flip_on_noise(law, K):
    trials, generator, even = 100, np.random.default_rng(4), np.full(K, 1 / K)
    flips = {"weights": 0, "horizon": 0}
    for _ in range(trials):
        measured = errors(world(generator, 32, alike(K), law=law), BATCH)
        flips["weights"] += propose_weights(measured, even, "gain").better
        flips["horizon"] += propose_horizon(measured, even, "gain").better
    assert max(flips.values()) <= stats.binom.isf(1e-3, trials, ALPHA), flips


def test_a_gain_that_is_not_a_number_replaces_nothing():
    # Gradients without a mean in batches without noise: their length squared may be negative.
    generator = np.random.default_rng(3)
    X = generator.normal(size=(16, 3, 12))
    measured = errors(explicit_grams(X), 10**12)
    lost = [k for k in (0, 1) if not np.isfinite(measured.gain(np.eye(2)[k]).left_out).all()]
    assert lost
    for propose in (propose_weights, propose_horizon):
        assert not propose(measured, np.eye(2)[lost[0]], "gain").better
