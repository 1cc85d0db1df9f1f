"""Agreement of signs, where the answer is planted."""

import numpy as np

from gradlab.statistics.grams import sign_agreement, soft_signs
from gradlab.statistics.intervals import interval


def agreement(mean, truth, n, seed=0, spread=1.0):
    rng, size = np.random.default_rng(seed), np.ones(n)
    G, T = (m + spread * rng.normal(size=(n, len(mean))) for m in (mean, truth))
    return sign_agreement(soft_signs(G, size), soft_signs(T, size))


def planted(share, d, seed=0):
    truth = np.random.default_rng(seed).normal(size=d)
    mean = np.where(np.arange(d) < share * d, truth, -0.5 * truth)
    return mean, truth


def test_with_little_noise_it_is_the_share_of_equal_signs():
    mean, truth = planted(0.7, 200)
    hard = (np.sign(mean) == np.sign(truth)).mean()
    found = agreement(mean, truth, 64, spread=0.01)
    assert abs(found.value - hard) < 0.01 and found.shares.unknown < 0.1


def test_coordinates_without_noise_count_fully():
    mean, truth = np.array([1.0, -2.0, 3.0]), np.array([1.0, 2.0, 3.0])
    found = agreement(mean, truth, 8, spread=0.0)
    assert found.value == 2 / 3 and found.shares.unknown == 0.0


def test_noise_pulls_it_to_one_half_less_than_hard_signs():
    mean, truth = planted(1.0, 2000)
    mean, truth = 0.2 * mean, 0.2 * truth  # about 1.6 standard errors at N = 64
    rng = np.random.default_rng(1)
    G, T = (m + rng.normal(size=(64, len(m))) for m in (mean, truth))
    hard = (np.sign(G.mean(0)) == np.sign(T.mean(0))).mean()
    found = sign_agreement(soft_signs(G, np.ones(64)), soft_signs(T, np.ones(64))).value
    assert 1 - found < 0.6 * (1 - hard)


def test_left_out_values_are_recomputations_to_first_order():
    mean, truth = planted(0.6, 50)
    rng, n = np.random.default_rng(2), 200
    G, T = (m + rng.normal(size=(n, 50)) for m in (mean, truth))
    found = sign_agreement(soft_signs(G, np.ones(n)), soft_signs(T, np.ones(n)))
    for k in range(3):
        kept = np.arange(n) != k
        again = sign_agreement(*(soft_signs(X[kept], np.ones(n - 1)) for X in (G, T)))
        assert abs(found.left_out[k] - again.value) < 2e-3


def test_the_interval_holds_the_share_and_admits_what_is_not_known():
    mean, truth = planted(0.7, 40)
    hits = []
    for seed in range(100):
        found = interval("sign_agreement", agreement(0.2 * mean, 0.2 * truth, 64, seed))
        hits.append(found.low <= 0.7 <= found.high)
    assert np.mean(hits) >= 0.9
    assert "not known" in found.method
    assert agreement(0.2 * mean, 0.2 * truth, 64).shares.unknown > 0.1


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
