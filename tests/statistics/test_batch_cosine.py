"""The expected cosine of one batch, against drawing batches."""

import numpy as np
import pytest

from analyses.coverage.synthetic import drawn_batch_cosine, moments, planted
from gradlab.statistics.moments import batch_cosine, estimates, expected_cosine


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
