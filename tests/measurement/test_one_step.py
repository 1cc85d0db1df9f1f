"""Steps along gradients against closed-form returns of a linear-quadratic system."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from gradlab import load, measure, tasks
from gradlab.data.noise import stream
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Tail
from gradlab.measurement.one_step import JUDGES, Question, halves, one_step_improvement
from gradlab.runs.one_step import (
    LINEAR,
    TRUTH,
    OneStepImprovement,
    interval_of,
)
from gradlab.storage.codec import arrays, decoded
from gradlab.systems.linear import LinearQuadratic
from gradlab.truth.lqr import ExactCritic, lqr_return
from gradlab.truth.truth import matched_truth
from tests.gradients.worlds import linear, matrix

GAMMA, N = 0.9, 96
W = -matrix((0.4, 0.6))


def world(noise=0.0) -> LinearQuadratic:
    one = linear()
    return LinearQuadratic(one.A, one.B, one.Q, one.R, noise * one.noise_covariance)


def policy_of(weight=W) -> nn.Linear:
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = weight.clone()
    return policy


def asked(kind="first", noise=0.0, **changed):
    simulator, policy = world(noise), policy_of()
    begin = as_starts(torch.randn(N, 2, generator=stream(0, "starts")).double(), 2)
    setting = Setting(simulator, policy, begin, GAMMA, 5)
    truth = matched_truth(setting, kinds=[kind])
    return Question(replace(setting, **changed), truth, False)


def estimators(simulator, policy) -> dict[str, Estimator]:
    exact = ExactCritic(simulator, policy.weight.detach(), GAMMA)
    tail = Tail(5, exact, GAMMA)
    wrong = LinearQuadratic(
        simulator.A, simulator.B @ matrix((-0.5,)), simulator.Q, simulator.R,
        simulator.noise_covariance,
    )  # fmt: skip
    return {
        "right": Estimator(simulator, simulator, "first", tail),
        "wrong": Estimator(wrong, wrong, "all", Tail(5, None, GAMMA)),
    }


@pytest.fixture(scope="module")
def found():
    question = asked()
    made = estimators(question.setting.simulator, question.setting.policy)
    return question, one_step_improvement(
        question, made, [("wrong", 5), ("right", 3), ("right", 5)]
    )


def test_a_step_changes_the_return_by_what_the_closed_form_says(found):
    question, steps = found
    s = question.setting.starts.states[N // 2 :]
    moments = torch.einsum("ni,nj->nij", s, s)
    T = question.truth.horizon
    making = as_starts(question.setting.starts.states[: N // 2], 2)
    true = matched_truth(
        Setting(question.setting.simulator, question.setting.policy, making, GAMMA, 5)
    ).first
    assert true is not None
    g = (true.gradients[:, :, None] * making.states[:, None]).mean(dim=0)
    moved = W + steps.step * g / g.norm()
    before, after = (
        lqr_return(question.setting.simulator, w, moments, GAMMA, T).numpy() for w in (W, moved)
    )
    assert steps.gain[0] == pytest.approx(after - before, rel=1e-6, abs=1e-12)
    assert steps.change((TRUTH, 0)).value == pytest.approx((after - before).mean(), rel=1e-6)


def test_slices_hold_the_step_and_nothing_at_its_foot(found):
    _, steps = found
    assert steps.steps == pytest.approx(-steps.steps[::-1])
    assert (steps.slices[:, len(steps.steps) // 2] == 0).all()
    at = int(np.argmin(np.abs(steps.steps - steps.step)))
    assert steps.slices[0, at] == pytest.approx(steps.gain[0])
    assert steps.slices[1, at] == pytest.approx(steps.gain[steps.cells.index(("wrong", 5))])
    assert [steps.cells[c] for c in steps.sliced] == [(TRUTH, 0), ("wrong", 5)]


def test_the_step_is_the_largest_that_is_still_a_line(found):
    _, steps = found
    mean = steps.slices[0].sum(axis=1)
    half = len(steps.steps) // 2
    up, down = mean[half + 1 :], mean[:half][::-1]
    ratio = np.abs(up + down) / np.abs(up - down)
    k = int(np.argmin(np.abs(steps.steps[half + 1 :] - steps.step)))
    assert steps.curvature == pytest.approx(ratio[k])
    assert (ratio[: k + 1] <= LINEAR).all() and (k == half - 1 or ratio[k + 1] > LINEAR)


def test_an_exact_gradient_gains_what_the_truth_gains_and_a_wrong_one_loses(found):
    _, steps = found
    share = steps.share(("right", 3))
    assert share is not None
    assert share[0] == pytest.approx(1.0, abs=1e-6)
    wrong = steps.share(("wrong", 5))
    assert wrong is not None and wrong[1].low < wrong[0] < wrong[1].high < 0
    assert steps.share((TRUTH, 0))[0] == 1.0


def test_to_first_order_a_share_is_the_cosine_with_the_gradient_of_what_is_realised():
    question = asked("all")
    estimator = Estimator(
        question.setting.simulator, question.setting.simulator, "all", Tail(3, None, GAMMA)
    )
    steps = one_step_improvement(question, {"short": estimator}, [("short", 3)])
    assert steps is not None
    making = question.setting.starts.states[: N // 2]
    short = estimator.mean_gradient(question.setting.policy, making)
    assert question.truth.every is not None
    true = question.truth.every.gradients
    there = true[N // 2 :].mean(dim=0)  # what the judging starts would climb
    made = true[: N // 2].mean(dim=0)
    expected = (short @ there / short.norm()) / (made @ there / made.norm())
    assert steps.share(("short", 3))[0] == pytest.approx(float(expected), abs=0.02)


def test_intervals_of_gains_cover_under_noise():
    """Over many sets of judging starts, the closed-form mean gain is inside in about 95%."""
    hits = []
    for seed in range(40):
        question = asked(noise=1.0, seed=seed)
        states = torch.randn(N, 2, generator=stream(seed, "more starts")).double()
        states[: N // 2] = question.setting.starts.states[: N // 2]  # the same gradient every time
        begin = as_starts(states, 2)
        question = replace(question, setting=replace(question.setting, starts=begin))
        truth = question.truth
        steps = one_step_improvement(
            question, estimators(world(), question.setting.policy), [("right", 0)]
        )
        assert steps is not None
        s = torch.eye(2).double()
        g = (truth.first.gradients[: N // 2, :, None] * states[: N // 2, None]).mean(dim=0)
        moved = W + steps.step * g / g.norm()
        before, after = (
            float(lqr_return(world(1.0), w, s, GAMMA, truth.horizon)) for w in (W, moved)
        )
        change = steps.change((TRUTH, 0))
        ends = interval_of(change)
        hits.append(ends.low <= after - before <= ends.high)
    assert np.mean(hits) >= 0.85


def test_no_truth_no_groups_and_zero_gradients_have_no_consequence():
    question = asked()
    made = estimators(question.setting.simulator, question.setting.policy)
    none = replace(question.truth, status="none", first=None)
    assert one_step_improvement(replace(question, truth=none), made, [("right", 3)]) is None
    assert one_step_improvement(question, made, []) is None
    mixed = replace(question.setting.starts, group=torch.arange(N) % 4)
    assert (
        one_step_improvement(
            replace(question, setting=replace(question.setting, starts=mixed)), made, [("right", 3)]
        )
        is None
    )


def test_halves_part_groups_and_keep_the_noise_of_the_whole():
    begin = asked().setting.starts
    grouped = replace(begin, group=9 - torch.arange(N) // 10)  # labels need not rise
    sides = halves(grouped)
    assert sides is not None
    one, other = sides
    assert not set(one.group.tolist()) & set(other.group.tolist())
    assert len(one.states) in (40, 50) and len(other.states) <= JUDGES
    assert other.begin == len(one.states) and other.of == N
    assert torch.equal(
        other.dynamics_noise(world(1.0), 0, 2),
        begin.dynamics_noise(world(1.0), 0, 2)[other.begin :],
    )


def test_a_file_holds_every_number_of_it(found):
    _, steps = found
    again = decoded(OneStepImprovement, arrays(steps))
    assert again.cells == steps.cells and again.sliced == steps.sliced
    for name in ("gain", "size", "steps", "slices"):
        assert np.array_equal(getattr(again, name), getattr(steps, name))
    for name in ("step", "moves", "curvature", "horizon", "made"):
        assert getattr(again, name) == getattr(steps, name)
    assert again.table().equals(steps.table())


@pytest.mark.parametrize("law", ["start", pytest.param("visited", marks=pytest.mark.slow)])
def test_a_measurement_takes_the_steps_of_its_cells_and_keeps_them(law, tmp_path):
    task = tasks.double_integrator()
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = -matrix((2.0, 2.0))
    critic = ExactCritic(task.simulator, policy.weight.detach(), task.discount)
    found = measure(task, policy, critic, horizon=3, starts=64, law=law, consequence=True)
    steps = found.consequence
    assert steps is not None and steps.cells[0] == (TRUTH, 0)
    assert steps.cells[1][0] == "model" and steps.sliced[1] == 1
    assert not [cell for cell in steps.cells[2:] if cell[1] == 0 and cell[0] != "data"]
    assert (steps.made, steps.starts) == (32, 32)
    again = load(found.save(tmp_path / "run.h5")).consequence
    assert again is not None and np.array_equal(again.gain, steps.gain)
