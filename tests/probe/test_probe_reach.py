"""What a tanh lets through, and which tensors an update reaches."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.probe.small_loops import looped, probed


def rows(net: nn.Module, held: list[nn.Parameter], states: torch.Tensor) -> list[dict[str, object]]:
    """Vitals of two windows."""
    optimizer = torch.optim.SGD(held, 0.0)
    probe = probed(net, optimizer)
    looped(net, optimizer, probe, 200, lambda step: net(states).sum())
    assert not probe.off
    return [dict(row) for row in probe.alarm_log.rows[0]["vitals"]]


@pytest.mark.parametrize("size", [0.1, 2.0, 30.0])
def test_attenuation_is_the_mean_derivative_of_the_tanh(size):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh()).double()
    states = size * torch.randn(16, 3, dtype=torch.float64)
    latent = net[0](states).detach().requires_grad_()
    (slope,) = torch.autograd.grad(torch.tanh(latent).sum(), latent)
    first, _ = rows(net, [*net.parameters()], states)
    np.testing.assert_allclose(first["attenuation"], slope.mean(0).numpy(), rtol=1e-9, atol=1e-12)


def test_what_an_update_reaches_is_said_once():
    net, other = nn.Linear(3, 1), nn.Linear(2, 1)
    net.bias.requires_grad_(False)
    held = [net.weight, *other.parameters()]
    first, second = rows(net, held, torch.randn(4, 3))
    assert str(first["reaches"]).startswith(
        "updates move 1 of 2 tensors of the policy and 2 others; no task"
    )
    assert second["reaches"] == ""
