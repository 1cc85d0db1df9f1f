"""Faults that are planted in a whole loop raise their alarm."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import gradlab
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.tasks.environments import with_learned_prior


class Tanh(nn.Module):
    """A policy that stops listening to its gradient, by what is planted."""

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.first, self.last, self.detached = nn.Linear(3, 8), nn.Linear(8, 1), detached

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(state))
        return self.last(hidden.detach() if self.detached else hidden)


@pytest.mark.parametrize("detached", [True, False])
def test_a_detached_layer_in_a_loop_is_a_dead_path(detached: bool) -> None:
    torch.manual_seed(0)
    policy = Tanh(detached)
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, overhead_budget=1.0, clock=lambda: 0.0)
    for step in range(100):
        optimizer.zero_grad()
        with probe(step):
            policy(torch.randn(8, 3)).sum().backward()
        optimizer.step()
    told = [each.message for each in probe.alarms if each.kind == "dead path"]
    assert bool(told) == detached
    assert all("first.weight, first.bias" in each for each in told)


@pytest.mark.parametrize("planted", [True, False])
def test_an_input_that_is_always_zero_is_told_with_its_column(planted: bool) -> None:
    torch.manual_seed(0)
    policy = Tanh(detached=False)
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    probe = gradlab.Probe(policy, optimizer, overhead_budget=1.0, clock=lambda: 0.0)
    for step in range(200):
        optimizer.zero_grad()
        state = torch.randn(8, 3)
        state[:, 1] *= not planted
        with probe(step):
            (policy(state) - 1).square().sum().backward()
        optimizer.step()
    told = [each.message for each in probe.alarms if each.kind == "dead inputs"]
    assert bool(told) == planted and all("first.weight: 1" in each for each in told)


@pytest.mark.parametrize("leak, quiet", [("optimizer", False), ("own", True), ("shared", False)])
def test_policy_updates_that_train_the_model_are_told(leak: str, quiet: bool) -> None:
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
    for step in range(100):
        optimizer.zero_grad()
        s = torch.randn(4, 2, dtype=torch.float64)
        with probe(step):
            assert task.prior is not None
            task.prior.step(s, policy(s), None).reward.sum().backward()
        optimizer.step()
    probe.close()  # without a budget the window ends here
    told = [each for each in probe.alarms if each.kind == "θ leaks into the model"]
    assert (told == []) == quiet


def linear_task() -> gradlab.Task:
    eye = torch.eye(2, dtype=torch.float64)
    return gradlab.tasks.linear_quadratic(
        A=0.9 * eye, B=eye[:, :1], Q=eye, R=eye[:1, :1], noise_covariance=0.01 * eye,
        start_mean=torch.zeros(2, dtype=torch.float64), start_covariance=eye, discount=0.8,
    )  # fmt: skip
