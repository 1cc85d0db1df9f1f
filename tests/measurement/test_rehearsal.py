"""Rehearsals against explicit loops over closed-form gradients of linear-quadratic worlds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from gradlab import Estimator, Tail, load, measure, tasks
from gradlab.data.trajectories import child
from gradlab.errors import InputError
from gradlab.gradients.bptt import mean_gradient
from gradlab.gradients.setting import Setting, Starts, as_starts
from gradlab.gradients.start_laws import visits
from gradlab.measurement.rehearsal import (
    JUDGES,
    candidate_cells,
    frozen_gradient,
    lengths_within,
    rehearsal,
    rehearse,
)
from gradlab.measurement.update import Update, UpdateTest
from gradlab.runs.identity import by_default
from gradlab.systems import from_function
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.truth.returns import PairedReturns, Rollouts, paired_returns
from tests.gradients.worlds import linear, matrix
from tests.linear_quadratic import ExactCritic, lqr_gradient, lqr_return
from tests.measurement.linear import GAMMA, T, starts_of

W = -matrix((0.4, 0.6))
START = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
CELL = ("mine", 3)
LENGTHS = (1, 2, 5)
RATE = 0.01


def world() -> LinearQuadratic:
    one = linear()
    return LinearQuadratic(one.A, one.B, one.Q, one.R, 0.0 * one.noise_covariance)


def policy_of(weight: torch.Tensor = W) -> nn.Linear:
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = weight.clone()
    return policy


class Drifting(nn.Module):
    """The exact critic, and an error that grows with the distance from the policy's actions."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.exact, self.error = ExactCritic(world(), W, GAMMA), error

    def forward(self, s, a):
        return self.exact(s, a) + self.error * ((a - s @ W.T) ** 2).sum(dim=1)


def setting_of() -> Setting:
    return Setting(world(), policy_of(), starts_of(1), GAMMA, T)


def one_state(n: int = 8) -> Starts:
    """Frozen states that are all alike: the batch's moment does not depend on its rows."""
    return as_starts(START.repeat(n, 1), 2)


def nearly_one_start(n, generator):
    return START.repeat(n, 1) * (1 + 1e-4 * torch.randn(n, 1, generator=generator).double())


def by_hand(gradient, optimizer: str, updates: int) -> list[torch.Tensor]:
    """θ_1, θ_2, … of plain steps, or of Adam's (Kingma & Ba 2015, algorithm 1)."""
    w, m, v, path = W.flatten().clone(), 0.0, 0.0, []
    for k in range(1, updates + 1):
        g = gradient(w.reshape(1, 2))
        if optimizer == "adam":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            w = w + RATE * (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt() + 1e-8)
        else:
            w = w + RATE * g
        path.append(w)
    return path


def critic_gradient(error: float):
    """∂_a Q(s, W s) sᵀ at the one state, written out."""
    system, P = world(), ExactCritic(world(), W, GAMMA).get_buffer("P")
    s = START.T

    def gradient(weight):
        a = weight @ s
        q_a = -2 * system.R @ a - 2 * GAMMA * system.B.T @ P @ (system.A @ s + system.B @ a)
        return ((q_a + 2 * error * (a - W @ s)) @ s.T).flatten()

    return gradient


def returned(path: list[torch.Tensor], moment: torch.Tensor) -> np.ndarray:
    before = lqr_return(world(), W, moment, GAMMA, T)
    after = [lqr_return(world(), w.reshape(1, 2), moment, GAMMA, T) for w in path]
    return np.array([float(each - before) for each in after])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("actions", ["all", "first"])
def test_rehearsed_policies_are_those_of_closed_form_gradients(optimizer, actions):
    system, judging = world(), starts_of(1)
    if actions == "all":
        estimator = Estimator(system, system, "all", Tail(3, None, GAMMA))
        gradient = lambda w: lqr_gradient(system, w, START.T @ START, GAMMA, "all", 3)  # noqa: E731
    else:
        estimator = Estimator(system, None, "first", Tail(0, Drifting(0.3), GAMMA))
        gradient = critic_gradient(0.3)
    update, setting = Update(optimizer, RATE), Setting(system, policy_of(), judging, GAMMA, T)
    visited = replace(one_state(), weight=torch.full((8,), 20.0, dtype=torch.float64))
    mine = frozen_gradient(estimator, visited, 4, seed=3)  # a loop's loss is a mean over states
    path = by_hand(gradient, optimizer, LENGTHS[-1])
    moved = UpdateTest({CELL: mine}, (RATE,), LENGTHS, update).steps(setting.policy)[0, 0]
    for k, each in zip(LENGTHS, moved, strict=True):
        assert torch.allclose(each, path[k - 1] - W.flatten(), rtol=1e-9, atol=1e-12)
    found = rehearse(
        setting, [{CELL: mine}, {CELL: mine}], update, RATE, [judging, starts_of(2)], 4, LENGTHS
    )
    ends = [path[k - 1] for k in LENGTHS]
    for d, starts in enumerate((judging, starts_of(2))):  # each draw on starts of its own
        expected = returned(ends, starts.states.T @ starts.states / len(starts.states))
        assert found.change[0][:, found.draw == d].mean(1) == pytest.approx(expected, rel=1e-7)
    both = torch.cat([judging.states, starts_of(2).states])
    expected = returned(ends, both.T @ both / len(both))
    assert [found.after(CELL, k).value for k in LENGTHS] == pytest.approx(expected, rel=1e-7)
    assert found.draws == 2 and found.judges == len(both) and found.confirmed.size == 0


def test_a_draw_whose_gradient_falls_keeps_a_candidate_from_leading():
    """By one draw of batches it follows the exact gradient, by the other the opposite one."""
    system, near = world(), as_starts(nearly_one_start(16, torch.Generator().manual_seed(1)), 2)
    setting = Setting(system, policy_of(), near, GAMMA, T)
    estimator = Estimator(system, system, "all", Tail(T, None, GAMMA))  # of these returns
    up = frozen_gradient(estimator, one_state(), 4, seed=3)
    slowly, down = (lambda p, k, s=s: s * up(p, k) for s in (0.05, -0.05))
    other = ("mine", 2)
    found = rehearse(
        setting, [{CELL: up, other: slowly}, {CELL: down, other: slowly}], Update("sgd", RATE),
        RATE, [near, near], 4, LENGTHS,
    )  # fmt: skip
    assert found.after(CELL, 5).value > found.after(other, 5).value > 0  # more in the mean
    assert found.leading == {1: 5} and found.after(CELL, 5).low < 0 < found.after(CELL, 5).high


def test_a_critic_whose_error_grows_holds_for_fewer_updates():
    judging, update = starts_of(1), Update("sgd", RATE, refit=100)
    setting = Setting(world(), policy_of(), judging, GAMMA, T)
    moment = judging.states.T @ judging.states / len(judging.states)
    peaks = []
    for error in (0.0, 3.0):
        estimator = Estimator(world(), None, "first", Tail(0, Drifting(error), GAMMA))
        mine = frozen_gradient(estimator, one_state(), 4, seed=3)
        found = rehearse(setting, [{CELL: mine}], update, RATE, [judging], 4)
        path = by_hand(critic_gradient(error), "sgd", 100)
        expected = returned([path[k - 1] for k in found.lengths], moment)
        assert found.holds(CELL) == found.lengths[int(expected.argmax())]
        peaks.append(found.holds(CELL))
    assert peaks[1] < peaks[0] and found.lengths == (1, 2, 5, 10, 25, 50, 100)


def test_what_leaves_the_finite_numbers_is_lost_from_there_on():
    def gradient(policy, k):
        return torch.full((2,), 0.01 if k < 2 else float("nan"), dtype=torch.float64)

    setting = Setting(world(), policy_of(), starts_of(1), GAMMA, T)
    update, judging = Update("sgd", 1.0), [starts_of(1)]
    found = rehearse(setting, [{CELL: gradient}], update, 1.0, judging, 1, LENGTHS)
    assert np.isfinite(found.change[0]).all(axis=1).tolist() == [True, True, False]


def test_rehearsals_end_with_the_fit_of_the_critic():
    assert lengths_within(Update()) == (1, 2, 5, 10, 25)
    assert lengths_within(Update(refit=1)) == (1,)
    assert lengths_within(Update(refit=2)) == (1, 2)
    assert lengths_within(Update(refit=30)) == (1, 2, 5, 10, 25, 30)
    assert lengths_within(Update(refit=1000)) == (1, 2, 5, 10, 25, 50, 100)


def averaged(parameters):
    return torch.optim.ASGD(parameters, lr=RATE, lambd=0.0, alpha=0.0)


def test_a_rule_may_be_a_constant_length_or_a_function_of_the_user():
    g = torch.tensor([3.0, 4.0], dtype=torch.float64)
    steps = UpdateTest({CELL: g}, (0.5, 2.0), (1, 3), Update("length")).steps(policy_of())
    expected = torch.tensor([[0.5, 1.5], [2.0, 6.0]]).double()[..., None] * g / 5
    assert torch.allclose(steps[0], expected)
    own = Update(averaged)
    assert own.name == "averaged" and not own.assumed
    steps = UpdateTest({CELL: g}, (own.rate_for(setting_of(), g),), (2,), own).steps(policy_of())
    assert torch.allclose(steps[0, 0, 0], 2 * RATE * g)


@pytest.mark.parametrize(
    ("rule", "match"),
    [
        (lambda parameters: torch.optim.SGD(parameters, lr=0.0), "moves nothing"),
        (lambda parameters: torch.optim.SGD(parameters, lr=float("inf")), "to NaN"),
        (lambda parameters: None, "optimizer"),
    ],
)
def test_a_rule_that_moves_nothing_or_to_nan_is_refused_by_name(rule, match):
    with pytest.raises(InputError, match=match):
        Update(rule).move(setting_of(), torch.ones(2).double())
    with pytest.raises(InputError, match="set it there"):
        Update(rule, 0.1)


def test_wide_policies_are_judged_in_single_precision_where_that_is_as_good(monkeypatch):
    """One that the simulator blows up by rounding, as its rewards of 1e9, is not."""
    monkeypatch.setattr("gradlab.truth.returns._PAYS", 17)
    wide = nn.Sequential(nn.Linear(2, 1200), nn.Tanh(), nn.Linear(1200, 1)).double()
    steps = 1e-2 * torch.randn(3, sum(p.numel() for p in wide.parameters())).double()
    for large, single in ((1.0, True), (1e9, False)):

        def step(s, a, large=large):
            return 0.9 * s + 0.5 * a, large - (s**2).sum(1)

        setting = Setting(from_function(step, 2, 1), wide, starts_of(1), GAMMA, T)
        found, _ = paired_returns(setting, setting.starts, steps)
        (exact,) = Rollouts(setting, [(setting.starts, steps)]).until(T)
        change, expected = found[1:] - found[0], exact[1:] - exact[0]
        se = expected.std(dim=1) / expected.shape[1] ** 0.5
        assert ((change - expected).mean(dim=1).abs() <= 0.02 * se).all()
        assert torch.equal(found, exact) != single


def test_draws_of_other_sizes_and_policies_go_on_in_one_pass_to_their_closed_forms():
    """Noiseless linear-quadratic returns of T and of 3 T steps, by Riccati's recursion."""
    starts = [starts_of(1).block(slice(0, n)) for n in (5, 3)]
    steps = [matrix((0.1, 0.0), (0.0, -0.2)), matrix((-0.1, 0.05))]
    paired = PairedReturns(setting_of(), list(zip(starts, steps, strict=True)))
    for horizon in (4, 12):
        for begin, moved, *rolled in zip(
            starts, steps, paired.until(horizon), paired.late, strict=True
        ):
            weights = [W, *(W + step for step in moved)]
            for weight, returns, late in zip(weights, *rolled, strict=True):
                half, whole = (
                    torch.stack([
                        torch.as_tensor(lqr_return(world(), weight, s[:, None] * s, GAMMA, T))
                        for s in begin.states
                    ])
                    for T in (horizon // 2, horizon)
                )  # fmt: skip
                torch.testing.assert_close(returns, whole, rtol=1e-12, atol=1e-12)
                torch.testing.assert_close(late, whole - half, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("actions", ["first", "all"])
@pytest.mark.parametrize("horizon", [0, 3])
def test_one_backward_pass_gives_the_mean_gradient(actions, horizon):
    system = linear()
    model = LinearQuadratic(0.9 * system.A, system.B, system.Q, system.R, system.noise_covariance)
    critic = ExactCritic(system, W, GAMMA)
    estimator = Estimator(system, model, actions, Tail(horizon, critic, GAMMA))
    policy = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    policy[0].bias.requires_grad_(False)
    begin = starts_of(0)
    weighted = Starts(begin.states, torch.rand(len(begin.states)).double(), begin.group)
    mean = mean_gradient(estimator, policy, weighted, seed=5)
    assert torch.allclose(mean, estimator.gradients(policy, weighted, seed=5).mean(dim=0))


def test_gradients_from_the_starts_are_those_of_fresh_ones():
    """Their mean over many updates has the moment of the law, not that of a sample."""

    def starts(n, generator):
        return torch.randn(n, 2, generator=generator).double()

    system = world()
    task = tasks.Task("linear", system, system, starts, discount=GAMMA, horizon=3)
    estimator = Estimator(system, system, "all", Tail(3, None, GAMMA))
    fresh = frozen_gradient(estimator, task, 64, seed=3)
    mean = torch.stack([fresh(policy_of(), k) for k in range(100)])
    expected = lqr_gradient(system, W, torch.eye(2).double(), GAMMA, "all", 3)
    error = mean.std(0) / 10
    assert ((mean.mean(0) - expected).abs() < 4 * error).all() and (error > 0).all()
    assert torch.equal(fresh(policy_of(), 7), mean[7])


def test_every_update_has_noise_of_its_own_that_candidates_share_and_stops_at_an_end():
    def step(s, a, xi):
        return 0.9 * s + 0.5 * a + 0.3 * xi, -(s**2).sum(1)

    ending = from_function(step, 2, 1, 2, alive=lambda s: s[:, 0].abs() < 1.2)
    policy, critic = policy_of(), ExactCritic(world(), W, GAMMA)
    estimator = Estimator(ending, ending, "all", Tail(4, critic, GAMMA))
    gradients = {
        mode: frozen_gradient(estimator, one_state(), 4, 3, mode) for mode in ("ignore", "mask")
    }
    first = {mode: gradient(policy, 0) for mode, gradient in gradients.items()}
    assert torch.equal(first["mask"], gradients["mask"](policy, 0))
    assert not torch.allclose(first["mask"], gradients["mask"](policy, 1))
    assert not torch.allclose(first["mask"], first["ignore"])
    for mode, found in first.items():
        expected = estimator.mean_gradient(policy, one_state(4), child(3, "rehearsal 0"), mode)
        assert torch.allclose(found, expected)


def measured(**changed):
    task = tasks.double_integrator()
    critic = ExactCritic(task.simulator, -2.0 * torch.ones(1, 2).double(), task.discount)
    options = {"horizon": 3, "starts": 64, "batch": 32, "update": Update(refit=5)} | changed
    return measure(task, policy_of(-2.0 * torch.ones(1, 2)), critic, **options)


@pytest.fixture(scope="module")
def profile():
    return measured()


def test_a_measurement_rehearses_what_competes_by_two_draws_and_fresh_ones(profile, tmp_path):
    found = profile.rehearsal
    assert found.lengths == (1, 2, 5)
    assert ("data", 0) in found.cells and {name for name, _ in found.cells} <= {
        "data", "model", "model_all",
    }  # fmt: skip
    assert found.horizon == profile.truth["horizon"] and found.assumed and found.rate > 0
    assert found.draws == 2 and (found.draw == 0).sum() == (found.draw == 1).sum() == JUDGES / 2
    assert found.judges == JUDGES and found.steps > 0 and found.batch == 32
    assert found.chosen == found.cells[found.confirmed[-1]]
    assert found.confirmed.tolist() == list(found.leading)[: len(found.confirmed)]
    again = load(profile.save(tmp_path / "run.h5")).rehearsal
    assert again.best == found.best and again.table().equals(found.table())
    for name in ("change", "draw", "confirmed", "again"):
        assert np.array_equal(getattr(again, name), getattr(found, name), equal_nan=True)
    assert again.chosen == found.chosen and again.leading == found.leading
    assert np.array_equal(measured().rehearsal.change, found.change)


def bptt(world: LinearQuadratic, discount: float = GAMMA) -> dict[str, Estimator]:
    return {"model_all": Estimator(world, world, "all", Tail(3, None, discount))}


def test_fresh_draws_confirm_by_the_returns_of_closed_form_updates():
    """Starts are nearly one: every draw leads alike, to the closed form's returns."""
    system, rate, moment = world(), RATE / 10, START.T @ START
    task = tasks.Task("linear", system, system, nearly_one_start, discount=GAMMA, horizon=T)
    options = {"horizon": T, "starts": 32, "batch": 32, "update": Update("sgd", rate, 5)}
    critic = ExactCritic(system, W, GAMMA)
    found = measure(task, policy_of(), critic, bptt(system), **options).rehearsal
    cell = found.chosen
    assert cell[0] == "model_all" and found.again.shape[2] == 4 and found.again_judges == JUDGES
    w, path = W, [W]
    for _ in range(5):
        w = w + rate * lqr_gradient(system, w, moment, GAMMA, "all", cell[1]).reshape(1, 2)
        path.append(w)

    def change(updates: int, steps: int) -> float:
        before, after = (
            float(lqr_return(system, path[k], moment, GAMMA, steps)) for k in (0, updates)
        )
        return after - before

    first, again = found.change[found.cells.index(cell)], found.again[-1]
    for k, updates in enumerate(found.lengths):
        expected = change(updates, found.horizon)
        assert first[k].mean() == pytest.approx(expected, rel=1e-3)
        expected = change(updates, found.again_horizon)
        assert again[k] == pytest.approx([expected] * 4, rel=1e-3)
        assert len({*again[k].tolist(), *first[k].tolist()}) == 4 + JUDGES  # starts of their own
    assert found.holds(cell) == 5
    assert found.promised(cell, 5).value == pytest.approx(change(5, found.again_horizon), rel=1e-3)


@pytest.mark.parametrize("fallen", [1, 3])
def test_candidates_are_confirmed_one_after_the_other_in_the_order_in_which_they_led(
    fallen, monkeypatch
):
    """The fresh draws of the first ones are turned round: they fall where the first two rose."""
    tried = []

    steps = UpdateTest.steps

    def turned(test, policy, progress=None):
        moved = steps(test, policy, progress)
        if progress is not None or test.rule.fixed:  # all candidates, or realised gains
            return moved
        tried.append(test)
        return -moved if len(tried) <= 4 * fallen else moved

    monkeypatch.setattr(UpdateTest, "steps", turned)
    found = measured().rehearsal
    led = list(found.leading)
    assert len(led) > 3
    told = found.confirmed.tolist()
    assert told == led[: min(fallen + 1, 3)] and len(tried) == 4 * len(told)
    assert found.chosen == (found.cells[led[fallen]] if fallen < 3 else None)
    assert all(found.holds(found.cells[each]) is None for each in told[:fallen])


@pytest.mark.parametrize(
    ("asked", "judges", "draws", "each"),
    [(None, 256, 4, 256), (8, 8, 4, 8), (640, 640, 10, 256)],
)
def test_as_many_starts_judge_as_are_asked_for_and_draws_grow_with_them(asked, judges, draws, each):
    """Whoever is told that more of them would decide asks for them, and gets them: were draws as
    few as ever, their spread would keep the interval as wide."""
    system = world()
    task = tasks.Task("linear", system, system, nearly_one_start, GAMMA, 3)
    options = {"horizon": 3, "starts": 32, "batch": 32, "update": Update("sgd", RATE / 10, 2)}
    critic = ExactCritic(system, W, GAMMA)
    found = measure(task, policy_of(), critic, judges=asked, **options).rehearsal
    assert found.judges == judges and found.draws == 2
    assert (found.again.shape[2], found.again_judges) == (draws, each)
    assert found.promised(found.chosen, 2).n == draws * each


def test_returns_that_are_decided_late_are_rolled_out_for_longer():
    """γ λ² = .983: a change of the return is not over where the gradient is."""

    def starts(n, generator):
        return 1 + 0.01 * torch.randn(n, 1, generator=generator).double()

    slow = LinearQuadratic(*(matrix((value,)) for value in (1.055, 0.1, 1.0, 0.1, 0.0)))
    weight, rate = matrix((-0.1,)), 1e-4
    policy = nn.Linear(1, 1, bias=False).double()
    policy.weight.data = weight.clone()
    task = tasks.Task("slow", slow, slow, starts, discount=0.9, horizon=3)
    options = {"horizon": 3, "starts": 32, "batch": 32, "update": Update("sgd", rate, 5)}
    critic = ExactCritic(slow, weight, 0.9)
    found = measure(task, policy, critic, bptt(slow, 0.9), **options).rehearsal
    moment, (_, horizon) = matrix((1.0,)), found.chosen
    after = weight + rate * lqr_gradient(slow, weight, moment, 0.9, "all", horizon).reshape(1, 1)

    def change(steps: int) -> float:
        moved, still = (lqr_return(slow, each, moment, 0.9, steps) for each in (after, weight))
        return float(moved - still)

    assert found.again_horizon == 3 * found.horizon and not found.comparable
    assert found.again[-1, 0] == pytest.approx([change(found.again_horizon)] * 4, rel=0.02)
    place = found.cells.index(found.chosen)
    assert found.change[place, 0].mean() == pytest.approx(change(found.horizon), rel=0.02)
    assert change(found.horizon) < 0.97 * change(found.again_horizon)


def test_states_are_visited_for_as_long_as_returns_are_summed_where_the_truth_is_cut(monkeypatch):
    """r = a, and a critic (t − 5) a, wrong in the first five steps alone: 9 is the mean of t."""
    kept = []

    def caught(*given):
        kept.extend(given)
        raise KeyboardInterrupt

    clock = from_function(lambda s, a: (s + 1, a[:, 0]), 1, 1)
    task = tasks.Task(
        "clock", clock, None, lambda n, g: 0.01 * torch.rand(n, 1, generator=g), 0.9, 3
    )
    monkeypatch.setattr("gradlab.measurement.measure.rehearsal", caught)
    policy = nn.Linear(1, 1).double()
    with pytest.raises(KeyboardInterrupt):
        measure(task, policy, lambda s, a: (s[:, 0] - 5) * a[:, 0], starts=32, batch=32)
    asked, measured, truth, table, *_ = kept
    early = visits(replace(asked.setting, horizon=3), measured.visits)
    cut = replace(measured, at=early), replace(truth, status="cut", horizon=3)
    for moments, reference in ((measured, truth), cut):
        found = rehearsal(asked, moments, reference, table, Update("sgd", 1e-4, refit=5))
        assert found.horizon > 20 and found.low[found.cells.index(("data", 0)), -1] > 0


def test_where_nothing_can_be_judged_nothing_is_rehearsed():
    states = tasks.double_integrator().starts(16, torch.Generator().manual_seed(0))
    assert measured(starts=states).rehearsal is None
    assert measured(starts=16, law="start").rehearsal is None
    assert measured(starts=16, rehearse=False).rehearsal is None


def test_the_horizon_of_the_largest_gain_is_rehearsed_beside_a_shorter_one_that_gains_as_much():
    """Of a crane 25 steps gained 0.989 and 22 steps 0.972, but 2.7 and 2.1 over 25 updates."""
    gains = {("data", 0): 0.86, ("model", 22): 0.972, ("model", 25): 0.989, ("model", 1): 0.1}
    rows = [
        {"quantity": "gain", "estimator": name, "horizon": h, "value": gain}
        for (name, h), gain in gains.items()
    ]
    cells = candidate_cells(list(gains), pd.DataFrame(rows), by_default(["data", "model"]))
    assert cells == [("model", 22), ("model", 25), ("data", 0), ("model", 1)]


def test_the_ends_of_the_horizons_that_a_recommendation_may_name_are_rehearsed():
    """Of a wheeled pendulum 0–20 steps were named, and 20 of them lowered the return."""
    gains = [0.97, 0.99, 1.0, 0.99, 0.95, 0.88, 0.92, 0.3]
    rows = [
        {"quantity": "gain", "estimator": "model_all", "horizon": h, "value": gain}
        for h, gain in enumerate(gains)
    ]
    measured = [("model_all", h) for h in range(len(gains))]
    cells = candidate_cells(measured, pd.DataFrame(rows), by_default(["model_all"]))
    best, largest, alone, ends = 1, 2, 0, (1, 4)  # 6 lies behind 5, which gains less than 0.9
    assert [h for _, h in cells] == [best, largest, alone, ends[1], 7]
