"""Intervals at N = 64 where standard errors are themselves badly known."""

import numpy as np
import pytest
from scipy import stats

from analyses.coverage import quadratic_gradients as lq
from analyses.coverage.cells import HORIZONS, UNSTABLE
from analyses.coverage.synthetic import drawn_batch_cosine, moments
from gradlab.statistics.growth import variance_growth
from gradlab.statistics.intervals import freedom, interval, jackknife_se
from gradlab.statistics.moments import Estimate, estimates

N, REPETITIONS = 64, 200
SAMPLING = 2 * (0.05 * 0.95 / REPETITIONS) ** 0.5  # two standard errors of a coverage of 95%


def test_degrees_of_freedom_are_those_of_the_squares_of_what_was_drawn():
    # Var s² of G draws is σ⁴ (κ − 1)/G: of a uniform κ = 9/5, of an exponential 9.
    rng = np.random.default_rng(0)
    for draw, kurtosis in ((rng.uniform, 1.8), (rng.exponential, 9.0)):
        found = np.median([freedom(draw(size=400)) for _ in range(200)])
        assert found == pytest.approx(min(2 * 400 / (kurtosis - 1), 399), rel=0.25)
    assert freedom(np.full(10, 3.0)) == 9


def test_the_mean_of_heavy_tails_is_covered_more_often_with_the_freedom_that_they_leave():
    rng, plain, freed = np.random.default_rng(1), 0, 0
    for _ in range(600):
        x = stats.lognorm.rvs(1.0, size=N, random_state=rng) * rng.choice([-1.0, 1.0], size=N)
        left_out = (x.sum() - x) / (N - 1)
        reach = abs(x.mean()) / jackknife_se(left_out)
        plain += reach < stats.t.ppf(0.975, N - 1)
        freed += reach < stats.t.ppf(0.975, freedom(left_out))
    assert freed >= 0.94 * 600 - 2 * (0.05 * 0.95 * 600) ** 0.5
    assert freed > plain


@pytest.mark.parametrize("world", [lq.WORLDS[1], lq.WORLDS[2]], ids=lambda world: world.name)
def test_the_cosine_of_a_batch_is_covered(world):
    M = lq.action_gradients(world)
    m, truth = M["model 5"], M["truth"]
    many = lq.drawn(world, {"G": m}, 100_000, np.random.default_rng(1))["G"]
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(many.T)))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    known = drawn_batch_cosine(lq.mean_of(world, m), lq.mean_of(world, truth), root, N)
    rng, hits = np.random.default_rng(2), 0
    for _ in range(REPETITIONS):
        data = lq.drawn(world, {"G": m, "T": truth}, N, rng)
        found = interval(
            "cosine_batch", estimates(moments(data["G"], data["T"]), N)["cosine_batch"]
        )
        hits += found.low <= known <= found.high
    assert hits / REPETITIONS >= 0.93 - SAMPLING


def test_the_rate_of_growth_is_covered():
    M = lq.action_gradients(UNSTABLE, tuple(int(h) for h in HORIZONS))
    models = {name: m for name, m in M.items() if name.startswith("model")}
    exact = np.log([lq.trace_of(UNSTABLE, m) for m in models.values()])
    rng, hits, repetitions = np.random.default_rng(3), 0, 80
    for _ in range(repetitions):
        variances = [variance(G) for G in lq.drawn(UNSTABLE, models, N, rng).values()]
        found = variance_growth(
            HORIZONS,
            np.array([each.value for each in variances]),
            np.stack([each.left_out for each in variances]),
        )
        stretch = slice(found.onset - 1, found.last)
        slope = np.polyfit(HORIZONS[stretch], exact[stretch], 1)[0]
        hits += found.low <= slope <= found.high
    assert hits / repetitions >= 0.93 - 2 * (0.05 * 0.95 / repetitions) ** 0.5


def variance(G):
    """tr Cov of gradients [N, d] with each sample left out, from its definition."""
    n, sums, squares = len(G), G.sum(axis=0), (G**2).sum(axis=1)
    whole = (squares.sum() - sums @ sums / n) / (n - 1)
    left = sums - G
    rest = (squares.sum() - squares - (left**2).sum(axis=1) / (n - 1)) / (n - 2)
    return Estimate(float(whole), rest)
