"""Weights of estimators: known optima, regret in simulation, mixtures judged on other starts.

Agreement of signs, where the answer is planted.

Fitted weights of mixtures: what they lose against the oracle, intervals, degenerate cases.

The expected cosine of one batch, against drawing batches.

Planted gradients whose best mixtures are known.
"""

from itertools import combinations

import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.statistics.grams import (
    Grams,
    error_matrix,
    mixture_moments,
    only,
    sign_agreements,
)
from gradlab.statistics.intervals import interval
from gradlab.statistics.mixing import (
    gain_shares,
    mixture_weights,
    optimal_scale,
    regularised,
    scaled_weights,
    simplex_weights,
)
from gradlab.statistics.moments import batch_cosine, estimates, expected_cosine
from tests.planted_moments import drawn_batch_cosine, explicit_grams, moments, planted

D = 30
SCALE = np.exp(-np.arange(D) / 6) ** 0.5
TRACE = (SCALE**2).sum()


class Planted:
    """K estimators of known E and F at batch N′ = `times` · n: random biases, common noise.

    Noise of estimator k is z_k times exp(`spread` · normal), correlated between estimators.
    """

    def __init__(self, rng, K, n, *, ratio=1.0, correlation=0.5, spread=0.5, times=1):
        self.batch = times * n
        aside = rng.normal(size=(K, D))
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        self.bias = aside * np.sqrt(ratio * rng.exponential(size=(K, 1)) * TRACE / n)
        size = np.exp(spread * rng.normal(size=K))
        self.truth = rng.normal(size=D)
        self.truth *= np.sqrt(TRACE) / np.linalg.norm(self.truth)
        mixed = correlation * np.outer(size, size) + (1 - correlation) * np.diag(size**2)
        self.E = self.bias @ self.bias.T + TRACE * mixed / self.batch
        beta = self.bias @ self.truth
        self.F = np.block([[self.E, beta[:, None]], [beta, self.truth @ self.truth]])
        self.covariance = mixed
        z = np.sqrt(correlation) * rng.normal(size=(n, 1, D))
        z = z + np.sqrt(1 - correlation) * rng.normal(size=(n, K, D))
        truth = np.broadcast_to(self.truth, (n, 1, D))
        self.X = np.concatenate([truth + self.bias + size[:, None] * z * SCALE, truth], axis=1)


def by_enumeration(E):
    """argmin wᵀE w on the simplex, stationary points of every face compared."""
    found = []
    for r in range(1, len(E) + 1):
        for face in map(list, combinations(range(len(E)), r)):
            w = np.zeros(len(E))
            w[face] = np.linalg.solve(E[np.ix_(face, face)], np.ones(r))
            w /= w.sum()
            if (w >= 0).all():
                found.append((float(w @ E @ w), w))
    return min(found, key=lambda each: each[0])[1]


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
        best = simplex_weights(law.E)
        found = mixture_weights(explicit_grams(law.X), law.batch, "mse")
        hits.append((found.low - 1e-9 <= best) & (best <= found.high + 1e-9))
    assert np.mean(hits) >= 0.9


def test_the_scale_of_a_direction_lies_in_its_interval():
    rng, hits, n = np.random.default_rng(14), [], 64
    for _ in range(20):
        z = rng.normal(size=(n, 1, D)) * 6 * SCALE
        X = np.concatenate([1 + z, np.ones((n, 1, D))], axis=1)
        found = mixture_weights(explicit_grams(X), n, "direction")
        hits.append(found.scale_low <= D / (D + 36 * TRACE / n) <= found.scale_high)
    assert np.mean(hits) >= 0.8


def both(X, batch=8):
    grams = explicit_grams(X)
    return mixture_weights(grams, batch, "mse"), mixture_weights(grams, batch, "direction")


def test_one_estimator_has_all_the_weight():
    X = np.random.default_rng(18).normal(size=(8, 2, 3)) + 1
    for found in both(X):
        assert found.share == pytest.approx([1]) and found.low == pytest.approx([1])


def test_all_but_identical_estimators_share_their_weight():
    """Their differences are real, and too small to pay for a choice between them."""
    rng, t = np.random.default_rng(22), np.ones((40, 1, D))
    common, aside = rng.normal(size=(40, 1, D)), 0.05 * rng.normal(size=(40, 4, D))
    X = np.concatenate([t + 1 + common + aside, t], axis=1)
    found = mixture_weights(explicit_grams(X), 8, "mse")
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


GROUPS = np.array([0, 0, 0, 1, 1, 2, 3, 3, 4, 5, 6, 7])


def random_errors(rng, K, rank=None):
    root = rng.normal(size=(K + 1, rank or K + 1))
    return root @ root.T


@pytest.mark.parametrize("group", [None, GROUPS])
def test_the_error_of_any_mixture_is_that_of_its_own_gradients(group):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 4, 5)) + rng.normal(size=(4, 5))
    found, w = error_matrix(explicit_grams(X, group), batch=7), np.array([0.3, 1.1, -0.2])
    direct = estimates(moments(np.einsum("k,nkp->np", w, X[:, :3]), X[:, 3], group), batch=7)
    z = np.append(w, w.sum() - 1)
    assert z @ found.value @ z == pytest.approx(direct["mse"].value, rel=1e-10)
    assert found.left_out @ z @ z == pytest.approx(direct["mse"].left_out, rel=1e-8)


def test_every_quantity_of_a_mixture_is_that_of_its_own_gradients():
    rng = np.random.default_rng(1)
    X = 2 + rng.normal(size=(12, 4, 5)) + rng.normal(size=(4, 5))
    w = np.array([0.3, 1.1, -0.2])
    found = estimates(mixture_moments(explicit_grams(X, GROUPS), w), batch=7)
    direct = estimates(moments(np.einsum("k,nkp->np", w, X[:, :3]), X[:, 3], GROUPS), batch=7)
    for name, estimate in found.items():
        assert estimate.value == pytest.approx(direct[name].value, rel=1e-9), name
        assert estimate.left_out == pytest.approx(direct[name].left_out, rel=1e-7), name


def test_the_matrix_is_unbiased():
    rng, found = np.random.default_rng(2), []
    fixed = Planted(np.random.default_rng(3), 3, 16, times=4)
    noise = np.linalg.cholesky(fixed.covariance)
    for _ in range(500):
        z = np.einsum("kl,nlp->nkp", noise, rng.normal(size=(16, 3, D))) * SCALE
        X = np.concatenate([fixed.truth + fixed.bias + z, fixed.X[:, 3:]], axis=1)
        found.append(error_matrix(explicit_grams(X), fixed.batch).value)
    error = np.std(found, axis=0) / 500**0.5
    assert (np.abs(np.mean(found, axis=0) - fixed.F) <= 4 * error + 1e-12).all()


def test_a_fold_is_the_sample_without_the_others():
    X = np.random.default_rng(4).normal(size=(9, 3, 4))
    whole, part = explicit_grams(X, folds=3), explicit_grams(X[1::3], folds=1)
    two = only(whole, [0, 2])
    for name in ("size", "own", "within", "total"):
        assert getattr(only(whole, [1]), name) == pytest.approx(getattr(part, name))
    rest = explicit_grams(np.delete(X, [1, 4, 7], axis=0), folds=1)
    assert two.total.sum(axis=0) == pytest.approx(rest.total[0])
    assert two.fold.tolist() == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize("K", [2, 3, 6])
def test_simplex_weights_are_the_best_of_all_faces(K):
    rng = np.random.default_rng(K)
    for _ in range(20):
        E = random_errors(rng, K)[:K, :K]
        assert simplex_weights(E) == pytest.approx(by_enumeration(E), abs=1e-9)


def test_sixty_weights_satisfy_the_conditions_of_optimality():
    rng = np.random.default_rng(5)
    E = random_errors(rng, 60, rank=200)[:60, :60] * np.outer(*2 * [np.exp(rng.normal(size=60))])
    w = simplex_weights(E)
    slope, level = E @ w, w @ E @ w
    assert w.sum() == pytest.approx(1) and (w >= 0).all() and 1 < (w > 0).sum() < 60
    assert slope[w > 0] == pytest.approx(np.full((w > 0).sum(), level), rel=1e-8)
    assert (slope >= level * (1 - 1e-8)).all()


def test_scaled_weights_satisfy_the_conditions_of_optimality():
    rng = np.random.default_rng(6)
    for _ in range(20):
        F = random_errors(rng, 6, rank=5)
        v = scaled_weights(F)
        z = np.append(v, v.sum() - 1)
        slope = (F @ z)[:6] + (F @ z)[6]
        assert (v >= 0).all() and abs(slope @ v) < 1e-9 and (slope > -1e-8).all()


def test_scaled_weights_have_the_largest_cosine_in_the_mean_square():
    F = random_errors(np.random.default_rng(7), 4)
    beta, tau = F[:4, 4], F[4, 4]
    M, a = F[:4, :4] + beta[:, None] + beta + tau, beta + tau

    def cosine(w):
        return w @ a / np.sqrt(np.einsum("...k,kl,...l", w, M, w) * tau)

    rivals = np.random.default_rng(8).dirichlet(np.full(4, 0.5), size=20_000)
    best = cosine(scaled_weights(F))
    assert cosine(rivals).max() <= best < cosine(rivals).max() + 1e-2


def test_the_scale_of_an_unbiased_estimator_is_its_signal_over_signal_and_noise():
    F = np.diag([3.0, 5.0])  # E |ĝ − t|² = 3 without bias, |t|² = 5
    assert optimal_scale(F, np.ones(1)) == pytest.approx(5 / 8)
    against = np.array([[20.0, -10.0], [-10.0, 5.0]])  # g = −t: better none at all
    assert optimal_scale(against, np.ones(1)) == 0
    assert scaled_weights(F) == pytest.approx([5 / 8])


def test_direction_weights_point_a_batch_along_the_truth_where_mse_weights_shrink_it():
    """The first estimator is right but noisy; the second is small, hence harmless, but across."""
    rng, n = np.random.default_rng(9), 400
    truth, other = np.eye(D)[0] * 2, np.eye(D)[1]
    noise = np.stack([rng.normal(size=(n, D)) * 3, rng.normal(size=(n, D)) * 0.01], axis=1)
    X = np.stack([truth + noise[:, 0], other + noise[:, 1], np.tile(truth, (n, 1))], axis=1)
    grams = explicit_grams(X)
    plain, direction = mixture_weights(grams, 64, "mse"), mixture_weights(grams, 64, "direction")
    z = rng.normal(size=(4000, 2, D)) * np.array([3, 0.01])[:, None] / 8
    batches = np.stack([truth, other]) + z

    def cosine(w):
        g = np.einsum("k,bkp->bp", w, batches)
        return (g[:, 0] / np.linalg.norm(g, axis=1)).mean()

    assert plain.share[1] > 0.3 and direction.share[1] < 0.2
    grid = [cosine(np.array([1 - s, s])) for s in np.linspace(0, 1, 51)]
    assert max(grid) - cosine(direction.share) < 0.002
    assert max(grid) - cosine(plain.share) > 0.005


def rates(F, weights):
    """b·w / √(wᵀ V w) of each row of weights [n, K]."""
    z = np.concatenate([weights, weights.sum(axis=1, keepdims=True)], axis=1)
    return (z @ F[:, -1]) / np.sqrt(np.einsum("ni,ij,nj->n", z, F, z))


@pytest.mark.parametrize("K", [2, 3])
@pytest.mark.parametrize("harm", [False, True])
def test_no_point_of_the_simplex_gains_more(K, harm):
    rng, grid = np.random.default_rng(20), np.linspace(0, 1, 121)
    every = np.stack(np.meshgrid(*[grid] * (K - 1)), axis=-1).reshape(-1, K - 1)
    every = every[every.sum(axis=1) <= 1]
    every = np.concatenate([every, 1 - every.sum(axis=1, keepdims=True)], axis=1)
    for _ in range(40):
        t, G = rng.normal(size=6), rng.normal(size=(K, 6))
        G *= np.exp(rng.normal(size=(K, 1)))  # of very different lengths
        if harm:
            G *= -np.sign(G @ t)[:, None]
        Y = np.concatenate([G - t, t[None]])
        F = Y @ Y.T
        w = gain_shares(F)
        assert w.min() >= 0 and w.sum() == pytest.approx(1)
        assert rates(F, w[None])[0] >= rates(F, every).max() - 1e-9
        assert (rates(F, w[None])[0] < 0) == bool((G @ t < 0).all())


def test_weights_of_gain_are_the_closed_form_where_none_is_bounded():
    """w ∝ V⁻¹ b."""
    rng = np.random.default_rng(21)
    t = rng.normal(size=8)
    aside = rng.normal(size=(3, 8))
    aside -= np.outer(aside @ t, t) / (t @ t)
    G = np.array([[1.0], [2.0], [0.3]]) * (t + 0.4 * aside)
    V, b = G @ G.T + np.diag([0.5, 0.1, 0.2]), G @ t
    wanted = np.linalg.solve(V, b)
    assert (wanted > 0).all()
    F = np.zeros((4, 4))
    F[:3, :3] = V - b[:, None] - b + t @ t
    F[:3, 3] = F[3, :3] = b - t @ t
    F[3, 3] = t @ t
    assert gain_shares(F) == pytest.approx(wanted / wanted.sum(), rel=1e-6)


def test_weights_of_gain_do_not_chase_noise():
    """On seen gradients that are noise about the truth, the largest gain is that of equal weights,
    which intervals hold."""
    hits, rng = 0, np.random.default_rng(22)
    for _ in range(20):
        t = np.ones(10)
        X = t + rng.normal(size=(60, 3, 10))
        found = mixture_weights(
            explicit_grams(np.concatenate([X, np.ones((60, 1, 10))], axis=1)), 8, "gain"
        )
        assert found.share == pytest.approx(np.full(3, 1 / 3), abs=0.15)
        hits += bool(((found.low <= 1 / 3) & (found.high >= 1 / 3)).all())
    assert hits >= 16


def agreement(mean, truth, n, seed=0, spread=1.0):
    rng, size = np.random.default_rng(seed), np.ones(n)
    G, T = (m + spread * rng.normal(size=(n, len(mean))) for m in (mean, truth))
    return sign_agreements(G[None], T, size)[0]


def planted_signs(share, d, seed=0):
    truth = np.random.default_rng(seed).normal(size=d)
    mean = np.where(np.arange(d) < share * d, truth, -0.5 * truth)
    return mean, truth


def test_with_little_noise_it_is_the_share_of_equal_signs():
    mean, truth = planted_signs(0.7, 200)
    hard = (np.sign(mean) == np.sign(truth)).mean()
    found = agreement(mean, truth, 64, spread=0.01)
    assert abs(found.value - hard) < 0.01 and found.shares[1] < 0.1


def test_coordinates_without_noise_count_fully():
    mean, truth = np.array([1.0, -2.0, 3.0]), np.array([1.0, 2.0, 3.0])
    found = agreement(mean, truth, 8, spread=0.0)
    assert found.value == 2 / 3 and found.shares[1] == 0.0


def test_noise_pulls_it_to_one_half_less_than_hard_signs():
    mean, truth = planted_signs(1.0, 2000)
    mean, truth = 0.2 * mean, 0.2 * truth  # about 1.6 standard errors at N = 64
    rng = np.random.default_rng(1)
    G, T = (m + rng.normal(size=(64, len(m))) for m in (mean, truth))
    hard = (np.sign(G.mean(0)) == np.sign(T.mean(0))).mean()
    found = sign_agreements(G[None], T, np.ones(64))[0].value
    assert 1 - found < 0.6 * (1 - hard)


def test_left_out_values_are_recomputations_to_first_order():
    mean, truth = planted_signs(0.6, 50)
    rng, n = np.random.default_rng(2), 200
    G, T = (m + rng.normal(size=(n, 50)) for m in (mean, truth))
    (found,) = sign_agreements(G[None], T, np.ones(n))
    for k in range(3):
        kept = np.arange(n) != k
        (again,) = sign_agreements(G[None, kept], T[kept], np.ones(n - 1))
        assert abs(found.left_out[k] - again.value) < 2e-3


def test_the_interval_holds_the_share_and_admits_what_is_not_known():
    mean, truth = planted_signs(0.7, 40)
    hits = []
    for seed in range(100):
        found = interval("sign_agreement", agreement(0.2 * mean, 0.2 * truth, 64, seed))
        hits.append(found.low <= 0.7 <= found.high)
    assert np.mean(hits) >= 0.9
    assert "not known" in found.method
    assert agreement(0.2 * mean, 0.2 * truth, 64).shares[1] > 0.1


def test_nothing_known_is_lost_in_noise():
    found = agreement(np.zeros(3), np.zeros(3), 8, spread=0.0)
    assert np.isnan(found.value)
    assert (interval("sign_agreement", found).low, interval("sign_agreement", found).high) == (0, 1)


def test_one_sign_in_eight_that_noise_decides_does_not_narrow_the_interval():
    truth = np.array([1.0, 1, 1, 1, 1, 1, 1, 0.3])
    mean = np.array([1.0, 1, 1, 1, 1, 1, 1, -0.1])  # 7 of 8 agree, the last within its noise
    hits = []
    for seed in range(200):
        found = interval("sign_agreement", agreement(mean, truth, 64, seed))
        hits.append(found.low <= 7 / 8 <= found.high)
    assert np.mean(hits) >= 0.93
