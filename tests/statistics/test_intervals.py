"""Intervals cover what they say they cover."""

import numpy as np
import pytest

from analyses.coverage import quadratic_gradients as lq
from analyses.coverage.synthetic import moments, planted
from gradlab.statistics.intervals import interval
from gradlab.statistics.moments import Estimate, estimates
from gradlab.statistics.quantities import QUANTITIES

CELLS = [(0.0, 1.0), (1.0, 1.0), (30.0, 1.0), (1.0, 0.3)]


def coverage(n, tails, repetitions, seed=0):
    """Share of intervals that hold the known value, per quantity and cell."""
    rng, hits = np.random.default_rng(seed), {}
    for ratio, size in CELLS:
        for _ in range(repetitions):
            data = planted(rng, n, ratio=ratio, size=size, tails=tails)
            for name, estimate in estimates(moments(data.G, data.T), batch=n).items():
                if name not in data.known:
                    continue
                found = interval(name, estimate)
                inside = found.low <= data.known[name] <= found.high
                hits.setdefault((name, ratio, size), []).append(inside)
    return {cell: float(np.mean(each)) for cell, each in hits.items()}


@pytest.mark.slow
def test_intervals_cover_light_tails():
    found = coverage(64, "gaussian", 250)
    assert min(found.values()) > 0.88  # 95% nominal less 4 standard errors of 250 repetitions
    for name in ("bias2", "variance", "mse"):
        assert np.mean([c for (n, *_), c in found.items() if n == name]) > 0.92


@pytest.mark.slow
@pytest.mark.parametrize(("tails", "floor"), [("gaussian", 0.92), ("t4.5", 0.86)])
@pytest.mark.parametrize("n", [64, 256])
def test_intervals_cover_in_every_cell(n, tails, floor):
    for cell, share in coverage(n, tails, 2000).items():
        if cell[0] in ("bias2", "variance", "mse"):
            assert share >= floor, cell


def test_ends_are_ordered_and_clipped():
    rng = np.random.default_rng(1)
    for _ in range(50):
        data = planted(rng, 16, ratio=0.0, size=0.2)
        for name, estimate in estimates(moments(data.G, data.T), batch=16).items():
            found = interval(name, estimate)
            assert found.low <= found.high or np.isnan(found.low)
            lowest, highest = QUANTITIES[name].range
            assert np.isnan(found.low) or lowest <= found.low
            assert np.isnan(found.high) or found.high <= highest


def test_a_norm_whose_square_is_estimated_below_zero_is_not_known_to_be_zero():
    rng, hits, below = np.random.default_rng(5), [], 0
    for _ in range(400):
        data = planted(rng, 64, ratio=0.0, size=0.1)  # |mean|² = 0.64 of the noise of the mean
        norm = estimates(moments(data.G), batch=64)["mean_norm"]
        found = interval("mean_norm", norm)
        below += norm.value == 0
        hits.append(found.low <= data.known["mean_norm"] <= found.high)
    assert below > 40
    assert np.mean(hits) > 0.9


def test_a_cosine_lost_in_noise_is_anything():
    lost = Estimate(float("nan"), np.full(8, np.nan))
    found = interval("cosine", lost)
    assert (found.low, found.high) == (-1.0, 1.0)
    assert "noise" in found.method


def test_cosines_of_products_of_states_are_covered_and_missed_on_either_side():
    """Gradients (M z) s₀ᵀ of a linear-quadratic world: where the gap is small, so is its error."""
    rng = np.random.default_rng(0)
    A, B = rng.normal(size=(3, 3)), 0.5 * rng.normal(size=(3, 2))
    A *= 0.8 / np.abs(np.linalg.eigvals(A)).max()
    prior = A + 0.2 * rng.normal(size=(3, 3)), B + 0.2 * rng.normal(size=(3, 2))
    world = lq.World("", A, B, *prior, 0.1 * rng.normal(size=(2, 3)), noise=0.1, steps=20)
    M = lq.action_gradients(world, (1, 5))
    true, missed = lq.mean_of(world, M["truth"]), []
    for k, name in enumerate(("data", "model 1", "mixed 1", "model 5")):
        mean, rng = lq.mean_of(world, M[name]), np.random.default_rng(k)
        known = mean @ true / np.linalg.norm(mean) / np.linalg.norm(true)
        assert 0.5 < abs(known) < 0.98
        for _ in range(200):
            data = lq.drawn(world, {"G": M[name], "T": M["truth"]}, 64, rng)
            found = interval("gain", estimates(moments(data["G"], data["T"]), 64)["gain"])
            better, worse = found.low > known, found.high < known
            missed.append((better, worse) if known > 0 else (worse, better))
    too_good, too_bad = np.mean(missed, axis=0)
    assert too_good + too_bad < 0.056  # 800 repetitions: 0.05 and 0.8 standard errors
    assert 0 < too_bad < 0.035
    assert 0 < too_good < 0.045


@pytest.mark.parametrize("side", [-1, 1])
def test_the_sign_of_a_cosine_is_known_where_its_size_is_lost(side):
    """|E G|² as large as the noise of the mean, along a truth: one direction of many is enough."""
    rng, known, decided, lost = np.random.default_rng(4), [], [], 0
    for _ in range(300):
        T = np.zeros((64, 24))
        T[:, 0] = 3 + rng.normal(size=64)
        G = rng.normal(size=(64, 24)) + side * (24 / 64) ** 0.5 * np.eye(24)[0]
        cosine = estimates(moments(G, T), 64)["cosine"]
        found = interval("cosine", cosine)
        lost += np.isnan(found.se)
        known.append(found.low <= side <= found.high)
        decided.append(side * (found.low + found.high) > 0 and found.low * found.high > 0)
    assert lost > 0
    assert np.mean(known) > 0.95
    assert np.mean(decided) > 0.9
