"""Linear-quadratic worlds of one and two dimensions, whose moments and returns are known.

A rotated world whose moments at visited states are known, and linear feedback in it. A task that
turns its states, with a prior that pushes 40° aside. Steps along gradients in a linear world.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.gradients.setting import Starts, as_starts
from gradlab.tasks import Task, linear_quadratic
from tests.gradients.worlds import linear, matrix
from tests.linear_quadratic import ExactCritic, second_moment

GAMMA, STD = 0.9, 0.4


def feedback(weight):
    policy = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    policy.weight.data = weight.clone()
    return policy


def moments(system, weight, moment, steps, spread=0.0):
    """E[s_t s_tᵀ], t < steps."""
    closed = system.A + system.B @ weight
    noise = system.noise_covariance + spread * system.B @ system.B.T
    found = [moment]
    for _ in range(steps - 1):
        found.append(closed @ found[-1] @ closed.T + noise)
    return torch.stack(found)


def discounted(n):
    return GAMMA ** torch.arange(n, dtype=torch.float64)


def known_first(states, jacobians, weight, critic, moment, n):
    """E[J g_n] of the estimator from starts of this moment, by linear algebra on means."""
    F, M = states.A + states.B @ weight, jacobians.A + jacobians.B @ weight
    c = -2 * (states.Q + weight.T @ states.R @ weight)
    P, sim = critic.P, critic.system
    q_ss = -2 * (sim.Q + GAMMA * sim.A.T @ P @ sim.A)
    q_sa = -2 * GAMMA * sim.A.T @ P @ sim.B
    q_aa = -2 * (sim.R + GAMMA * sim.B.T @ P @ sim.B)
    q_a = q_sa.T + q_aa @ weight
    if n == 0:
        return (q_a @ moment).flatten()
    gradient, D, state = -2 * states.R @ weight, jacobians.B, F
    for t in range(1, n):
        gradient = gradient + GAMMA**t * D.T @ c @ state
        D, state = M @ D, F @ state
    q = q_ss + q_sa @ weight + weight.T @ q_a
    return ((gradient + GAMMA**n * D.T @ q @ state) @ moment).flatten()


def turned(angle):
    angle = torch.tensor(angle)
    return matrix((angle.cos(), -angle.sin()), (angle.sin(), angle.cos()))


TWO = torch.eye(2, dtype=torch.float64)
MEAN, SPREAD = torch.tensor([0.6, -0.3], dtype=torch.float64), 0.5 * TWO


def world(angle, noise=0.1, discount=GAMMA):
    """The prior's actions push `angle` radians beside those of the simulator."""
    return linear_quadratic(
        A=0.9 * turned(0.3), B=0.5 * TWO, Q=TWO, R=0.1 * TWO, noise_covariance=noise * TWO,
        start_mean=MEAN, start_covariance=SPREAD, discount=discount,
        prior=(0.9 * turned(0.3), 0.5 * turned(angle)),
    )  # fmt: skip


ONE = torch.eye(1, dtype=torch.float64)


def planar():
    world, mean = linear(), torch.tensor([1.0, -0.5], dtype=torch.float64)
    covariance = matrix((0.5, 0.1), (0.1, 0.3))
    task = linear_quadratic(
        A=world.A, B=world.B, Q=world.Q, R=world.R, noise_covariance=world.noise_covariance,
        start_mean=mean, start_covariance=covariance, discount=GAMMA,
        prior=(world.A, 0.8 * world.B),
    )  # fmt: skip
    return task, -matrix((0.4, 0.6)), second_moment(mean, covariance)


WEIGHT, CRITIC, ANGLE = -0.1, -0.35, 0.7


def turning() -> Task:
    two = torch.eye(2, dtype=torch.float64)
    return linear_quadratic(
        A=0.9 * _turned(0.3), B=0.5 * two, Q=two, R=0.1 * two, noise_covariance=0.1 * two,
        start_mean=torch.tensor([0.6, -0.3], dtype=torch.float64), start_covariance=0.5 * two,
        discount=GAMMA, prior=(0.8 * _turned(0.2), 0.5 * _turned(ANGLE)),
    )  # fmt: skip


def networks(task: Task) -> tuple[nn.Linear, ExactCritic]:
    """A linear policy, and the exact critic of another one."""
    policy, two = nn.Linear(2, 2, bias=False).double(), torch.eye(2, dtype=torch.float64)
    policy.weight.data = WEIGHT * two
    return policy, ExactCritic(task.simulator, CRITIC * two, GAMMA)


def _turned(angle: float) -> Tensor:
    cos, sin = np.cos(angle), np.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)


T, N = 12, 48


def starts_of(seed: int, n: int = N) -> Starts:
    generator = torch.Generator().manual_seed(seed)
    return as_starts(torch.randn(n, 2, generator=generator, dtype=torch.float64), 2)
