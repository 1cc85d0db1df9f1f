"""Rows of a batch are treated alone, or the network is refused before anything is computed."""

import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.networks.interface import check_rows
from gradlab.systems import from_function
from gradlab.tasks import Task

ROWS = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Mixed(nn.Module):
    """A linear layer, and something over the rows of the batch."""

    def __init__(self, kind, outputs=None, inputs=2):
        super().__init__()
        self.layer, self.kind = nn.Linear(inputs, outputs or 1), kind
        self.norm, self.outputs = nn.BatchNorm1d(outputs or 1, track_running_stats=False), outputs
        self.eval()

    def forward(self, *inputs):
        x = self.layer(torch.cat(inputs, dim=1))
        found = {
            "none": lambda: x,
            "softmax": lambda: torch.softmax(x, dim=0),
            "mean": lambda: x - x.mean(dim=0),
            "batch-norm": lambda: self.norm(x),
        }[self.kind]()
        return found if self.outputs else found[:, 0]


def draws(n, generator):
    return torch.randn(n, 2, generator=generator, dtype=torch.float64)


def world(kind="none"):
    def step(s, a):
        after = torch.tanh(s + 0.3 * a)
        if kind == "state":
            after = after - 0.1 * after.mean(dim=0)
        reward = -(s**2).sum(1)
        return after, reward / reward.sum() if kind == "reward" else reward

    return Task("mixed", from_function(step, 2, 1), None, draws, 0.9, 3)


@pytest.mark.parametrize("kind", ["softmax", "mean", "batch-norm"])
def test_a_policy_that_mixes_rows_is_refused_at_the_door(kind):
    policy = Mixed(kind, outputs=1)
    with pytest.raises(InputError, match="policy mixes the rows of a batch"):
        gradlab.measure(world(), policy, Mixed("none", inputs=3), starts=16)


@pytest.mark.parametrize("kind", ["softmax", "mean", "batch-norm"])
def test_a_critic_that_mixes_rows_is_refused_at_the_door(kind):
    critic = Mixed(kind, inputs=3)
    with pytest.raises(InputError, match="critic mixes the rows of a batch"):
        gradlab.measure(world(), Mixed("none", outputs=1), critic, starts=16)


@pytest.mark.parametrize("kind", ["state", "reward"])
def test_a_simulator_that_mixes_rows_is_refused_at_the_door(kind):
    with pytest.raises(InputError, match="step of the simulator mixes the rows"):
        gradlab.measure(world(kind), Mixed("none", outputs=1), Mixed("none", inputs=3), starts=16)


def test_rounding_noise_and_rows_out_of_range_are_no_mixing():
    check_rows("float32", nn.Linear(3, 5), ROWS.float())
    check_rows("random", lambda x: x + torch.rand_like(x), ROWS)
    check_rows("one row", lambda x: x - x.mean(0), ROWS[:1])

    def guarded(x):
        if not torch.equal(x, ROWS):
            raise ValueError("out of range")
        return x

    check_rows("guarded", guarded, ROWS)
