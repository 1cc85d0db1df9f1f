"""The generalised Pareto shape of tails that are known."""

import numpy as np
import pytest
from scipy import stats

from gradlab.statistics.tails import shape, tail_shape


@pytest.mark.parametrize("k", [-0.5, 0.0, 0.2, 0.5, 1.0])
def test_excesses_of_a_generalised_pareto_law_have_its_shape(k):
    found = [
        shape(np.sort(stats.genpareto.rvs(k, size=1000, random_state=seed))) for seed in range(20)
    ]
    assert np.mean(found) == pytest.approx(k, abs=3 * (1 + k) / (1000 * 20) ** 0.5 + 0.01)


def test_tails_of_known_laws():
    rng, n = np.random.default_rng(0), 1 << 16
    assert abs(tail_shape(np.abs(rng.normal(size=n)))) < 0.2
    assert tail_shape(np.abs(rng.standard_t(4.5, size=n))) == pytest.approx(1 / 4.5, abs=0.1)
    assert tail_shape(rng.uniform(size=n)) == pytest.approx(-1.0, abs=0.15)
    x = np.abs(rng.standard_t(3, size=n))
    assert tail_shape(5 * x) == pytest.approx(tail_shape(x), rel=1e-9)


def test_the_same_as_by_likelihood():
    excess = np.sort(stats.genpareto.rvs(0.3, scale=2.0, size=4000, random_state=1))
    by_likelihood = stats.genpareto.fit(excess, floc=0)[0]
    assert shape(excess) == pytest.approx(by_likelihood, abs=0.02)


def test_what_does_not_vary_has_no_tail():
    assert np.isnan(tail_shape(np.ones(100))) and np.isnan(shape(np.zeros(10)))
