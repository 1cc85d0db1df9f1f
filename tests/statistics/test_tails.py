"""The tail index tells heavy tails from light ones, whatever the dimension."""

import numpy as np
import pytest

from analyses.coverage.synthetic import planted, tails_of
from gradlab.statistics.tails import HEAVY, heavier, tail_index


def flagged(tails, n, repetitions=60):
    rng = np.random.default_rng(0)
    found = [tails_of(planted(rng, n, tails=tails).G, np.ones(n)) for _ in range(repetitions)]
    return np.mean([each.value > HEAVY for each in found])


@pytest.mark.parametrize("n", [64, 256, 1024])
def test_heavy_tails_are_flagged_and_gaussian_ones_are_not(n):
    assert flagged("gaussian", n) <= 0.02
    assert flagged("t4.5", n) >= 0.75
    assert flagged("lognormal", n) >= 0.85


def test_a_gaussian_of_one_dimension_is_not_heavy():
    rng = np.random.default_rng(1)
    found = [tail_index(rng.normal(size=(256, 1)), np.ones(256)).value for _ in range(200)]
    assert np.mean(np.array(found) > HEAVY) < 0.08
    assert np.mean(found) == pytest.approx(1.0, abs=0.03)


def test_it_is_the_known_kurtosis():
    rng = np.random.default_rng(2)
    exponential = rng.exponential(size=(400_000, 1))  # kurtosis 9
    assert tail_index(exponential, np.ones(len(exponential))).value == pytest.approx(3.0, rel=0.05)


def test_left_out_values_are_recomputations_and_groups_without_samples_change_nothing():
    x = np.random.default_rng(3).normal(size=(12, 4))
    size = np.r_[np.ones(10), 0, 0]
    x[10:] = 0
    found = tail_index(x, size)
    for k in range(10):
        kept = np.arange(12) != k
        assert found.left_out[k] == pytest.approx(tail_index(x[kept], size[kept]).value, rel=1e-9)
    assert (found.left_out[10:] == found.value).all()


def test_what_does_not_vary_has_no_index_and_yields_to_what_does():
    nothing = tail_index(np.ones((5, 2)), np.ones(5))
    some = tail_index(np.random.default_rng(4).normal(size=(5, 2)), np.ones(5))
    assert np.isnan(nothing.value)
    assert heavier(nothing, some) is some and heavier(some, nothing) is some
