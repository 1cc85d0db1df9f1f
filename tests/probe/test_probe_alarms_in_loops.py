"""Faults that are planted in a whole loop raise their alarm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradlab
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.tasks.environments import with_learned_prior
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
