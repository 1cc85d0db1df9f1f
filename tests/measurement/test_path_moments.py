"""Moments from kernels over steps are those of explicit gradients, sample by sample."""

import dataclasses

import numpy as np
import pytest
import torch

import gradlab
from gradlab.measurement.moments import inner_products
from gradlab.measurement.moments.along_paths import path_moments
from gradlab.measurement.moments.grams import Held
from gradlab.measurement.moments.visited import objective_moments
from gradlab.statistics.moments import PairSums
from gradlab.truth.truth import matched_truth
from tests.measurement.gram_world import ALONE, APART, GAMMA, H, World

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
    monkeypatch.setattr("gradlab.measurement.moments.grams.BYTES", 0.0)
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
