"""What n noisy transitions of the double integrator teach: a linear model and a quadratic critic.

    [Â B̂] by least squares of s' on (s, a);   Q̂(s, a) = −xᵀ C x + c by LSTD:
    Σ φ(s, a) (φ(s, a) − γ φ(s', π(s')))ᵀ w = Σ φ(s, a) r,   φ all products of two of (s, a), and 1

Starts and exploration are normal, s' is read with an error. Solving exactly, LSTD has no error of
optimisation; on data without reading error and noise both are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from analyses.bounds.tailed_gradients import Setting
from gradlab import tasks
from gradlab.data.noise import stream
from gradlab.fitting.policies import riccati_gain
from gradlab.systems.linear import LinearQuadratic
from gradlab.systems.system import System
from gradlab.truth.lqr import lqr_gradient

EXPLORATION = 1.0  # standard deviation of the data's actions around the policy, m/s²


def make_setting(gain: float) -> tuple[Setting, LinearQuadratic, Tensor]:
    """The task at a share of its optimal gain, and ∇J [1, 2]."""
    task = tasks.double_integrator()
    system = task.simulator
    assert isinstance(system, LinearQuadratic)
    moment = torch.eye(2, dtype=torch.float64)
    weight = -gain * riccati_gain(system, torch.zeros_like(moment[0]), task.discount)
    truth = lqr_gradient(system, weight, moment, task.discount, "all").reshape(weight.shape)
    noise = system.noise_covariance
    return Setting(weight, system.Q, system.R, moment, noise, task.discount), system, truth


@dataclass(frozen=True, eq=False)
class Transitions:
    """n transitions of a system, s' read with an error."""

    state: Tensor
    action: Tensor
    reward: Tensor
    after: Tensor


def drawn(
    system: System, weight: Tensor, noise: float, n: int, seed: int, spread: float = 1.0
) -> Transitions:
    """States of standard deviation `spread`, actions around a = W s, s' read with error `noise`."""
    draw = stream(seed, "transitions", n)
    state, misread = torch.randn(2, n, 2, generator=draw, dtype=torch.float64)
    state = spread * state
    tried = torch.randn(n, 1, generator=draw, dtype=torch.float64)
    action = state @ weight.T + EXPLORATION * tried
    out = system.step(state, action, system.sample_noise(n, draw))
    return Transitions(state, action, out.reward, out.state + noise * misread)


def fit(
    system: LinearQuadratic, setting: Setting, noise: float, n: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Â, B̂ by least squares and C by LSTD from n transitions."""
    data = drawn(system, setting.weight, noise, n, seed)
    model = torch.linalg.lstsq(torch.cat([data.state, data.action], dim=1), data.after).solution.T
    return model[:, :2], model[:, 2:], temporal_differences(data, setting.weight, setting.discount)


def temporal_differences(data: Transitions, weight: Tensor, discount: float) -> Tensor:
    """C of the quadratic critic of a = W s by LSTD."""
    now = monomials(data.state, data.action)
    then = monomials(data.after, data.after @ weight.T)
    solved = torch.linalg.solve(now.T @ (now - discount * then), now.T @ data.reward)
    triangle = torch.zeros(3, 3, dtype=torch.float64)
    triangle[tuple(torch.triu_indices(3, 3))] = -solved[:-1]
    return (triangle + triangle.T) / 2


def monomials(state: Tensor, action: Tensor) -> Tensor:
    """Products of two of (s, a), and 1: [n, 7]."""
    x = torch.cat([state, action], dim=1)
    i, j = torch.triu_indices(3, 3)
    return torch.cat([x[:, i] * x[:, j], torch.ones_like(x[:, :1])], dim=1)
