"""Three small worlds on which learned models are compared: task, policy, critic and shared truth.

    linear      a mass on a line, quadratic reward; data of random actions
    pendulum    Gymnasium's Pendulum-v1, held upright; data of random actions from everywhere
    cart-pole   MPG's inverted pendulum in closed form, wide slider; data of an exploring policy

Policies are linear feedback, gradients are measured from a box of starts to one side of the
equilibrium, and the critic is quadratic, so that the simulator's own gradient with it errs by less
than 0.1% of the squared norm of the truth: what is left is the model's.

None of the policies is optimal, since at an optimum the gradient is zero and every bias is all of
it. Noise, where there is some, is normal on s' with a given share of the spread of s' − s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import final

import torch
from torch import Tensor, nn

from analyses.harness.systems import Around
from gradlab import tasks
from gradlab.data.noise import stream
from gradlab.data.trajectories import Trajectories
from gradlab.fitting.collection import collect, exploring
from gradlab.fitting.policies import riccati_gain
from gradlab.measurement.assembly import SharedTruth, shared_truth
from gradlab.networks.mlp import Policy
from gradlab.systems.pendulum import wrap
from gradlab.systems.system import Linearization, Transition
from gradlab.tasks import Task

STARTS = 512
LONGEST = 10
RETURN = 200  # steps, after which γᵗ is below 1e-4
DISCOUNT = 0.95  # with MPG's 0.98 the critics' errors hide those of the models
HOLD = torch.tensor([[8.0, 2.0]], dtype=torch.float64)  # N m, N m s: little torque is clipped
DETUNED = 0.5  # of the optimal gain


@dataclass(frozen=True, eq=False)
class World:
    """Where models are compared.

    Attributes:
        behaviour: what data are recorded with; None: random actions.
        truth: of the policy's gradient, shared by all models.
    """

    name: str
    noise: float
    task: Task
    policy: nn.Module
    critic: nn.Module
    behaviour: nn.Module | None
    truth: SharedTruth

    def record(self, rows: int, seed: int) -> Trajectories:
        """Transitions; the pendulum's angles, which grow without end, start in [−π, π)."""
        found = collect(self.task, rows, self.behaviour, seed=seed)
        if self.name != "pendulum":
            return found
        turn = found.state[:, 0] - wrap(found.state[:, 0])
        shift = torch.stack([turn, torch.zeros_like(turn)], dim=1)
        label = torch.stack([found.trajectory.double(), turn.round(decimals=3)], dim=1)
        piece = torch.unique_consecutive(label, dim=0, return_inverse=True)[1]
        return replace(
            found,
            trajectory=piece,
            state=found.state - shift,
            next_state=found.next_state - shift,
        )

    def reward(self, state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        """The simulator's, which the models are given."""
        return self.task.simulator.step(state, action).reward


@dataclass(frozen=True, eq=False)
class Noisy(Around):
    """s' + std ξ of another system; std [ds]. Jacobians, rewards and termination are its own."""

    std: Tensor

    @property
    def noise_dim(self) -> int:
        return len(self.std)

    @property
    def differentiable(self) -> bool:
        return self.system.differentiable

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        found = self.system.step(state, action)
        moved = found.state if noise is None else found.state + self.std.to(state) * noise
        return replace(found, state=moved)

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        return self.system.linearize(state, action)

    def sample_noise(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        shape = (n, self.noise_dim)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def linear(noise: float) -> World:
    task = tasks.double_integrator(noise=0.0, start_mean=(1.0, 0.0))
    gain = riccati_gain(task.simulator, torch.zeros(2).double(), task.discount)
    policy = _feedback(DETUNED * gain)
    return _world("linear", noise, task, policy, None, ((0.0, 2.0), (-1.0, 1.0)))


def pendulum(noise: float) -> World:
    task = tasks.pendulum(discount=DISCOUNT)
    return _world("pendulum", noise, task, _feedback(HOLD), None, ((-0.1, 0.2), (-0.3, 0.3)))


def cart_pole(noise: float) -> World:
    task = tasks.inverted_pendulum(engine="analytic", slider="wide")
    task = replace(task, discount=DISCOUNT)
    gain = riccati_gain(task.simulator, torch.zeros(4).double(), task.discount)
    policy = _feedback(DETUNED * gain)
    return _world("cart-pole", noise, task, policy, exploring(task, policy), ((-0.05, 0.1),) * 4)


WORLDS: Mapping[str, Callable[[float], World]] = {
    "linear": linear,
    "pendulum": pendulum,
    "cart-pole": cart_pole,
}


@cache
def world(name: str, noise: float = 0.0) -> World:
    """Made once per process."""
    return WORLDS[name](noise)


def _world(
    name: str, noise: float, task: Task, policy: nn.Module, behaviour: nn.Module | None,
    box: Sequence[tuple[float, float]],
) -> World:  # fmt: skip
    if noise:
        seen = collect(task, 2000, behaviour, seed=10_000)
        spread = (seen.next_state - seen.state).std(dim=0)
        task = replace(task, simulator=Noisy(task.simulator, noise * spread), prior=None)
    return _seen(name, noise, task, policy, behaviour, box)


def _seen(
    name: str, noise: float, task: Task, policy: nn.Module, behaviour: nn.Module | None,
    box: Sequence[tuple[float, float]],
) -> World:  # fmt: skip
    """The world from starts in a box."""
    low, high = torch.tensor(box, dtype=torch.float64).T

    def inside(n: int, generator: torch.Generator) -> Tensor:
        unit = torch.rand(n, len(box), generator=generator, dtype=torch.float64)
        return low + (high - low) * unit

    measured = replace(task, starts=inside)
    critic = quadratic_critic(measured, policy)
    truth = shared_truth(measured, policy, starts=STARTS, horizon=LONGEST)
    return World(name, noise, task, policy, critic, behaviour, truth)


@final
class QuadraticCritic(nn.Module):
    """Q = xᵀ C x of x = [1, s, a]; C [1 + ds + da, 1 + ds + da]."""

    C: Tensor

    def __init__(self, C: Tensor) -> None:
        super().__init__()
        self.register_buffer("C", C)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        x = torch.cat([torch.ones_like(state[:, :1]), state, action], dim=1)
        return torch.einsum("ni,ij,nj->n", x, self.C.to(x), x)


@torch.no_grad()
def quadratic_critic(task: Task, policy: nn.Module) -> QuadraticCritic:
    """Least squares on returns of undisturbed rollouts that begin with a varied action, from the
    states that the policy passes within the longest horizon. Near an equilibrium little is left."""
    state = task.starts(STARTS, stream(0, "critic"))
    passed = [state]
    for _ in range(LONGEST):
        passed.append(task.simulator.step(passed[-1], policy(passed[-1])).state)
    state = torch.cat(passed)
    action = policy(state)
    draw = torch.randn(action.shape, generator=stream(0, "critic actions"), dtype=torch.float64)
    action = action + action.std(dim=0) * draw
    x = torch.cat([torch.ones_like(state[:, :1]), state, action], dim=1)
    one, other = torch.triu_indices(x.shape[1], x.shape[1])
    returns = _returns(task, policy, state, action)
    found = torch.linalg.lstsq(x[:, one] * x[:, other], returns[:, None]).solution[:, 0]
    C = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    C[one, other] = found
    return QuadraticCritic((C + C.T) / 2)


def _returns(task: Task, policy: nn.Module, state: Tensor, action: Tensor) -> Tensor:
    total = torch.zeros(len(state), dtype=torch.float64)
    for t in range(RETURN):
        found = task.simulator.step(state, action)
        total += task.discount**t * found.reward
        state = found.state
        action = policy(state)
    return total


def _feedback(gain: Tensor) -> nn.Module:
    """a = −K s as weights and biases, θ."""
    policy = Policy(gain.shape[1], gain.shape[0], hidden=()).double()
    weight, bias = policy.parameters()
    with torch.no_grad():
        weight.copy_(-gain)
        bias.zero_()
    return policy
