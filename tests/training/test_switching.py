"""Weights replace those in force where they are better, and hardly ever where they are not."""

import numpy as np
import pytest
from scipy import stats

from analyses.coverage.synthetic import explicit_grams
from gradlab.statistics.grams import mixture_moments
from gradlab.statistics.moments import estimates
from gradlab.training.measured.switching import (
    ALPHA,
    errors,
    floored,
    propose_horizon,
    propose_weights,
)

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


def test_an_unbiased_estimator_has_all_the_weight_but_the_floor():
    grams = world(np.random.default_rng(1), 200, np.array([[0.0] * 12, [4.0] * 12]))
    found = propose_weights(errors(grams, BATCH), np.array([0.0, 1.0]))
    assert found.better
    assert 0 < found.weights[1] <= ALPHA / 2 and found.weights.sum() == pytest.approx(1)


def test_the_floor_is_not_kept_at_any_price():
    weights, grams = [], {}
    for size in (0.1, 10.0, 1e3, 1e6):
        grams = world(np.random.default_rng(2), 64, np.array([[0.0] * 12, [size] * 12]))
        weights.append(propose_weights(errors(grams, BATCH), np.array([0.5, 0.5])).weights[1])
    assert weights[2] < 1e-3 and weights[3] < 1e-5  # not even rolled out
    assert sorted(weights[1:], reverse=True) == weights[1:]


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
def test_equal_weights_do_not_flip_on_noise(law, K, biases):
    # Equal errors: equal weights are a best mixture (`one_each`), or any weights are (`alike`).
    trials, generator, even = 150, np.random.default_rng(4), np.full(K, 1 / K)
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


def test_a_clearly_worse_one_is_left():
    bias = np.array([[2.0] * 12, [0.2] * 12, [1.0] * 12])
    measured = errors(world(np.random.default_rng(6), 64, bias), BATCH)
    for propose in (propose_weights, propose_horizon):
        assert propose(measured, np.eye(3)[0]).better
    found = propose_horizon(measured, np.eye(3)[0])
    assert found.weights.tolist() == [0, 1, 0]
    assert found.kept.tolist() == [False, True, False]
    assert not propose_horizon(measured, found.weights).better
    assert not propose_weights(measured, propose_weights(measured, found.weights).weights).better


def test_errors_of_a_mixture_are_those_of_its_moments():
    grams, w = world(np.random.default_rng(7), 40, one_each(3)), np.array([0.2, 0.5, 0.3])
    ours, theirs = errors(grams, BATCH).mse(w), estimates(mixture_moments(grams, w), BATCH)["mse"]
    assert ours.value == pytest.approx(theirs.value, rel=1e-10)
    np.testing.assert_allclose(ours.left_out, theirs.left_out, rtol=1e-10)


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


def test_the_longer_gradient_is_left_for_the_one_that_points_right():
    """Its error is smaller, since the one that points right is ten times too long."""
    measured = turned([0.95, 0.3], [10.0, 0.5])
    short = np.array([0.0, 1.0])
    assert propose_horizon(measured, short, "mse").weights.tolist() == [0, 1]
    for propose in (propose_weights, propose_horizon):
        found = propose(measured, short, "gain")
        assert found.better and found.least > 0
        assert measured.gain(found.weights).value > 0.9
        assert found.kept.tolist() == [True, False]


def test_weights_by_gain_follow_lengths_as_the_same_mixture_needs():
    found = []
    for lengths in ([1.0, 1.0, 1.0], [50.0, 0.1, 3.0], [1e-3, 1e3, 1.0]):
        measured = turned([0.9, 0.6, -0.5], lengths)
        weights = propose_weights(measured, np.full(3, 1 / 3), "gain").weights * lengths
        found.append(weights / weights.sum())
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert found[2] == pytest.approx(found[0], rel=1e-6)
    assert found[0][0] > found[0][1] > found[0][2] > 0


def test_a_proposal_by_gain_is_no_worse_than_any_of_its_parts():
    generator = np.random.default_rng(9)
    for seed in range(40):
        K = int(generator.integers(2, 5))
        cosines, lengths = generator.uniform(-1, 1, K), np.exp(2 * generator.normal(size=K))
        measured = turned(cosines, lengths, seed=seed)
        found = measured.gain(propose_weights(measured, np.full(K, 1 / K), "gain").weights)
        single = max((measured.gain(each) for each in np.eye(K)), key=lambda each: each.value)
        psi = found.left_out - single.left_out
        se = np.sqrt((len(psi) - 1) * psi.var()) + np.sqrt((len(psi) - 1) * single.left_out.var())
        assert found.value >= single.value - 3 * se


@pytest.mark.parametrize(("law", "K"), [("normal", 2), ("t4", 2), ("normal", 4)])
def test_equal_gains_do_not_flip_on_noise(law, K):
    trials, generator, even = 150, np.random.default_rng(4), np.full(K, 1 / K)
    flips = {"weights": 0, "horizon": 0}
    for _ in range(trials):
        measured = errors(world(generator, 32, alike(K), law=law), BATCH)
        flips["weights"] += propose_weights(measured, even, "gain").better
        flips["horizon"] += propose_horizon(measured, even, "gain").better
    assert max(flips.values()) <= stats.binom.isf(1e-3, trials, ALPHA), flips


def test_where_everything_harms_the_least_harm_is_proposed():
    measured = turned([-0.9, -0.2], [1.0, 5.0])
    found = propose_weights(measured, np.array([1.0, 0.0]), "gain")
    assert found.better and found.weights[1] > 0.85
    assert measured.gain(found.weights).value == pytest.approx(-0.2, abs=0.1)


def test_a_gain_that_is_not_a_number_replaces_nothing():
    # Gradients without a mean in batches without noise: their length squared may be negative.
    generator = np.random.default_rng(3)
    X = generator.normal(size=(16, 3, 12))
    measured = errors(explicit_grams(X), 10**12)
    lost = [k for k in (0, 1) if not np.isfinite(measured.gain(np.eye(2)[k]).left_out).all()]
    assert lost
    for propose in (propose_weights, propose_horizon):
        assert not propose(measured, np.eye(2)[lost[0]], "gain").better
