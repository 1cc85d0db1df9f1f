"""A scalar linear-quadratic task whose biases are known in closed form."""

import numpy as np
import torch
from torch import nn

import gradlab
from tests.linear_quadratic import lqr_gradient

ONE = torch.eye(1, dtype=torch.float64)
GAMMA = 0.9


class Quadratic(nn.Module):
    """Q(s, u) = −(p s² + q u² + 2 m s u)."""

    p, q, m = 2.0, 1.5, 0.4

    def forward(self, s, u):
        return -(self.p * s[:, 0] ** 2 + self.q * u[:, 0] ** 2 + 2 * self.m * s[:, 0] * u[:, 0])


def scalar_task(prior=None, noise=0.01, mean=0.6):
    return gradlab.tasks.linear_quadratic(
        A=0.9 * ONE, B=0.5 * ONE, Q=ONE, R=ONE, noise_covariance=noise * ONE,
        start_mean=mean * torch.ones(1, dtype=torch.float64), start_covariance=0.5 * ONE,
        discount=GAMMA, prior=prior,
    )  # fmt: skip


def scalar_policy(k=0.3):
    policy = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(policy.weight, -k)
    return policy


def known_biases(task, k, horizon, moment):
    """Bias of J_n per estimator, by second moments: E[g_n s] for u = −k s, noise included."""
    sim, prior = task.simulator, task.prior
    truth = float(lqr_gradient(sim, -k * ONE, moment * ONE, GAMMA, "first"))
    q_s = 2 * (-2.0 - 1.5 * k * k + 2 * 0.4 * k)  # d/ds Q(s, −k s) per unit of s
    c = -2 * (1 + k * k)
    found = {}
    systems = {"model": (prior, prior), "mixed": (sim, prior), "true_dynamics": (sim, sim)}
    for name, (states, jacobians) in systems.items():
        step = float(states.A - states.B * k)
        chain = float(jacobians.A - jacobians.B * k)
        gradient = [2 * (1.5 * k - 0.4) * moment]
        for n in range(1, horizon + 1):
            # E[s_t s_0] = stepᵗ E[s_0²]: process noise is independent of the start
            rewards = sum(
                GAMMA**t * chain ** (t - 1) * float(jacobians.B) * c * step**t for t in range(1, n)
            )
            tail = GAMMA**n * chain ** (n - 1) * float(jacobians.B) * q_s * step**n
            gradient.append((2 * k + rewards + tail) * moment)
        found[name] = np.array(gradient) - truth
    return found | {"data": found["model"][:1]}
