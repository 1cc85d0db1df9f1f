"""Signal and noise from successive gradients, against draws whose signal is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gradlab.statistics.successive import Signal, pooled, signal

D, PAIRS, TRIALS = 40, 32, 1000


def draws(size: float, seed: int) -> NDArray[np.float64]:
    """Gradients [TRIALS, PAIRS + 1, D] with |μ|² = size² and covariance of trace D."""
    generator = np.random.default_rng(seed)
    mu = np.zeros(D)
    mu[0] = size
    return generator.standard_normal((TRIALS, PAIRS + 1, D)) + mu


def found(g: NDArray[np.float64]) -> Signal:
    return signal((g[:-1] * g[1:]).sum(1), (g**2).sum(1))


@pytest.mark.parametrize("size", [0.0, 1.0, 4.0])
def test_products_of_successive_gradients_estimate_the_squared_mean(size):
    each = [found(g) for g in draws(size, 0)]
    centre = np.array([x.signal for x in each])
    energy = np.array([x.energy for x in each])
    assert abs(centre.mean() - size**2) < 4 * centre.std() / TRIALS**0.5
    assert abs(energy.mean() - (size**2 + D)) < 4 * energy.std() / TRIALS**0.5


@pytest.mark.parametrize("size", [0.0, 1.0, 4.0])
def test_the_share_of_the_signal_is_covered_by_its_error(size):
    true = size**2 / (size**2 + D)
    each = [found(g) for g in draws(size, 1)]
    inside = np.mean([abs(x.share - true) < 1.96 * x.se for x in each])
    assert 0.9 <= inside <= 0.98


def test_without_a_signal_z_is_standard_normal():
    z = np.array([found(g).z for g in draws(0.0, 2)])
    assert abs(z.mean()) < 0.12 and 0.9 < z.std() < 1.1
    assert 0.02 < (abs(z) > 1.96).mean() < 0.08


def test_snr_and_noise_scale_are_those_of_one_batch():
    each = pooled([found(g) for g in draws(4.0, 3)])
    assert each.snr == pytest.approx(16 / D, rel=0.02)
    assert each.noise_scale == pytest.approx(D / 16, rel=0.02)
    assert each.cosine == pytest.approx((16 / (16 + D)) ** 0.5, rel=0.02)


def test_pooled_bursts_have_the_error_of_all_of_them():
    each = [found(g) for g in draws(1.0, 4)]
    spread = np.std([x.share for x in each])
    together = pooled(each)
    assert together.pairs == PAIRS * TRIALS
    assert together.se == pytest.approx(spread / TRIALS**0.5, rel=0.15)


def test_a_gradient_of_zero_has_no_signal_and_no_error():
    one = signal(np.zeros(8), np.zeros(9))
    assert one.share == 0 and np.isnan(one.se) and one.z == 0
