"""A measurement in blocks of starts is the measurement of all starts at once.

Kernels give the inner products of explicit per-sample gradients, for every kind and grouping.
"""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.errors import InputError
from gradlab.gradients import gram
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.measurement import by_blocks, grams
from gradlab.measurement import inner_products as explicit
from gradlab.measurement import problem as memory
from gradlab.measurement.by_blocks import STAGE, Division, blocked_moments
from gradlab.measurement.inner_products import WIDE, estimator_moments
from gradlab.measurement.problem import Given, problem
from gradlab.measurement.visited import SAMPLES, objective_moments
from gradlab.networks.mlp import Policy, QCritic
from gradlab.networks.policies import Gaussian
from gradlab.runs.realised import PATHWISE
from gradlab.statistics.grams import mixture_moments
from gradlab.statistics.moments import estimates
from gradlab.tasks import linear_quadratic
from gradlab.truth.by_blocks import BlockedTruth, pilot_truth
from gradlab.truth.truth import matched_truth
from tests.measurement import jumping_worlds
from tests.measurement.gram_world import ALONE, APART, World, at_visits
from tests.planted_moments import explicit_grams

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
    assert (same.status, same.reason) == (truth.status, truth.reason)


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
    assert "chosen by the first 40 starts and checked on all 60" in judged.reason
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
    assert found.jumps.kind == "harmful" and "blocks" in found.truth["reason"]
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
