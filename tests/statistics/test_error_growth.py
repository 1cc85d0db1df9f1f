import numpy as np
import pytest

from gradlab.errors import InputError
from gradlab.statistics.growth import error_growth, variance_growth

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
