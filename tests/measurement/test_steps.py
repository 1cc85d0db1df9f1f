"""Realised gains against closed-form returns of a linear-quadratic system.

Those of a whole measurement: of which cells, and when there are none.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gradlab import measure, systems, tasks
from gradlab.data.trajectories import child
from gradlab.errors import InputError
from gradlab.gradients.estimator import augmenting
from gradlab.gradients.setting import Setting, Starts, as_starts
from gradlab.measurement.realised_gains import STREAM, Direction, judging_starts, planned, realise
from gradlab.measurement.update import Update
from gradlab.networks.policies import Gaussian, WithLogProb
from gradlab.runs.realised import TRUE_CELL
from gradlab.systems import from_function
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.tasks import double_integrator
from gradlab.truth.oracles import perturbed, unroll_all_actions
from tests.gradients.worlds import linear, matrix, network, nonlinear
from tests.linear_quadratic import ExactCritic, lqr_gradient, lqr_return
from tests.measurement.linear import GAMMA, N, T, starts_of

W = -matrix((0.4, 0.6))
ASIDE = ("aside", 3)
OTHER = torch.tensor([1.0, 0.3], dtype=torch.float64)


def world(noise: float = 0.0) -> LinearQuadratic:
    one = linear()
    return LinearQuadratic(one.A, one.B, one.Q, one.R, noise * one.noise_covariance)


def policy_of() -> nn.Linear:
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = W.clone()
    return policy


def gradient(second_moment: torch.Tensor) -> torch.Tensor:
    return lqr_gradient(world(), W, second_moment, GAMMA, "all", T)


def gained(direction: torch.Tensor, eta: float, moment: torch.Tensor) -> torch.Tensor:
    """Closed-form change of the return; what noise costs is the same before and after."""
    moved = W + eta * (direction / direction.norm()).reshape(1, 2)
    before, after = (lqr_return(world(), w, moment, GAMMA, T) for w in (W, moved))
    return after - before


def own_moment(judging: Starts) -> torch.Tensor:
    return judging.states.T @ judging.states / len(judging.states)


def stepped(judging: Starts, **changed):
    g = gradient(own_moment(judging))
    directions = {ASIDE: Direction(OTHER), TRUE_CELL: Direction(g, float(g.norm()))}
    directions = changed.pop("directions", directions)
    setting = Setting(world(), policy_of(), judging, GAMMA, T)
    move, once = changed.pop("move", 0.04), changed.pop("once", ())
    return realise(replace(setting, **changed), directions, move, once)


def test_each_start_gains_what_the_closed_form_says():
    judging = starts_of(0)
    found = stepped(judging)
    each = judging.states[:, :, None] * judging.states[:, None, :]
    directions = (gradient(own_moment(judging)), OTHER)
    for c, direction in enumerate(directions):
        for k, eta in enumerate(found.lengths):
            expected = gained(direction, eta, each).numpy()
            assert found.gain[c, k] == pytest.approx(expected, rel=1e-7, abs=1e-12)
    assert found.cells == (TRUE_CELL, ASIDE) and found.judges == N and found.horizon == T
    assert found.steps == planned([ASIDE], [], [T], 0, N, references=1).steps
    before = lqr_return(world(), W, each, GAMMA, T).numpy()
    assert found.before == pytest.approx(before, rel=1e-9)


def test_shares_tend_to_the_cosine_as_steps_get_shorter():
    judging = starts_of(1)
    found = stepped(judging)
    g = gradient(own_moment(judging))
    cosine = float(g @ OTHER / g.norm() / OTHER.norm())
    off = [found.share(ASIDE, k)[0] - cosine for k in (0, 1)]
    ratio = found.lengths[0] / found.lengths[1]
    assert ratio == pytest.approx(1 / 4)
    assert abs(off[1]) > 1e-4  # the step is long enough to bend
    assert off[0] / off[1] == pytest.approx(ratio, rel=0.1)


def test_the_update_moves_the_first_actions_by_its_share_of_their_size():
    judging = starts_of(2)
    found = stepped(judging, move=0.08, once=[ASIDE])
    assert found.moves == pytest.approx((0.02, 0.08, 0.24)) and found.at == 1
    g = gradient(own_moment(judging)).reshape(1, 2)
    change = found.lengths[1] * judging.states @ (g / g.norm()).T
    actions = judging.states @ W.T
    share = change.square().mean().sqrt() / actions.square().mean().sqrt()
    assert float(share) == pytest.approx(0.08)
    assert [found.taken(ASIDE, k) for k in range(3)] == [False, True, False]
    assert all(found.taken(TRUE_CELL, k) for k in range(3)) and found.status[1] == "stepped"


@pytest.mark.slow
def test_intervals_cover_the_closed_form_under_noise():
    """Of gains and of shares, over fresh starts and noise: at least 93% of 300 repetitions."""
    eye = torch.eye(2, dtype=torch.float64)
    g, across = gradient(eye), torch.tensor([-0.2, 1.0], dtype=torch.float64)
    directions = {TRUE_CELL: Direction(g, 0.97 * float(g.norm())), ASIDE: Direction(across)}
    hits = []
    for seed in range(300):
        found = stepped(
            starts_of(seed + 1000), simulator=world(1.0), directions=directions, seed=seed
        )
        true, own = (float(gained(d, found.lengths[1], eye)) for d in (g, across))
        ends, (_, around) = found.ends(ASIDE), found.share(ASIDE)
        hits.append((ends.low <= own <= ends.high, around.low <= 0.97 * own / true <= around.high))
    assert (np.mean(hits, axis=0) >= 0.93).all(), np.mean(hits, axis=0)
    assert found.kept[0] == pytest.approx(0.97) and np.isnan(found.kept[1])


@pytest.mark.slow
def test_simultaneous_intervals_cover_all_cells_together():
    eye = torch.eye(2, dtype=torch.float64)
    turns = torch.linspace(0, 2.5, 6, dtype=torch.float64)
    around = torch.stack([turns.cos(), turns.sin()], dim=1)
    directions = {("turned", k): Direction(d) for k, d in enumerate(around)}
    hits = []
    for seed in range(150):
        found = stepped(
            starts_of(seed), simulator=world(1.0), directions=directions, seed=seed, horizon=6
        )
        inside = []
        for k, d in enumerate(around):
            ends = found.ends(("turned", k), among=len(around))
            w = W + found.lengths[1] * d.reshape(1, 2)
            before, after = (float(lqr_return(world(), x, eye, GAMMA, 6)) for x in (W, w))
            inside.append(ends.low <= after - before <= ends.high)
        hits.append(all(inside))
    assert np.mean(hits) >= 0.93


def test_a_simulator_without_derivatives_will_do():
    class Plain:
        state_dim, action_dim, noise_dim, differentiable = 2, 1, 2, False
        step, sample_noise = staticmethod(world().step), staticmethod(world().sample_noise)

        def linearize(self, state, action, noise=None):
            raise AssertionError("a realised gain needs no Jacobian")

    judging = starts_of(4)
    found, expected = stepped(judging, simulator=Plain()), stepped(judging)
    assert np.array_equal(found.gain, expected.gain)


def test_a_seed_repeats_it_bit_for_bit_whatever_else_is_stepped():
    judging = starts_of(5)
    g = Direction(gradient(own_moment(judging)))
    noisy = {"simulator": world(1.0), "seed": 3}
    both = stepped(judging, directions={TRUE_CELL: g, ASIDE: Direction(OTHER)}, **noisy)
    again = stepped(judging, directions={TRUE_CELL: g, ASIDE: Direction(OTHER)}, **noisy)
    alone = stepped(judging, directions={TRUE_CELL: g}, **noisy)
    assert np.array_equal(both.gain, again.gain)
    assert alone.gain[0] == pytest.approx(both.gain[0], rel=1e-12, abs=1e-14)
    other = stepped(judging, directions={TRUE_CELL: g}, **(noisy | {"seed": 4}))
    assert not np.allclose(other.gain, alone.gain)


def test_what_moves_no_action_gains_exactly_nothing_under_noise():
    class WithSpare(nn.Module):
        noise_dim = 1

        def __init__(self):
            super().__init__()
            self.body, self.spare = policy_of(), nn.Parameter(torch.zeros(1).double())

        def forward(self, state, noise):
            return self.body(state) + 0.3 * noise

    spare = torch.zeros(3, dtype=torch.float64)
    spare[0] = 1.0  # a module's own parameters come first
    arguments = {"policy": WithSpare(), "simulator": world(1.0)}
    other = Direction(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
    found = stepped(
        starts_of(6), directions={("spare", 0): Direction(spare), ASIDE: other}, **arguments
    )
    assert (found.gain[found.cells.index(("spare", 0))] == 0).all()
    assert not found.helps(("spare", 0)) and not found.harms(("spare", 0))
    assert (found.gain[found.cells.index(ASIDE)] != 0).all()


def test_directions_that_are_none_are_named_so():
    nothing = {("zero", 1): torch.zeros(2).double(), ("lost", 2): matrix((1.0, torch.nan))[0]}
    found = stepped(starts_of(7), directions={k: Direction(d) for k, d in nothing.items()})
    assert found.status == ("zero", "not finite") and np.isnan(found.gain).all()
    assert found.best() is None and found.not_excluded() == ()
    assert not found.helps(("zero", 1)) and found.share(("zero", 1)) is None
    assert len(found.table()) == 6


def test_weights_and_groups_of_the_starts_count():
    plain = starts_of(8)
    weight = torch.linspace(0.5, 2.0, N, dtype=torch.float64)
    grouped = Starts(plain.states, weight, torch.arange(N) // 3)
    found = stepped(grouped, directions={ASIDE: Direction(OTHER)})
    each = plain.states[:, :, None] * plain.states[:, None, :]
    for k, eta in enumerate(found.lengths):
        gain = weight.numpy() * gained(OTHER, eta, each).numpy()
        assert found.gain[0, k] == pytest.approx(gain.reshape(-1, 3).sum(axis=1))
    assert (found.size == 3).all()


def test_judges_follow_the_law_of_the_starts_and_are_none_of_them():
    task = double_integrator()
    judging = judging_starts(task, 16, seed=0)
    assert judging.states.shape == (16, 2) and judging.states.dtype == torch.float64
    again = judging_starts(task, 16, seed=0)
    assert torch.equal(again.states, judging.states)
    assert not torch.equal(judging_starts(task, 16, seed=1).states, judging.states)


def test_a_rollout_that_leaves_the_numbers_loses_its_cell_only():
    def step(s, a):
        over = torch.where(a[:, :1] > 0.0, torch.inf, 0.0)
        return s + over, -(a**2).sum(dim=1)

    policy = nn.Linear(1, 1).double()
    nn.init.zeros_(policy.weight)
    nn.init.zeros_(policy.bias)
    up = torch.tensor([0.0, 1.0], dtype=torch.float64)
    judging = as_starts(torch.ones(8, 1).double(), 1)
    setting = Setting(systems.from_function(step, 1, 1), policy, judging, GAMMA, 5)
    found = realise(setting, {("up", 1): Direction(up), ("down", 1): Direction(-up)}, 0.04)
    assert found.status == ("lost", "stepped")
    assert np.isnan(found.gain[0]).all() and np.isfinite(found.gain[1]).all()
    assert found.best() == ("down", 1) and found.harms(("down", 1))


def test_under_mask_nothing_counts_past_an_end_and_nothing_is_simulated_there():
    calls = []

    def step(s, a):
        calls.append(len(s))
        return s + 1.0 + a, s[:, 0] + a[:, 0]

    simulator = systems.from_function(step, 1, 1, alive=lambda s: s[:, 0] < 3.0)
    policy = nn.Linear(1, 1).double()
    nn.init.zeros_(policy.weight)
    nn.init.zeros_(policy.bias)
    states = torch.tensor([[0.5], [1.5], [-4.0]], dtype=torch.float64)
    direction = {("bias", 1): Direction(torch.tensor([0.0, 1.0], dtype=torch.float64))}

    def returns(a: float, masked: bool) -> list[float]:
        found = []
        for s in states[:, 0].tolist():
            total, alive = 0.0, True
            for t in range(5):
                total += GAMMA**t * (s + a) if alive or not masked else 0.0
                s += 1.0 + a
                alive = alive and s < 3.0
            found.append(total)
        return found

    for mode in ("ignore", "mask"):
        calls.clear()
        setting = Setting(simulator, policy, as_starts(states, 1), GAMMA, 5, termination=mode)
        found = realise(setting, direction, 0.04)
        for k, eta in enumerate(found.lengths):
            before, after = (np.array(returns(a, mode == "mask")) for a in (0.0, eta))
            assert found.gain[0, k] == pytest.approx(after - before, abs=1e-12)
        assert found.ended == pytest.approx(2 / 3)
        assert found.steps == sum(calls) and (mode == "mask") == (found.steps < 60)


def test_with_entropy_the_soft_return_is_what_rises():
    torch.manual_seed(0)
    alpha, simulator = 0.2, nonlinear()
    inner = Gaussian(network((2, 8, 2), nn.Tanh), std=0.3)
    policy, judging, n = WithLogProb(inner), starts_of(9, 8), 8
    P = sum(p.numel() for p in policy.parameters())
    d = torch.randn(P, dtype=torch.float64)
    setting = Setting(augmenting(alpha)(simulator), policy, judging, GAMMA, 6, seed=2)
    found = realise(setting, {("d", 1): Direction(d)}, 0.04)

    def soft_return(inner) -> torch.Tensor:
        state, total, own = judging.states, torch.zeros(n, dtype=torch.float64), child(2, STREAM)
        for t in range(6):
            action = inner(state, judging.policy_noise(policy, own, t))
            xi = judging.dynamics_noise(simulator, own, t)
            out = simulator.step(state, action, xi)
            total += GAMMA**t * (out.reward - alpha * inner.log_prob(state, action))
            state = out.state
        return total.detach()

    moved = perturbed(policy, found.lengths[0] * d / d.norm())
    expected = soft_return(moved.policy) - soft_return(inner)
    assert found.gain[0, 0] == pytest.approx(expected.numpy(), abs=1e-10)


class NegativeCost(nn.Module):
    def forward(self, state, action):
        return -(state[:, 0] ** 2) - action[:, 0] ** 2


EYE = torch.eye(2, dtype=torch.float64)


def policy_with(*weight: float) -> nn.Linear:
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = torch.tensor([weight], dtype=torch.float64)
    return policy


def measured(task=None, policy=None, **changed):
    task = tasks.double_integrator() if task is None else task
    policy = policy_with(-2.0, -2.0) if policy is None else policy
    critic = changed.pop("critic", None)
    if critic is None:
        critic = ExactCritic(task.simulator, policy.weight.detach(), task.discount)
    given = {"horizon": 3, "starts": 64, "rehearse": False} | changed
    return measure(task, policy, critic, **given)


@pytest.fixture(scope="module")
def profile():
    return measured()


def test_exact_estimators_gain_what_is_possible_and_first_order_agrees(profile):
    found = profile.realised
    assert found is not None and found.cells[0] == TRUE_CELL and found.best_is_known
    assert found.horizon == profile.truth["horizon"] and found.termination == "ignore"
    assert ("data", 0) in found.cells and found.judges == 64
    assert found.moves == pytest.approx((0.01, 0.04, 0.12)) and found.at == 1
    for cell in found.stepped:
        share, ends = found.share(cell)
        assert share > 0.9 and ends.high > 0.95 and found.helps(cell)
    # The return bends within an update: a report, no contradiction.
    assert {each.reason for each in found.disagreements(profile.table())} <= {"step"}
    assert (found.kept > 0.8).all() and (found.kept <= 1).all()


def test_a_critic_that_points_backwards_is_seen_to_harm():
    class Backwards(nn.Module):
        def __init__(self, critic):
            super().__init__()
            self.critic = critic

        def forward(self, state, action):
            return -self.critic(state, action)

    task, policy = tasks.double_integrator(), policy_with(-2.0, -2.0)
    critic = Backwards(ExactCritic(task.simulator, policy.weight.detach(), task.discount))
    short = Update("sgd", 1e-3)  # along which the return is a line
    profile = measured(critic=critic, judges=32, update=short)
    found = profile.realised
    assert found.judges == 32 and found.harms(("data", 0)) and found.moves[1] < 1e-3
    assert found.share(("data", 0))[0] == pytest.approx(-1, abs=0.05)
    assert found.disagreements(profile.table()) == ()
    asked = profile.config["update"]
    assert (asked["optimizer"], asked["rate"], asked["assumed"]) == ("sgd", 1e-3, False)
    assert asked["move"] == pytest.approx(found.moves[1])


def test_a_rate_that_moves_actions_by_more_than_they_are_is_refused():
    with pytest.raises(InputError, match=r"moves the actions by .* try lr"):
        measured(starts=16, update=Update("adam", 10.0))
    with pytest.raises(InputError, match="update"):
        measured(starts=16, update=1e-3)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_rate_that_is_too_long_by_far_is_refused_before_a_truth_is_made(optimizer, monkeypatch):
    """The double integrator's first actions are −K s: Adam's first step moves them by ±rate·s."""
    made = []
    monkeypatch.setattr(
        "gradlab.measurement.measure.matched_truth", lambda *_, **__: made.append("truth")
    )
    with pytest.raises(InputError, match=r"lr is 50: the first step of .* try lr ") as refused:
        measured(starts=16, update=Update(optimizer, 50.0))
    assert not made
    if optimizer == "adam":
        s = tasks.double_integrator().starts(2000, torch.Generator().manual_seed(5))
        both = [(s @ torch.tensor([a, b]).double()).norm() for a in (1, -1) for b in (1, -1)]
        sizes = [50 * float(each / (s @ torch.tensor([2.0, 2.0]).double()).norm()) for each in both]
        told = float(str(refused.value).split("actions by ")[1].split("%")[0]) / 100
        assert min(sizes) * 0.5 < told < max(sizes) * 2


def test_a_rate_that_is_advised_is_taken():
    with pytest.raises(InputError) as refused:
        measured(starts=16, update=Update("adam", 10.0))
    advised = float(str(refused.value).rsplit("try lr ", 1)[1])
    profile = measured(starts=16, update=Update("adam", advised))
    assert 0.3 < profile.config["update"]["move"] <= 1


def test_between_once_and_twice_the_truth_decides():
    """What few starts say is not the truth's: it may not refuse what that would take."""
    task = tasks.double_integrator()
    starts = as_starts(task.starts(16, torch.Generator().manual_seed(0)), 2)
    setting = Setting(task.simulator, policy_with(-2.0, -2.0), starts, 0.9, 3)
    G = unroll_all_actions(setting).mean(dim=0)
    once = 1e-3 / Update("adam", 1e-3).move(setting, G)
    Update("adam", 1.9 * once).check(setting)
    with pytest.raises(InputError, match="moves the actions by 210%"):
        Update("adam", 2.1 * once).check(setting)
    with pytest.raises(InputError, match="moves the actions by 190%"):
        Update("adam", 1.9 * once).move(setting, G)


@pytest.mark.slow
def test_a_seed_repeats_every_gain_bit_for_bit(profile):
    again = measured().realised
    assert np.array_equal(again.gain, profile.realised.gain, equal_nan=True)
    assert not np.array_equal(measured(seed=1).realised.gain[0], again.gain[0])


def test_given_starts_and_matched_truths_have_no_realised_gains():
    states = tasks.double_integrator().starts(16, torch.Generator().manual_seed(0))
    assert measured(starts=states).realised is None
    assert measured(starts=states, truth="objective").realised is None
    assert measured(starts=16, law="start").realised is None


def test_without_a_truth_gains_are_compared_in_units_of_the_return():
    """An unstable loop: its gradient grows faster than the discount."""
    task = tasks.linear_quadratic(
        1.3 * EYE, EYE[:, :1], EYE, EYE[:1, :1], 0.01 * EYE, torch.zeros(2), EYE, 0.9
    )
    policy = policy_with(-0.1, 0.0)
    critic = nn.Linear(3, 1).double()

    class Critic(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = critic

        def forward(self, state, action):
            return self.net(torch.cat([state, action], dim=1))[:, 0]

    profile = measured(task, policy, critic=Critic(), starts=32)
    found = profile.realised
    assert not profile.truth["admissible"] and found is not None
    assert TRUE_CELL not in found.cells and not found.best_is_known
    assert found.horizon in (44, 22)  # γᵀ is 1%, or 10% where the budget is small
    assert found.disagreements(profile.table()) == () and found.best() in found.not_excluded()


def test_too_few_judges_are_refused():
    for judges in (3, 2.5):
        with pytest.raises(InputError, match="judges"):
            measured(judges=judges)


def test_of_a_cut_truth_the_norm_is_that_of_all_starts_as_the_direction_is():
    """The truth's own norm is that of the half of them which did not choose the cut."""
    drawn = []

    def starts(n, generator):
        drawn.append(1 + 0.15 * torch.randn(n, 2, generator=generator, dtype=torch.float64))
        return drawn[-1]

    def step(state, action):  # each start grows at a rate of its own
        x, z = state[:, :1], state[:, 1:]
        return torch.cat([1.1 * z * x + 0.5 * action, z], 1), -(x**2 + action**2)[:, 0]

    task = tasks.Task("growing", from_function(step, 2, 1), None, starts, 0.9, 3)
    found = measured(task, policy_with(-0.2, 0.0), critic=NegativeCost(), horizon=2, judges=8)
    assert found.truth["status"] == "cut"
    x, z = next(each for each in drawn if len(each) == 64).T  # the judging ones come later
    w = torch.tensor([[-0.2], [0.0]]).double().repeat(1, 64).requires_grad_()
    returns = 0.0
    for t in range(found.truth["horizon"]):
        a = w[0] * x + w[1] * z
        returns = returns - 0.9**t * (x**2 + a**2).sum()
        x = 1.1 * z * x + 0.5 * a
    (g,) = torch.autograd.grad(returns, w)
    mean, variance = g.mean(dim=1).square().sum(), g.var(dim=1).sum() / 64
    norm = float((mean - variance).sqrt())
    assert found.realised.norm == pytest.approx(norm, rel=1e-3)
    assert found.realised.kept[0] == pytest.approx(norm / float(mean.sqrt()), rel=1e-3)
    assert found.truth["norm"] != pytest.approx(norm, rel=1e-2)
