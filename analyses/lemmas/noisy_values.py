"""Values with and without noise on the next state, and how far their gradients are apart.

cubic     s' = a s + b u, u = θ s, r = −(q s² + ρ u²) + κ s³: V is a cubic polynomial whose
          coefficients solve a triangular linear system in the moments of ε
pendulum  MPG's inverted pendulum in torch under a linear feedback: returns of 150 steps on
          common antithetic noise, so that what is odd in the noise cancels exactly
quadratic any linear-quadratic system
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import gradlab
from analyses.harness.systems import linear_policy
from analyses.identities.quadratic_design import SEED, Designed, design
from gradlab.data.noise import stream
from gradlab.fitting.policies import riccati_gain
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.systems.linear import LinearQuadratic

Array = NDArray[np.float64]
LONGEST = 400  # steps of the cubic's chain


@dataclass(frozen=True)
class Responses:
    """What noise does to the gradients, largest over the states looked at.

    Attributes:
        noise: E|ε|.
        change_s: |∂_s q(s, π(s)) − ∂_s q°(s, π(s))|; change_a: |∂_a q − ∂_a q°|.
        chain: b_0 = 1, b_1, …: largest |∂s_j/∂s_0| along π.
        L: Lipschitz constant of ∂_s q°; B_pa: largest |∂p/∂a|.
    """

    gamma: float
    noise: float
    change_s: float
    change_a: float
    chain: Array
    L: float
    B_pa: float


@dataclass(frozen=True)
class Cubic:
    """States and actions of [−1, 1]; ε = μ ± σ, each with probability ½."""

    a: float = 1.05
    b: float = 0.5
    theta: float = -0.9
    q: float = 1.0
    rho: float = 0.3
    kappa: float = 0.4
    gamma: float = 0.95

    @property
    def closed(self) -> float:
        return self.a + self.b * self.theta

    def value(self, mean: float, spread: float) -> Array:
        """[c_1, c_2, c_3] of V(s) = … + c_1 s + c_2 s² + c_3 s³ under noise."""
        m, g, second = self.closed, self.gamma, mean**2 + spread**2
        c3 = self.kappa / (1 - g * m**3)
        c2 = (-(self.q + self.rho * self.theta**2) + 3 * g * c3 * m**2 * mean) / (1 - g * m**2)
        c1 = g * m * (2 * c2 * mean + 3 * c3 * second) / (1 - g * m)
        return np.array([c1, c2, c3])

    def action_gradient(self, s: Array, u: Array, mean: float, spread: float) -> Array:
        """∂_a q(s, u) = −2 ρ u + γ b E V'(a s + b u + ε)."""
        c1, c2, c3 = self.value(mean, spread)
        after = self.a * s + self.b * u
        square = (after + mean) ** 2 + spread**2
        expected = c1 + 2 * c2 * (after + mean) + 3 * c3 * square
        return np.asarray(-2 * self.rho * u + self.gamma * self.b * expected)

    def responses(self, kind: str, size: float) -> Responses:
        mean, spread = (size, 0.0) if kind == "biased" else (0.0, size)
        grid = np.linspace(-1, 1, 41)
        s, u = np.meshgrid(grid, grid)
        change = self.value(mean, spread) - self.value(0.0, 0.0)
        along = change[0] + 2 * change[1] * grid + 3 * change[2] * grid**2
        across = self.action_gradient(s, u, mean, spread) - self.action_gradient(s, u, 0.0, 0.0)
        _, c2, c3 = self.value(mean, spread)
        # The noisy states that either trajectory visits: its first step, then a contraction.
        reach = max(1.0, abs(self.a) + abs(self.b)) + size / (1 - abs(self.closed))
        return Responses(
            gamma=self.gamma,
            noise=size,
            change_s=float(np.abs(along).max()),
            change_a=float(np.abs(across).max()),
            chain=np.abs(self.closed) ** np.arange(LONGEST),
            L=2 * abs(c2) + 6 * abs(c3) * reach,
            B_pa=abs(self.b),
        )


@dataclass(frozen=True)
class Pendulum:
    """A few starts of MPG's pendulum, noise N(0, 1) clipped at ±3 on every coordinate, scaled;
    biased noise has a constant part of its own size in each coordinate and no other."""

    starts: int
    pairs: int
    steps: int

    @cached_property
    def task(self) -> gradlab.Task:
        return gradlab.tasks.inverted_pendulum("analytic", slider="wide")

    @cached_property
    def gain(self) -> Tensor:
        assert self.task.prior is not None
        return 0.6 * riccati_gain(self.task.prior, torch.zeros(4).double(), self.task.discount)

    @cached_property
    def begin(self) -> Tensor:
        return self.task.starts(self.starts, stream(SEED, "noisy starts"))

    def responses(self, kind: str, size: float) -> Responses:
        s, calm = self.begin, torch.zeros(self.steps, 1, 4).double()
        noise = self._noise(kind, size)
        plain, noisy = self.gradients(s, calm), self.gradients(s, noise)
        change_s, change_a = ((x - y).norm(dim=1).max() for x, y in zip(plain, noisy, strict=True))
        chain, B_pa = self._chain()
        return Responses(
            gamma=self.task.discount,
            noise=float(noise.norm(dim=2).mean()),
            change_s=float(change_s),
            change_a=float(change_a),
            chain=chain,
            L=self._curvature(noise),
            B_pa=B_pa,
        )

    def _noise(self, kind: str, size: float) -> Tensor:
        """[steps, samples, 4]: one sample of a constant, or antithetic pairs."""
        if kind == "biased":
            return torch.full((self.steps, 1, 4), size, dtype=torch.float64)
        draw = torch.randn(
            self.steps, self.pairs, 4, generator=stream(SEED, "noise"), dtype=torch.float64
        ).clamp(-3, 3)
        return size * torch.cat([draw, -draw], dim=1)

    def gradients(self, states: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """∂_s q(s, π(s)) [N, 4] and ∂_a q(s, π(s)) [N, 1], means over the noise's samples."""
        n, m = len(states), noise.shape[1]
        s0 = states.repeat_interleave(m, dim=0).requires_grad_()
        a0 = torch.zeros(n * m, 1, dtype=torch.float64, requires_grad=True)
        s, total = s0, torch.zeros(n * m, dtype=torch.float64)
        for t in range(self.steps):
            action = -s @ self.gain.T + (a0 if t == 0 else 0.0)
            out = self.task.simulator.step(s, action)
            total = total + self.task.discount**t * out.reward
            s = out.state + noise[t].repeat(n, 1)
        by_s, by_a = torch.autograd.grad(total.sum(), (s0, a0))
        return by_s.reshape(n, m, 4).mean(dim=1), by_a.reshape(n, m, 1).mean(dim=1)

    def _curvature(self, noise: Tensor, step: float = 1e-4) -> float:
        """Largest |∂²V°| over the starts and the corners of their law, by differences."""
        corners = 0.05 * torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 4)
        states = torch.cat([self.begin, corners])
        columns = []
        for move in step * torch.eye(4, dtype=torch.float64):
            above, below = (self.gradients(states + m, noise)[0] for m in (move, -move))
            columns.append((above - below) / (2 * step))
        return float(torch.linalg.matrix_norm(torch.stack(columns, dim=2), ord=2).max())

    def _chain(self) -> tuple[Array, float]:
        """b_j = largest |∂s_j/∂s_0| over the starts, and the largest |∂p/∂a|."""
        s, chain = self.begin, torch.eye(4, dtype=torch.float64).expand(self.starts, 4, 4)
        norms, pushes = [1.0], []
        for _ in range(self.steps):
            action = -s @ self.gain.T
            local = self.task.simulator.linearize(s, action)
            chain = (local.A - local.B @ self.gain) @ chain
            norms.append(float(torch.linalg.matrix_norm(chain, ord=2).max()))
            pushes.append(float(local.B.norm(dim=(1, 2)).max()))
            s = self.task.simulator.step(s, action).state
        return np.array(norms), max(pushes)


def lqr_response() -> float:
    """Largest relative change of ∂_a q of a quadratic value under zero-mean noise, by gradlab's
    estimator on an orthogonal design of noise (its exact expectation)."""
    eye = torch.eye(2, dtype=torch.float64)
    A = torch.tensor([[1.0, 0.1], [0.0, 1.0]], dtype=torch.float64)
    B = torch.tensor([[0.005], [0.1]], dtype=torch.float64)
    policy = linear_policy(torch.tensor([[-1.5, -2.0]]))
    mean, spread = torch.tensor([1.0, -0.5], dtype=torch.float64), 0.25 * eye
    starts, noise = design(mean, spread, 60)
    estimators = []
    for size in (0.0, 0.1):
        system = Designed(LinearQuadratic(A, B, eye, eye[:1, :1], size**2 * eye), noise)
        tail = Tail(60, None, 0.95)
        estimators.append(Estimator(system, system, "first", tail))
    calm, noisy = (each.mean_gradient(policy, starts, SEED) for each in estimators)
    return float((noisy - calm).norm() / calm.norm())
