"""Faults that are planted in a whole loop raise their alarm."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.probe.alarms.catalogue import saturated
from gradlab.probe.alarms.evidence import ALPHA, AlarmEvidence
from gradlab.probe.alarms.gradients import noise
from gradlab.probe.alarms.task import jacobian_drift
from gradlab.tasks.environments import with_learned_prior
from tests.probe.planted_rows import burst, measured, vitals
from tests.probe.small_loops import linear_task, looped, probed


class Tanh(nn.Module):
    """A policy that stops listening to its gradient, by what is planted."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.first, self.last, self.detached = nn.Linear(3, 8), nn.Linear(8, 1), detached

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(state))
        return self.last(hidden.detach() if self.detached else hidden)


@pytest.mark.parametrize("planted", [True, False])
@pytest.mark.parametrize(
    "kind, words", [("dead path", "first.weight, first.bias"), ("dead inputs", "first.weight: 1")]
)
def test_a_detached_layer_and_an_input_of_zeros_are_told_with_their_tensors(kind, words, planted):
    torch.manual_seed(0)
    policy = Tanh(detached=planted and kind == "dead path")
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)

    def loss(step: int) -> torch.Tensor:
        state = torch.randn(8, 3)
        state[:, 1] *= not (planted and kind == "dead inputs")
        return (policy(state) - 1).square().sum()

    probe = probed(policy, optimizer)
    looped(policy, optimizer, probe, 200, loss)
    told = [each.message for each in probe.alarms if each.kind == kind]
    assert bool(told) == planted and all(words in each for each in told)


@pytest.mark.parametrize("leak, quiet", [("optimizer", False), ("own", True), ("shared", False)])
def test_policy_updates_that_train_the_model_are_told(leak, quiet):
    torch.manual_seed(0)
    ensemble = GaussianEnsemble(2, 1, hidden=(8,), members=2, reward=True)
    task = with_learned_prior(linear_task(), ensemble.double())
    policy = nn.Linear(2, 1, dtype=torch.float64)
    weights = list(ensemble.parameters())
    if leak == "shared":
        policy.register_parameter("extra", weights[0])
    held = [*policy.parameters(), *(weights if leak == "optimizer" else [])]
    optimizer = torch.optim.SGD(held, 0.0)
    probe = gradlab.Probe(policy, optimizer, task=task, overhead_budget=1e-9)
    states = torch.randn(100, 4, 2, dtype=torch.float64)
    looped(
        policy, optimizer, probe,
        loss=lambda step: task.prior.step(s := states[step], policy(s), None).reward.sum(),
    )  # fmt: skip
    probe.close()  # without a budget the window ends here
    told = [each for each in probe.alarms if each.kind == "θ leaks into the model"]
    assert (told == []) == quiet


# False alarms stay below the stated rate over a whole run.


def test_levels_over_all_looks_sum_to_the_stated_rate():
    total = sum(AlarmEvidence([{}], k).level for k in range(1, 100_001))
    assert total == pytest.approx(ALPHA, rel=1e-4)


@pytest.mark.slow
def test_noise_rings_falsely_in_at_most_the_stated_share_of_runs():
    """At the worst gradient of the hypothesis, whose cosine is exactly 0.1, over 40 looks."""
    size = (200 * 0.01 / 0.99) ** 0.5
    false = 0
    for run in range(200):
        rows = [burst(size, 1000 * run + k) for k in range(40)]
        looks = (AlarmEvidence(rows[:k], k) for k in range(1, 41))
        false += any(noise(look) is not None for look in looks)
    assert false <= 6  # 200 · 1% = 2 expected at most; 6 or more has probability 0.02


def test_saturation_rings_falsely_in_at_most_the_stated_share_of_runs():
    generator = np.random.default_rng(0)
    false = 0
    for _ in range(500):
        shares = generator.binomial(100, 0.5, size=(40, 1)) / 100
        rows = [vitals(saturation=share) for share in shares]
        false += any(saturated(AlarmEvidence(rows[: k + 1], k + 1)) for k in range(len(rows)))
    assert false <= 12


def test_an_actor_that_saturates_late_in_a_long_run_rings():
    """Each row has 25 passes: alone, none could ring at the level of its ten-thousandth look."""
    rows = [vitals(saturation=np.array([0.1, 0.97]), watched=25)] * 16
    assert saturated(AlarmEvidence(rows[:1], 10_000)) is None
    assert saturated(AlarmEvidence(rows, 10_000)) is not None


def test_drift_rings_falsely_in_at_most_the_stated_share_of_runs():
    generator = np.random.default_rng(1)
    false = 0
    for _ in range(1000):
        errors = generator.normal(-1.0, 0.1, size=40)
        rows = [measured(jacobian_error=error) for error in errors]
        looks = (AlarmEvidence(rows[:k], k) for k in range(1, 41))
        false += any(jacobian_drift(look) is not None for look in looks)
    assert false <= 20
