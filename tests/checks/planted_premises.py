"""Tasks, policies and critics that leave nothing to decide, each with the words that say so."""

import torch
from torch import Tensor, nn

from gradlab.systems import from_function
from gradlab.tasks import Task
from tests.checks.planted_faults import draws

PUSH = 0.3


class Linear(nn.Module):
    """a = squash(gain Σ s + bias)."""

    def __init__(
        self, squash=lambda x: x, gain: float = -0.4, bias: float = 0.0, sees=lambda s: s
    ) -> None:
        super().__init__()
        self.layer, self.squash, self.sees = nn.Linear(2, 1), squash, sees
        nn.init.constant_(self.layer.weight, gain)
        nn.init.constant_(self.layer.bias, bias)

    def forward(self, state: Tensor) -> Tensor:
        return self.squash(self.layer(self.sees(state)))


class Quadratic(nn.Module):
    """Q(s, a) = level − size (|s|² + |a|²)."""

    def __init__(self, size: float = 4.0, level: float = 0.0) -> None:
        super().__init__()
        self.size, self.level = nn.Parameter(torch.tensor(size)), level

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.level - self.size * ((state**2).sum(1) + (action**2).sum(1))


def cost(s: Tensor, a: Tensor) -> Tensor:
    return -(s**2).sum(1) - 0.1 * (a**2).sum(1)


def world(reward=cost, push: float = PUSH, cut=lambda s, a: (s, a)):
    """`cut`: what the next state is made from."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        before, action = cut(s, a)
        speed = torch.tanh(before[:, 1:] + push * action)
        return torch.cat([before[:, :1] + 0.2 * speed, 0.9 * speed], 1), reward(s, a)

    return from_function(step, 2, 1)


def task(reward=cost, push: float = PUSH, model: float = 0.8, starts=draws) -> Task:
    simulator = world(reward, push)
    prior = simulator if model == 0 else world(reward, model * push)
    return Task("planted", simulator, prior, starts, 0.9, 3)


CASES = {
    "zero reward": (task(lambda s, a: 0 * s[:, 0]), Linear(), Quadratic(), "Constant reward: 0"),
    "constant reward": (
        task(lambda s, a: 0 * s[:, 0] + 1), Linear(), Quadratic(), "Constant reward: ",
    ),
    "dead output": (
        task(), Linear(lambda x: torch.relu(x - 1e3)), Quadratic(), "Policy without effect",
    ),
    "saturated output": (
        task(), Linear(lambda x: torch.tanh(x + 50)), Quadratic(), "Policy without effect",
    ),
    "a threshold": (
        task(), Linear(lambda x: 0 * x + ((x + 1).abs() < 0.01), 0.0, -1.0), Quadratic(),
        "Return without derivative",
    ),
    "ignored actions": (
        task(lambda s, a: -(s**2).sum(1), push=0.0), Linear(), Quadratic(), "Policy without effect",
    ),
    "lost in rounding": (
        task(lambda s, a: -(s**2).sum(1), push=1e-20), Linear(), Quadratic(),
        "Policy without effect",
    ),
    "a detached action": (
        Task("planted", world(cut=lambda s, a: (s, a.detach())), world(), draws, 0.9, 3),
        Linear(), Quadratic(), "Derivatives of 0: simulator's step by its action, 2 of 9",
    ),
    "a policy that detaches the state": (
        task(), Linear(sees=lambda s: s.detach()), Quadratic(),
        "Derivatives of 0: policy's action by its state, 2 of 2",
    ),
    "a detached state": (
        Task("planted", world(), world(cut=lambda s, a: (s.detach(), a)), draws, 0.9, 3),
        Linear(), Quadratic(), "Derivatives of 0: prior model's step by its state, 3 of 9",
    ),
    "another derivative": (
        Task(
            "planted", world(cut=lambda s, a: (s, a.detach() + 3 * (a - a.detach()))), world(),
            draws, 0.9, 3,
        ),
        Linear(), Quadratic(), "Simulator's wrong derivative: ∂f/∂a",
    ),
    "a critic of another scale": (
        task(), Linear(), Quadratic(0.02), "Critic's values over returns",
    ),
    "a critic of the other sign": (
        task(), Linear(), Quadratic(-4.0), "Critic's values over returns",
    ),
    "a critic that is turned": (
        task(), Linear(), Quadratic(-4.0, -13.0), "Returns over the critic's changes",
    ),
}  # fmt: skip
