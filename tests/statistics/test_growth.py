"""Planted growth is found; none is not."""

import numpy as np
import pytest

from gradlab.statistics.growth import variance_growth

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
