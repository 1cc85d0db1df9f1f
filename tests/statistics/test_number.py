"""Numbers decide what their intervals exclude, and say how many samples would exclude the rest."""

import numpy as np
import pytest
from scipy import stats

from analyses.coverage.synthetic import moments
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import estimates
from gradlab.statistics.number import Number, decide

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
