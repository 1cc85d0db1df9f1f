"""Moments and inner products of gradients that are never formed are those of formed ones.

Kernels give the inner products of explicit per-sample gradients, for every kind and grouping.
"""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.setting import Setting, Starts
from gradlab.gradients.start_laws import repeated, visits
from gradlab.measurement import accumulator, grams
from gradlab.measurement import resolve as memory
from gradlab.measurement.accumulator import accumulated
from gradlab.measurement.grams import TermCache, TermSource
from gradlab.measurement.inner_products import estimator_moments
from gradlab.measurement.visited import (
    SAMPLES,
    objective_moments,
    steps_beside,
    visited,
)
from gradlab.networks.mlp import QCritic
from gradlab.networks.policies import Gaussian
from gradlab.statistics.grams import error_matrix, mixture_moments
from gradlab.statistics.moments import PairSums, estimates
from gradlab.truth.truth import matched_truth
from tests.gradients.worlds import Critic, nonlinear
from tests.planted_moments import explicit_grams

N, H, GAMMA = 14, 3, 0.8
PARAMETERS = 32
ALONE = torch.arange(N).roll(5).flip(0)  # labels in no order
APART = torch.tensor([4, 7, 7, 4, 9, 1, 1, 1, 2, 3, 9, 5, 6, 8])  # in any order, sizes 1 to 3


def at_visits(setting, horizon):
    """Visited states of so many steps, and a path of their own from them."""
    at = visits(dataclasses.replace(setting, horizon=horizon), SAMPLES)
    path = dataclasses.replace(repeated(at.states, 1), weight=at.weight, group=at.group)
    return at, path


class World:
    """A simulator, a wrong model, a stochastic policy and a critic that knows nothing."""

    def __init__(self, group):
        torch.manual_seed(0)
        self.simulator, self.model = nonlinear(), nonlinear(0.7)
        body = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2))
        self.policy = Gaussian(body, 2).double()
        states = torch.randn(N, 2, generator=torch.Generator().manual_seed(1)).double()
        weight = torch.linspace(0.5, 2.0, N).double()
        self.starts = Starts(states, weight, group)
        self.setting = Setting(self.simulator, self.policy, self.starts, GAMMA, H)
        self.path = dataclasses.replace(repeated(states, 1), weight=weight, group=group)
        tail = gradlab.Tail(H, Critic(4), GAMMA)
        sim, model = self.simulator, self.model
        self.first = {
            "data": gradlab.Estimator(sim, None, "first", dataclasses.replace(tail, horizon=0)),
            "model": gradlab.Estimator(model, model, "first", tail),
            "mixed": gradlab.Estimator(sim, model, "first", tail),
        }
        self.every = {
            "all": gradlab.Estimator(model, model, "all", tail),
            "score": gradlab.Estimator(sim, None, "score", tail),
        }

    def truth(self, kinds):
        found = matched_truth(self.setting, kinds=kinds)
        assert found.admissible
        return found

    def gradients(self, name, horizon, path=None):
        """Per-sample gradients by the estimator's own door."""
        each = (self.first | self.every)[name]
        each = dataclasses.replace(each, tail=dataclasses.replace(each.tail, horizon=horizon))
        if horizon == 0:
            each = dataclasses.replace(each, jacobians=None)
        return each.gradients(self.policy, self.path if path is None else path)

    def measured(self, truth):
        chosen = self.first | self.every
        return estimator_moments(chosen, self.setting, truth)


NAMES = ("size", "own", "within", "total")


def assert_same(found, want):
    for name in NAMES:
        ours, theirs = getattr(found, name), getattr(want, name)
        size = np.abs(theirs).max(axis=tuple(range(theirs.ndim - 2)), keepdims=True)
        assert (np.abs(ours - theirs) <= 1e-12 * size).all(), name
    np.testing.assert_array_equal(found.fold, want.fold)


@pytest.mark.parametrize("group", [ALONE, APART], ids=["alone", "groups"])
@pytest.mark.parametrize("many", [False, True], ids=["whole", "blocks"])
def test_kernels_hold_the_inner_products_of_explicit_gradients(group, many, monkeypatch):
    if many:
        monkeypatch.setattr(grams, "SAMPLES", 5)
        monkeypatch.setattr(grams, "BYTES", 1.0)  # one row of a weight at a time
    world = World(group)
    truth = world.truth(("first", "all"))
    first, every = world.measured(truth).kernels
    noise = world.starts.policy_noise(world.policy, 0, 0)
    J = policy_jacobian(world.policy, world.starts.states, noise)
    weighted = truth.first.gradients * world.starts.weight[:, None]
    ends = {"first": J.gradients(weighted[None]), "all": truth.every.gradients}
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
    monkeypatch.setattr(accumulator, "SAMPLES", 5)
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


S = 3


@pytest.fixture(scope="module")
def world_alone():
    return World(torch.arange(N))


@pytest.fixture(scope="module")
def found(world_alone):
    truth = world_alone.truth(("all",))
    chosen = world_alone.first | world_alone.every
    return truth, objective_moments(chosen, world_alone.setting, truth, samples=S)


def formed(world, truth):
    """Gradients of every cell [N, visits, P], weights included, by the estimators' own door."""
    at = visited(world.setting, steps_beside(world.setting, truth), S)
    there = dataclasses.replace(repeated(at.states, 1), weight=at.weight, group=at.group)
    sums = {}
    for name in world.first | world.every:
        path = there if name in world.first else None
        for n in range(int(name == "score"), 1 if name == "data" else H + 1):
            sums[name, n] = world.gradients(name, n, path).reshape(N, -1, PARAMETERS).numpy()
    return sums


def pairs(X):
    """|E x|² of sums over independent groups [G, P], each counted once."""
    whole, n = X.sum(axis=0), len(X)
    return (whole @ whole - (X**2).sum()) / (n * (n - 1))


def test_every_quantity_is_that_of_the_formed_gradients(world_alone, found):
    truth, measured = found
    T = truth.every.gradients.numpy()
    for key, G in formed(world_alone, truth).items():
        X, ours = G.mean(axis=1), estimates(measured.cells[key], batch=8)
        second = (G**2).sum(axis=2).mean()
        square, bias2 = pairs(X), pairs(X - T)
        assert ours["bias2"].value == pytest.approx(bias2, rel=1e-9, abs=1e-12 * second), key
        assert ours["variance"].value == pytest.approx(second - square, rel=1e-9), key
        assert ours["mse"].value == pytest.approx(bias2 + (second - square) / 8, rel=1e-9), key
        cross = (pairs(X + T) - pairs(X - T)) / 4
        if square > 0:
            cosine = cross / np.sqrt(square * pairs(T))
            assert ours["gain"].value == pytest.approx(cosine, rel=1e-8), key
            snr = square / (second - square)
            assert ours["snr"].value == pytest.approx(snr, rel=1e-8), key
        np.testing.assert_allclose(measured.means[key].numpy(), X.mean(axis=0), rtol=1e-9)
        assert ours["cosine_batch"].left_out.shape == (N,)


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
    assert grams.folds_of(found[1].at)[1].tolist() == [k % 2 for k in range(N)]


@pytest.fixture
def small(monkeypatch):
    """As little memory as makes 60 starts too many."""
    monkeypatch.setattr(memory, "MEMORY", 2e4)
    monkeypatch.setattr(memory.machine, "memory", lambda: 0.0)


@pytest.mark.parametrize("starts", [60, 10**9])
def test_what_does_not_fit_is_refused_with_the_sizes_and_what_fits(small, starts):
    critic = QCritic(2, 1, hidden=(4,))
    task = gradlab.tasks.double_integrator()
    with pytest.raises(
        InputError,
        match=r"(?s)MB of each.*GB.*about \d+ starts fit.*shorter horizon or a smaller policy",
    ):
        gradlab.measure(task, nn.Linear(2, 1).double(), critic, horizon=2, starts=starts)


# Moments from kernels over steps are those of explicit gradients, sample by sample.


ARRAYS = ("size", "squares")
PAIRS = ("gradient", "truth", "difference", "cross")


def both_ways(monkeypatch, measured):
    """Cells with explicit gradients, and without."""
    found = []
    for most in (np.inf, 0):
        monkeypatch.setattr(accumulator, "WIDE", most)
        monkeypatch.setattr(accumulator, "SAMPLES", 5)
        found.append(measured())
    return found


def assert_same_cells(one, other):
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
    assert_same_cells(*both_ways(monkeypatch, lambda: world.measured(truth)))


def test_the_same_under_one_truth(monkeypatch):
    world = World(ALONE)
    truth = world.truth(("all",))
    chosen = world.first | world.every
    assert_same_cells(
        *both_ways(monkeypatch, lambda: objective_moments(chosen, world.setting, truth))
    )


def test_a_gradient_that_is_the_truth_keeps_its_digits(monkeypatch):
    """|G − T|² of an estimator that is the truth itself is 0, not what rounding leaves of it."""
    world = World(ALONE)
    truth = matched_truth(world.setting, kinds=("all",))
    T, n = truth.every.gradients, truth.horizon
    sim = world.simulator
    same = gradlab.Estimator(sim, sim, "all", gradlab.Tail(n, None, GAMMA))
    cache = TermCache(world.setting, 1)
    monkeypatch.setattr(accumulator, "WIDE", 0)
    for times, exactly in ((1.0, True), (1.1, False)):
        source = TermSource((("same", n),), lambda rows: [cache.rows(same, rows).some([n - 1])])
        cells, _ = accumulated(source, world.policy, world.starts, (times * T).__getitem__)
        own = cells[0].difference.own
        if exactly:
            assert (own <= 1e-28 * cells[0].squares).all()
        else:
            np.testing.assert_allclose(own, 0.01 * cells[0].squares, rtol=1e-9)


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
    monkeypatch.setattr("gradlab.gradients.trajectory.linearize_path", None)  # none may be taken
    found = objective_moments(chosen, world.setting, truth)
    assert_same_cells(found, alone)
