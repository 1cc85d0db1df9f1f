"""A measurement in blocks of starts is the measurement of all starts at once.

Kernels give the inner products of explicit per-sample gradients, for every kind and grouping.
Moments of stratified starts, by every way of making them, against gradients that are formed, in a
small world whose gradients are taken together and apart.
"""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.gradients import gram
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.setting import Setting, Starts
from gradlab.gradients.start_laws import repeated, visits
from gradlab.measurement import by_blocks, grams, inner_products
from gradlab.measurement import inner_products as explicit
from gradlab.measurement import problem as memory
from gradlab.measurement.by_blocks import (
    STAGE,
    Division,
    blocked_moments,
    path_sums,
    visit_sums,
)
from gradlab.measurement.grams import Held
from gradlab.measurement.inner_products import WIDE, estimator_moments
from gradlab.measurement.problem import Given, problem
from gradlab.measurement.sketches import path_moments
from gradlab.measurement.visited import (
    SAMPLES,
    gradients_at,
    objective_moments,
    steps_beside,
    visited,
)
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import Gaussian
from gradlab.runs.realised import PATHWISE
from gradlab.statistics.grams import error_matrix, mixture_moments
from gradlab.statistics.moments import PairSums, Strata, estimates
from gradlab.tasks import linear_quadratic
from gradlab.truth.agreement import precision_of
from gradlab.truth.by_blocks import BlockedTruth, pilot_truth
from gradlab.truth.truth import matched_truth
from tests.gradients.worlds import Critic, nonlinear
from tests.measurement import jumping_worlds
from tests.planted_moments import explicit_grams

N, H, GAMMA = 14, 3, 0.8
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


STARTS, GROUP, BLOCK, HORIZON = 60, 8, 16, 3
ONE, EYE = torch.eye(1, dtype=torch.float64), torch.eye(2, dtype=torch.float64)


def world():
    """Two coordinates with process noise, and a prior that is wrong."""
    A = torch.tensor([[0.8, 0.2], [-0.1, 0.8]], dtype=torch.float64)
    B = torch.tensor([[0.1], [0.5]], dtype=torch.float64)
    return linear_quadratic(
        A=A, B=B, Q=EYE, R=ONE, noise_covariance=0.05 * EYE, start_mean=torch.ones(2).double(),
        start_covariance=0.5 * EYE, discount=0.9, prior=(0.9 * A, 1.2 * B),
    )  # fmt: skip


def narrow():
    """θ of a dozen, whose gradients are explicit, with noise of its own."""
    torch.manual_seed(0)
    return Gaussian(Policy(2, 1, hidden=(3,)), std=0.1)


def wide():
    """θ of thousands, whose gradients are kernels of their steps."""
    torch.manual_seed(0)
    policy = Policy(2, 1, hidden=(64, 64))
    assert sum(p.numel() for p in policy.parameters()) > WIDE
    return policy


POLICIES = {"narrow": narrow, "wide": wide}


def posed(policy):
    torch.manual_seed(1)
    critic = QCritic(2, 1, hidden=(4,))
    given = Given(world(), policy, critic, None, HORIZON, STARTS, 16, None, "ignore", None, 0)
    return problem(given)


def in_groups(setting):
    """The same starts with the groups' labels, which only statistics read."""
    starts = setting.starts
    return replace(setting, starts=replace(starts, group=torch.arange(len(starts.states)) // GROUP))


def close(one, other):
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12 * np.abs(other).max())


def check_equal(blocked, whole):
    assert list(blocked.cells) == list(whole.cells)
    for cell, expected in whole.cells.items():
        got = blocked.cells[cell]
        close(got.size, expected.size)
        close(got.squares, expected.squares)
        for pair in ("gradient", "truth", "difference", "cross"):
            if getattr(expected, pair) is None:
                assert getattr(got, pair) is None
                continue
            for side in ("own", "left", "right"):
                close(getattr(getattr(got, pair), side), getattr(getattr(expected, pair), side))
        close(got.tails.left_out, expected.tails.left_out)
        assert (got.signs is None) == (expected.signs is None)
        if expected.signs is not None:
            close(got.signs.left_out, expected.signs.left_out)
        close(blocked.means[cell], whole.means[cell])
    (one,), (other,) = blocked.kernels, whole.kernels
    assert (one.cells, one.truth) == (other.cells, other.truth)
    for name in ("size", "own", "within", "total", "fold"):
        close(getattr(one.products, name), getattr(other.products, name))


@pytest.mark.parametrize("kept", [0.0, 1e9], ids=["made again", "kept"])
@pytest.mark.parametrize("policy", POLICIES)
def test_moments_in_blocks_are_those_of_all_starts_at_once(policy, kept, monkeypatch):
    """Every pair sum, inner product, tail, sign and mean gradient, to rounding."""
    monkeypatch.setattr(by_blocks, "KEPT", kept)
    asked = posed(POLICIES[policy]())
    truth = matched_truth(asked.setting, kinds=["all"])
    assert truth.status == "converged"
    whole = objective_moments(asked.chosen, in_groups(asked.setting), truth)
    division = Division(STARTS, GROUP, BLOCK)
    same, blocked = blocked_moments(asked.chosen, asked.setting, truth, division)
    check_equal(blocked, whole)
    close(blocked.truth_mean, whole.truth_mean)
    assert (same.status, same.finding) == (truth.status, truth.finding)


def test_moments_without_a_truth_are_equal_too():
    asked = posed(narrow())
    truth = matched_truth(asked.setting, kinds=["all"])
    truth = replace(truth, status="none", every=None, path=None)
    whole = objective_moments(asked.chosen, in_groups(asked.setting), truth)
    _, blocked = blocked_moments(asked.chosen, asked.setting, truth, Division(STARTS, GROUP, BLOCK))
    check_equal(blocked, whole)


def test_a_pilot_chooses_the_length_and_all_starts_are_judged():
    """Norm, error and spread are those of all starts at the pilot's T."""
    asked = posed(narrow())
    pilot = pilot_truth(asked.setting, count=40)
    true = BlockedTruth(asked.setting, pilot)
    G = torch.cat([true.block(slice(0, 32))[0], true.block(slice(32, STARTS))[0]])
    judged = true.judged(40)
    n, mean = STARTS, G.mean(dim=0)
    variance = float(G.var(dim=0).sum()) / n
    assert judged.every.standard_error == pytest.approx(variance**0.5, rel=1e-9)
    assert judged.every.norm == pytest.approx(
        float(mean.square().sum() - variance) ** 0.5, rel=1e-9
    )
    assert judged.status == "converged"
    assert judged.horizon == pilot.horizon
    assert judged.lyapunov >= pilot.lyapunov
    assert (judged.finding.code, judged.finding.n) == ("truth_converged", 60)
    close(true.mean, mean)


def test_all_starts_can_withdraw_what_the_pilot_found():
    """A remainder beyond the tolerance cuts the return at T; too large an error leaves no truth."""
    asked = posed(narrow())
    pilot = pilot_truth(asked.setting, count=40)
    short = BlockedTruth(asked.setting, replace(pilot, horizon=4))
    short.block(slice(0, STARTS))
    assert short.judged(40).status == "cut"
    few = BlockedTruth(asked.setting, replace(pilot, status="cut"))
    few.block(slice(0, 1))
    assert few.judged(40).status == "none"
    assert few.judged(40).every is None


@pytest.fixture
def small(monkeypatch):
    """As little memory as makes 60 starts too many."""
    monkeypatch.setattr(memory, "MEMORY", 2e9)
    monkeypatch.setattr(memory.machine, "memory", lambda: 0.0)
    monkeypatch.setattr(memory, "_whole", lambda asked: 1e12)
    monkeypatch.setattr(memory, "GROUPS", 10)
    monkeypatch.setattr(memory, "BLOCK", 1.0)


@pytest.mark.slow
def test_what_does_not_fit_is_measured_in_blocks(small):
    """Pairs within groups are a tenth of all here: less than half of an error in a value."""
    shown = []
    torch.manual_seed(1)
    critic, task, policy = QCritic(2, 1, hidden=(4,)), world(), narrow()

    def measured(**more):
        return gradlab.measure(task, policy, critic, horizon=2, starts=STARTS, judges=4, **more)

    profile = measured(progress=lambda *told: shown.append(told))
    assert (profile.config["groups"], profile.config["block"]) == (10, 6)
    assert [told[1:] for told in shown if told[0] == STAGE] == [(k, 20) for k in range(21)]
    table = profile.table()
    pytest.MonkeyPatch().setattr(memory, "_whole", lambda asked: 0.0)
    other = measured().table()
    assert list(table["quantity"]) == list(other["quantity"])
    joined = table.merge(other, on=["estimator", "horizon", "quantity"], suffixes=("", "_whole"))
    known = joined[joined["quantity"].isin(["mean_norm", "bias2", "variance"])].dropna()
    apart = abs(known["value"] - known["value_whole"]) > 0.5 * known["se_whole"]
    assert len(known) > 30
    assert not apart.any(), known[apart][["estimator", "quantity", "value", "value_whole", "se"]]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(attribute=True), "attribute substitutes at single starts"),
        (dict(law="start"), "truth='matched' is measured whole"),
        (dict(starts=10**9), "more than"),
    ],
)
def test_what_cannot_be_divided_is_refused_with_what_fits(small, change, word):
    critic = QCritic(2, 1, hidden=(4,))
    with pytest.raises(InputError, match=rf"(?s)GB.*{word}.*about \d+ starts fit"):
        gradlab.measure(world(), narrow(), critic, **dict(horizon=2, starts=STARTS) | change)


def test_half_of_what_a_machine_has_may_be_taken(small, monkeypatch):
    """A machine with more memory than 8 GB holds blocks that another refuses."""
    monkeypatch.setattr(memory, "MEMORY", 0.0)
    asked = dict(horizon=2, starts=STARTS, judges=4, rehearse=False)
    with pytest.raises(InputError, match="more than 0 GB"):
        gradlab.measure(world(), narrow(), QCritic(2, 1, hidden=(4,)), **asked)
    monkeypatch.setattr(memory.machine, "memory", lambda: 1e10)
    profile = gradlab.measure(world(), narrow(), QCritic(2, 1, hidden=(4,)), **asked)
    assert profile.config["groups"] == 10


@pytest.mark.slow
def test_a_truth_that_jumps_is_none_in_blocks_either(small):
    found = gradlab.measure(
        jumping_worlds.task(), Gaussian(jumping_worlds.pd_policy(), 0.3),
        jumping_worlds.soft_critic, horizon=1, starts=64,
    )  # fmt: skip
    assert found.config["groups"] == 10 and found.truth["status"] == "jumps"
    assert found.jumps.kind == "harmful" and found.truth["code"] == "truth_in_blocks"
    assert found.realised.helps(("data", 0)) and (PATHWISE, 0) in found.realised.cells


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


S = 3
LABEL = np.array([0, 1, 0, 0, 1, 0, 2, 0, 1, 2, 0, 1, 2, 2])
STRATA = Strata(LABEL, np.array([0.7, 0.25, 0.05]) * N / np.array([6, 4, 4]), 300)


@pytest.fixture(scope="module")
def stratified_world():
    made = World(torch.arange(N))
    weight = torch.from_numpy(STRATA.weight)
    made.starts = Starts(made.starts.states, weight, torch.arange(N), strata=STRATA)
    made.setting = dataclasses.replace(made.setting, starts=made.starts)
    return made


@pytest.fixture(scope="module")
def found(stratified_world):
    truth = stratified_world.truth(("all",))
    chosen = stratified_world.first | stratified_world.every
    return truth, objective_moments(chosen, stratified_world.setting, truth, samples=S)


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


def test_every_quantity_is_that_of_the_strata(stratified_world, found):
    truth, measured = found
    T = truth.every.gradients.numpy()
    for key, (X, squares, count) in formed(stratified_world, truth).items():
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


def test_kernels_of_steps_give_the_same_moments(stratified_world, found, monkeypatch):
    truth, explicit = found
    monkeypatch.setattr(inner_products, "WIDE", 0)
    monkeypatch.setattr(inner_products, "SAMPLES", 5)
    chosen = stratified_world.every
    for known in (truth, dataclasses.replace(truth, every=None)):
        kernels = objective_moments(chosen, stratified_world.setting, known, samples=S)
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


def test_the_variance_along_the_truth_counts_each_start_with_its_weight(stratified_world, found):
    """In one direction all noise lies along the truth: a large batch of it has cosine 1 there."""
    truth, measured = found
    T = truth.every.gradients.numpy().sum(axis=0)
    X = formed(stratified_world, truth)["all", 2][0].numpy()
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


def test_the_precision_of_a_truth_is_that_of_the_strata(stratified_world, found):
    T = found[0].every.gradients
    precision = precision_of(T, stratified_world.starts)
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
    assert_same_cells(found, alone)
