"""Measurements beside a loop: the numbers of `measure`, closed forms, failures of real systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradlab
from gradlab.choice.best import candidates
from gradlab.choice.weights import pair_cells
from gradlab.data.trajectories import child
from gradlab.probe.arguments import Past, Question
from gradlab.probe.measured import measured
from gradlab.runs.probe.schema import ESTIMATORS
from gradlab.statistics.mixing import mixture_weights
from gradlab.tasks import Task
from tests.probe.small_loops import EYE, linear_task

A = torch.tensor([[0.9, 0.2], [0.0, 0.8]], dtype=torch.float64)
B = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
GAIN = torch.tensor([[-0.05, -0.4]], dtype=torch.float64)


def task(prior_b: Tensor = B) -> Task:
    return linear_task(A=A, B=B, start_mean=torch.ones(2, dtype=torch.float64), prior=(A, prior_b))


def policy() -> nn.Module:
    found = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        found.weight.copy_(GAIN)
    return found


def true_value() -> Tensor:
    """P of V(s) = −sᵀ P s under the policy, noise left out."""
    M, cost, P = A + B @ GAIN, EYE + GAIN.T @ GAIN, torch.zeros_like(EYE)
    for _ in range(500):
        P = cost + 0.8 * M.T @ P @ M
    return P


class Critic(nn.Module):
    """`scale` times the true Q, plus `shift`."""

    def __init__(self, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift
        self.register_buffer("P", true_value())

    def forward(self, s: Tensor, a: Tensor) -> Tensor:
        after = s @ A.to(s).T + a @ B.to(s).T
        cost = (s**2).sum(1) + (a**2).sum(1) + 0.8 * ((after @ self.P.to(s)) * after).sum(1)
        return -self.scale * cost + self.shift


def test_a_measurement_has_the_numbers_of_measure():
    question = Question(replace(task(0.8 * B), horizon=6), Critic(0.7), seed=3)
    row, _ = measured(question, policy(), 128, 17, Past())
    profile = gradlab.measure(
        question.task, policy(), Critic(0.7), starts=64, batch=128, truth="matched",
        seed=child(3, "probe 17"),
    )  # fmt: skip
    for quantity in ("bias2", "variance", "mse", "snr"):
        q = profile.quantities.index(quantity)
        for e, name in enumerate(ESTIMATORS):
            want = profile.columns["value"][profile.estimators.index(name), q]
            np.testing.assert_allclose(row[quantity][e], want, rtol=1e-12)
    chosen = gradlab.choose(profile)
    assert chosen.mse is not None
    cell = ESTIMATORS[row["chosen_estimator"]], row["chosen_horizon"]
    assert cell == chosen.mse.cell
    among = candidates(profile, None)
    weights = mixture_weights(among.kernels.grams(pair_cells(profile, among)), 128, "mse")
    assert row["weight_zero"] == pytest.approx(float(weights.share[0]), abs=1e-9)


class Offset(nn.Module):
    """K s + b, of which b alone is trained, or nothing that is trained moves the action."""

    def __init__(self, moves: float = 1.0) -> None:
        super().__init__()
        self.moves = moves
        self.b = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, s: Tensor) -> Tensor:
        return s @ GAIN.T.to(s) + self.moves * self.b


def test_a_true_gradient_that_is_lost_in_noise_is_no_gradient_of_0():
    """By symmetry of the starts ∇_b J is 0, and none of its samples is."""
    centred = linear_task(A=A, B=B, prior=(A, B))
    question = Question(replace(centred, horizon=2), Critic(), seed=3)
    norms = [measured(question, Offset(), 128, k, Past())[0]["truth_norm"] for k in range(6)]
    assert 0 < np.isnan(norms).sum() < 6 and 0 not in norms
    assert measured(question, Offset(0.0), 128, 0, Past())[0]["truth_norm"] == 0


def test_growth_and_errors_of_jacobians_are_those_of_the_matrices():
    row, past = measured(Question(task(0.5 * B), None, seed=0), policy(), 256, 1, Past())
    radius = float(torch.linalg.eigvals(A + B @ GAIN).abs().max())
    assert row["lyapunov"] == pytest.approx(np.log(radius), abs=0.01)
    assert past.scale is not None
    J = np.concatenate([A.numpy(), B.numpy()], 1) * past.scale
    wrong = np.concatenate([0 * A.numpy(), 0.5 * B.numpy()], 1) * past.scale
    want = np.log(np.linalg.norm(wrong) / np.linalg.norm(J))
    assert row["jacobian_error"] == pytest.approx(want, abs=1e-9)
    exact, _ = measured(Question(task(), None, seed=0), policy(), 256, 2, past)
    assert exact["jacobian_error"] == -np.inf
    better, _ = measured(Question(task(0.75 * B), None, seed=0), policy(), 256, 3, past)
    assert row["jacobian_error"] - better["jacobian_error"] == pytest.approx(np.log(2), abs=1e-9)


def test_measurements_are_new_draws_and_repeat_with_the_seed():
    question = Question(task(0.8 * B), None, seed=1)
    one, same, other = (measured(question, policy(), 256, k, Past())[0] for k in (5, 5, 6))
    assert one["reward_max"] == same["reward_max"] != other["reward_max"]
    later, past = measured(question, policy(), 256, 5, Past(reward_max=1e9))
    assert later["return_bound"] == pytest.approx(5e9) and past.reward_max == 1e9


def rung(worlds: Sequence[Task], critic: nn.Module) -> set[str]:
    """A loop of four updates that are all looked at; it is measured after 1, 2 and 4, each time in
    the next world."""
    net, left = policy(), iter(worlds[1:])
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    probe = gradlab.Probe(net, optimizer, worlds[0], critic, every=1)
    for step in range(4):
        optimizer.zero_grad()
        with probe(step):
            net(torch.ones(4, 2, dtype=torch.float64)).sum().backward()
        optimizer.step()
        if step in (0, 1):
            probe._loop.question = Question(next(left, worlds[-1]), critic, 0)
    assert not probe.off and len(probe._log.rows["measured"]) == 3
    probe.close()
    return {each.code for each in probe.alarms}


WORSE = [task(0.9 * B), task(0.9 * B), task(0.1 * B)]
OF_THE_CRITIC = {"critic-dominated bias", "wrong direction"}  # of the shortest horizons
OF_THE_PRIOR = {"drifting model Jacobian", "wrong direction", "worse than without a model"}


@pytest.mark.parametrize(
    "worlds, critic, kinds",
    [
        ([task(0.9 * B)], {}, set()),
        ([task(0.999 * B)], {"scale": 0.2}, OF_THE_CRITIC),
        ([task(0.9 * B)], {"shift": 1e4}, {"critic beyond its bound"}),
        (WORSE, {}, OF_THE_PRIOR),
    ],
)
@pytest.mark.sampled(2)
def test_a_wrong_critic_and_a_prior_that_gets_worse_are_told_and_sound_ones_are_not(
    worlds, critic, kinds
):
    assert rung(worlds, Critic(**critic)) == kinds
