"""Kernels give the inner products of explicit per-sample gradients, for every kind and grouping."""

import dataclasses

import numpy as np
import pytest
import torch

from analyses.coverage.synthetic import explicit_grams
from gradlab.errors import InputError
from gradlab.gradients import gram
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.measurement.moments import grams
from gradlab.measurement.moments import inner_products as explicit
from gradlab.measurement.moments.inner_products import estimator_moments
from gradlab.measurement.moments.visited import SAMPLES, objective_moments
from gradlab.statistics.grams import mixture_moments
from gradlab.statistics.moments import estimates
from tests.measurement.gram_world import ALONE, APART, World, at_visits

NAMES = ("size", "own", "within", "total")


def assert_same(found, want):
    for name in NAMES:
        ours, theirs = getattr(found, name), getattr(want, name)
        size = np.abs(theirs).max(axis=tuple(range(theirs.ndim - 2)), keepdims=True)
        assert (np.abs(ours - theirs) <= 1e-12 * size).all(), name
    np.testing.assert_array_equal(found.fold, want.fold)


@pytest.mark.parametrize("group", [ALONE, APART], ids=["alone", "groups"])
@pytest.mark.parametrize("many", [False, True], ids=["kernel", "sums"])
def test_kernels_hold_the_inner_products_of_explicit_gradients(group, many, monkeypatch):
    if many:
        monkeypatch.setattr(gram, "KERNEL", 0)
        monkeypatch.setattr(grams, "SAMPLES", 5)
        monkeypatch.setattr(grams, "BYTES", 1.0)  # one row of a weight at a time
    world = World(group)
    truth = world.truth(("first", "all"))
    first, every = world.measured(truth).kernels
    noise = world.starts.policy_noise(world.policy, 0, 0)
    J = policy_jacobian(world.policy, world.starts.states, noise)
    weighted = truth.first.gradients * world.starts.weight[:, None]
    ends = {"first": gram.path_gradients(J, weighted[None]), "all": truth.every.gradients}
    assert first.cells[0] == ("data", 0)
    assert {name for name, _ in every.cells} == {"all", "score"}
    for each in (first, every):
        X = [world.gradients(*cell) for cell in each.cells]
        want = explicit_grams(torch.stack([*X, ends[each.kind]], dim=1).numpy(), group.numpy())
        assert_same(each.grams(each.cells), want)
    some = [("mixed", 2), ("data", 0)]
    X = torch.stack([world.gradients(*cell) for cell in (*some, ("model", 3))], dim=1)
    assert_same(first.grams(some, truth=("model", 3)), explicit_grams(X.numpy(), group.numpy()))


@pytest.mark.parametrize("group", [ALONE, APART], ids=["alone", "groups"])
def test_means_are_those_of_the_explicit_gradients(group, monkeypatch):
    monkeypatch.setattr(explicit, "SAMPLES", 5)
    world = World(group)
    truth = world.truth(("first", "all"))
    found = world.measured(truth)
    assert list(found.means) == list(found.cells)
    for cell, mean in found.means.items():
        torch.testing.assert_close(mean, world.gradients(*cell).mean(dim=0), rtol=0, atol=1e-13)
    assert torch.equal(found.truth_mean, truth.every.gradients.mean(dim=0))


def test_means_under_one_truth_are_taken_where_the_gradients_are():
    world = World(APART)
    truth = world.truth(("all",))
    found = objective_moments(world.first | world.every, world.setting, truth)
    _, path = at_visits(world.setting, truth.horizon)
    assert list(found.means) == list(found.cells)
    for cell, mean in found.means.items():
        want = world.gradients(*cell, path if cell[0] in world.first else None).mean(dim=0)
        torch.testing.assert_close(mean, want, rtol=0, atol=1e-12)
    assert torch.equal(found.truth_mean, truth.every.gradients.mean(dim=0))


@pytest.mark.parametrize("group", [ALONE, APART], ids=["alone", "groups"])
def test_under_one_truth_all_kinds_share_their_inner_products(group, monkeypatch):
    monkeypatch.setattr(grams, "SAMPLES", 5)
    world = World(group)
    truth = world.truth(("all",))
    chosen = world.every | world.first
    (found,) = objective_moments(chosen, world.setting, truth).kernels
    assert found.kind == "objective"
    at, path = at_visits(world.setting, truth.horizon)

    def each_visit(name, n):
        if name in world.first:
            return world.gradients(name, n, path)
        return world.gradients(name, n).repeat_interleave(SAMPLES, dim=0)

    T = truth.every.gradients.repeat_interleave(SAMPLES, dim=0)
    X = torch.stack([*(each_visit(*cell) for cell in found.cells), T], dim=1)
    assert_same(found.grams(found.cells), explicit_grams(X.numpy(), at.group.numpy()))


def test_a_single_cell_has_the_moments_that_were_measured():
    world = World(APART)
    truth = world.truth(("first", "all"))
    measured = estimator_moments(world.first | world.every, world.setting, truth)
    for kernel in measured.kernels:
        for cell in kernel.cells:
            ours = estimates(mixture_moments(kernel.grams([cell]), np.ones(1)), 64)
            theirs = estimates(measured.cells[cell], 64)
            for name, each in ours.items():
                assert each.value == pytest.approx(theirs[name].value, rel=1e-9, nan_ok=True)


def test_without_a_truth_another_cell_takes_its_place():
    world = World(ALONE)
    none = dataclasses.replace(world.truth(("first", "all")), first=None, every=None)
    first, every = world.measured(none).kernels
    for each in (first, every):
        assert not each.truth
        with pytest.raises(InputError, match="no truth"):
            each.grams(each.cells[:2])
        X = [world.gradients(*cell) for cell in each.cells[:3]]
        want = explicit_grams(torch.stack(X, dim=1).numpy(), ALONE.numpy())
        assert_same(each.grams(each.cells[:2], truth=each.cells[2]), want)
    with pytest.raises(InputError, match="have no kernel of kind 'first'"):
        first.grams([("all", 0)], truth=first.cells[0])
