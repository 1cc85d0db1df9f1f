"""A rotated linear-quadratic world whose moments at visited states are known."""

import torch
from torch import nn

from gradlab.tasks import linear_quadratic
from tests.gradients.worlds import matrix

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
