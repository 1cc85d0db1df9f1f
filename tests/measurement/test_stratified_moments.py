"""Moments of stratified starts, by every way of making them, against gradients that are formed."""

import dataclasses

import numpy as np
import pytest
import torch

import gradlab
from gradlab.gradients.setting import Starts
from gradlab.measurement import grams, inner_products
from gradlab.measurement.by_blocks import path_sums, visit_sums
from gradlab.measurement.grams import Held
from gradlab.measurement.sketches import path_moments
from gradlab.measurement.visited import (
    gradients_at,
    objective_moments,
    steps_beside,
    visited,
)
from gradlab.statistics.grams import error_matrix
from gradlab.statistics.moments import PairSums, Strata, estimates
from gradlab.truth.agreement import precision_of
from gradlab.truth.truth import matched_truth
from tests.measurement.gram_world import ALONE, APART, GAMMA, H, World

N, S = 14, 3
LABEL = np.array([0, 1, 0, 0, 1, 0, 2, 0, 1, 2, 0, 1, 2, 2])
STRATA = Strata(LABEL, np.array([0.7, 0.25, 0.05]) * N / np.array([6, 4, 4]), 300)


@pytest.fixture(scope="module")
def world():
    made = World(torch.arange(N))
    weight = torch.from_numpy(STRATA.weight)
    made.starts = Starts(made.starts.states, weight, torch.arange(N), strata=STRATA)
    made.setting = dataclasses.replace(made.setting, starts=made.starts)
    return made


@pytest.fixture(scope="module")
def found(world):
    truth = world.truth(("all",))
    chosen = world.first | world.every
    return truth, objective_moments(chosen, world.setting, truth, samples=S)


def formed(world, truth):
    """X_g of every cell and Σ |G_i|² of each group, weights included, and how often each counts."""
    sums = {}
    label = torch.arange(N)
    held = Held(world.setting, 2)
    for name, estimator in world.every.items():
        horizons = tuple(range(int(name == "score"), H + 1))
        X, squares = path_sums(held.rows(estimator, slice(0, N), horizons), label)
        sums |= {(name, n): (X[:, k], squares[k], 1) for k, n in enumerate(horizons)}
    at = visited(world.setting, steps_beside(world.setting, truth), S)
    there = gradients_at(world.first, world.setting, at)
    X, squares = visit_sums(there, label, S)
    return sums | {key: (X[:, k], squares[k], S) for k, key in enumerate(there.keys)}


def stratified(X):
    """|E x|² of weighted sums [G, P], by the formula of the strata; each group counts once."""
    c, n, N_, pilot = STRATA.times, STRATA.count, len(X), STRATA.pilot
    W = c * n / N_
    z = X / STRATA.weight[:, None]
    mean = np.array([z[h == LABEL].mean(axis=0) for h in range(3)])
    spread = np.array([z[h == LABEL].var(axis=0, ddof=1).sum() for h in range(3)])
    d = 1 / n - 1 / (W * pilot)
    alpha = (W * d * (pilot * W - 1) + W - 1 / pilot) / (pilot - 1)
    whole = W @ mean
    error = alpha @ spread + W @ ((mean - whole) ** 2).sum(axis=1) / (pilot - 1)
    return whole @ whole - error


def test_every_quantity_is_that_of_the_strata(world, found):
    truth, measured = found
    T = truth.every.gradients.numpy()
    for key, (X, squares, count) in formed(world, truth).items():
        X, ours = X.numpy() / count, estimates(measured.cells[key], batch=8)
        second = (squares / STRATA.weight).sum() / N / count
        square, bias2 = stratified(X), stratified(X - T)
        assert ours["bias2"].value == pytest.approx(bias2, rel=1e-9, abs=1e-12 * second), key
        assert ours["variance"].value == pytest.approx(second - square, rel=1e-9), key
        assert ours["mse"].value == pytest.approx(bias2 + (second - square) / 8, rel=1e-9), key
        cross = (stratified(X + T) - stratified(X - T)) / 4
        if square > 0:
            cosine = cross / np.sqrt(square * stratified(T))
            assert ours["gain"].value == pytest.approx(cosine, rel=1e-8), key
            snr = square / (second - square)
            assert ours["snr"].value == pytest.approx(snr, rel=1e-8), key
        np.testing.assert_allclose(measured.means[key].numpy(), X.mean(axis=0), rtol=1e-9)
        assert ours["cosine_batch"].left_out.shape == (N,)


def test_kernels_of_steps_give_the_same_moments(world, found, monkeypatch):
    truth, explicit = found
    monkeypatch.setattr(inner_products, "WIDE", 0)
    monkeypatch.setattr(inner_products, "SAMPLES", 5)
    chosen = world.every
    for known in (truth, dataclasses.replace(truth, every=None)):
        kernels = objective_moments(chosen, world.setting, known, samples=S)
        for key, ours in kernels.cells.items():
            theirs = estimates(explicit.cells[key], batch=8)
            for quantity, estimate in estimates(ours, batch=8).items():
                if quantity == "tail_index" and known is not truth:
                    continue  # the heavier one of gradient and error
                value = theirs[quantity].value
                assert estimate.value == pytest.approx(value, rel=1e-8, nan_ok=True), quantity
                np.testing.assert_allclose(
                    estimate.left_out, theirs[quantity].left_out, rtol=1e-6, atol=1e-12
                )


def test_the_variance_along_the_truth_counts_each_start_with_its_weight(world, found):
    """In one direction all noise lies along the truth: a large batch of it has cosine 1 there."""
    truth, measured = found
    T = truth.every.gradients.numpy().sum(axis=0)
    X = formed(world, truth)["all", 2][0].numpy()
    cell = measured.cells["all", 2]
    p = X @ T / STRATA.weight
    known = STRATA.exchangeable(STRATA.weight * p**2)
    np.testing.assert_allclose(STRATA.squared(cell.cross.left), known, rtol=1e-8)


def test_errors_of_pairs_of_cells_are_those_of_the_cells(found):
    """Grams keep folds apart: the diagonal differs by what one degree of freedom does."""
    _, measured = found
    kernels = measured.kernels[0]
    cells = [("model", H), ("all", H)]
    matrix = error_matrix(kernels.grams(cells), 8)
    for k, cell in enumerate(cells):
        mse = estimates(measured.cells[cell], 8)["mse"].value
        square = estimates(measured.cells[cell], 8)["variance"].value / N
        assert matrix.value[k, k] == pytest.approx(mse, abs=2 * square)
    halves = [STRATA.some(STRATA.rank % 2 == f) for f in range(2)]
    assert all(half.count.tolist() == [3, 2, 2] for half in halves)
    assert grams.folds_of(found[1].at)[1].tolist() == (STRATA.rank % 2).tolist()


def test_the_precision_of_a_truth_is_that_of_the_strata(world, found):
    T = found[0].every.gradients
    precision = precision_of(T, world.starts)
    mean = T.mean(dim=0).numpy()
    assert float(precision.error**2) == pytest.approx(mean @ mean - stratified(T.numpy()), rel=1e-9)
    assert found[0].every.standard_error == pytest.approx(float(precision.error))


# Moments from kernels over steps are those of explicit gradients, sample by sample.


ARRAYS = ("size", "squares")
PAIRS = ("gradient", "truth", "difference", "cross")


def both_ways(monkeypatch, measured):
    """Cells with explicit gradients, and without."""
    found = []
    for most in (np.inf, 0):
        monkeypatch.setattr(inner_products, "WIDE", most)
        monkeypatch.setattr(inner_products, "SAMPLES", 5)
        found.append(measured())
    return found


def assert_same(one, other):
    for cell, ours in one.cells.items():
        theirs = other.cells[cell]
        for name in ARRAYS:
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-11)
        for name in PAIRS:
            a, b = getattr(ours, name), getattr(theirs, name)
            assert (a is None) == (b is None), name
            for field in dataclasses.fields(PairSums) if a is not None else ():
                x, y = getattr(a, field.name), getattr(b, field.name)
                np.testing.assert_allclose(x, y, rtol=0, atol=1e-11 * np.abs(x).max())
        for name in ("tails", "signs"):
            a, b = getattr(ours, name), getattr(theirs, name)
            if a is not None:
                assert a.value == pytest.approx(b.value, rel=1e-9)
                np.testing.assert_allclose(a.left_out, b.left_out, rtol=1e-8)
        torch.testing.assert_close(one.means[cell], other.means[cell], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("group", [ALONE, APART, torch.arange(14)], ids=["alone", "groups", "rows"])
@pytest.mark.parametrize("known", [True, False], ids=["truth", "none"])
def test_kernels_of_steps_give_the_moments_of_explicit_gradients(group, known, monkeypatch):
    world = World(group)
    truth = world.truth(("first", "all"))
    if not known:
        truth = dataclasses.replace(truth, first=None, every=None)
    assert_same(*both_ways(monkeypatch, lambda: world.measured(truth)))


def test_the_same_under_one_truth(monkeypatch):
    world = World(ALONE)
    truth = world.truth(("all",))
    chosen = world.first | world.every
    assert_same(*both_ways(monkeypatch, lambda: objective_moments(chosen, world.setting, truth)))


def test_a_gradient_that_is_the_truth_keeps_its_digits():
    """|G − T|² of an estimator that is the truth itself is 0, not what rounding leaves of it."""
    world = World(ALONE)
    truth = matched_truth(world.setting, kinds=("all",))
    T, n = truth.every.gradients, truth.horizon
    sim = world.simulator
    same = gradlab.Estimator(sim, sim, "all", gradlab.Tail(n, None, GAMMA))
    held = Held(world.setting, 1)

    def rows(block):
        return held.rows(same, block, (n,))

    assert path_moments(rows, [slice(0, 14)], world.policy, world.starts, T) is None
    assert path_moments(rows, [slice(0, 14)], world.policy, world.starts, 1.1 * T) is not None


def test_what_is_held_is_what_is_made_again(monkeypatch):
    world = World(ALONE)
    truth = world.truth(("first", "all"))
    kept = world.measured(truth)
    monkeypatch.setattr("gradlab.measurement.grams.HELD", 0.0)
    again = world.measured(truth)
    for cell, ours in kept.cells.items():
        np.testing.assert_array_equal(ours.squares, again.cells[cell].squares)


def test_the_path_of_the_truth_is_not_made_again(monkeypatch):
    world = World(ALONE)
    truth = world.truth(("all",))
    sim = world.simulator
    chosen = {"all": gradlab.Estimator(sim, sim, "all", gradlab.Tail(H, None, GAMMA))}
    alone = objective_moments(chosen, world.setting, dataclasses.replace(truth, path=None))
    monkeypatch.setattr("gradlab.gradients.courses.linearize_path", None)  # none may be taken
    found = objective_moments(chosen, world.setting, truth)
    assert_same(found, alone)
