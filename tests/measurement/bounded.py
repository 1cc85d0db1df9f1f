"""Worlds in which the exact bias and variance are known beside their bounds."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gradlab import Estimator, Tail
from gradlab.gradients.horizons import horizon_gradients
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import Starts, as_starts
from gradlab.measurement.bounds import measured_bounds
from gradlab.runs.bounds import Bound, Bounds
from gradlab.systems import LinearQuadratic
from gradlab.systems.system import System

H, T, N = 12, 80, 32


class Linear(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
        self.layer.weight.data = weight.double()

    def forward(self, state: Tensor) -> Tensor:
        return self.layer(state)


class Quadratic(nn.Module):
    """Q(s, a) = −zᵀ P z with z = (s, a)."""

    def __init__(self, P: Tensor) -> None:
        super().__init__()
        self.register_buffer("P", P)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        z = torch.cat([state, action], dim=1)
        return -((z @ self.P) * z).sum(dim=1)


class World:
    """A random linear-quadratic task without noise, a model of it, a critic and a policy."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        ds, da = int(rng.integers(1, 4)), int(rng.integers(1, 3))
        error = 10.0 ** rng.uniform(-3, -1)
        self.gamma = float(rng.uniform(0.5, 0.97))
        A = rng.normal(size=(ds, ds))
        A *= 0.7 * rng.uniform(0.3, 1) / np.linalg.norm(A, 2)
        B = rng.normal(size=(ds, da))
        B *= 0.7 * rng.uniform(0.3, 1) / np.linalg.norm(B, 2)
        W = rng.normal(size=(da, ds))
        W *= 0.3 / np.linalg.norm(W, 2)
        Q, R = np.eye(ds) * rng.uniform(0.1, 2), np.eye(da) * rng.uniform(0.1, 2)
        zero = torch.zeros(ds, ds, dtype=torch.float64)

        def system(A: np.ndarray, B: np.ndarray) -> LinearQuadratic:
            return LinearQuadratic(*map(torch.from_numpy, (A, B, Q, R)), zero)

        self.A, self.B, self.W, self.Q, self.R = A, B, W, Q, R
        self.A_, self.B_ = (x + error * rng.normal(size=x.shape) for x in (A, B))
        self.simulator, self.model = system(A, B), system(self.A_, self.B_)
        P = rng.normal(size=(ds + da, ds + da))
        self.critic = Quadratic(torch.from_numpy((P @ P.T) * rng.uniform(0.1, 1)))
        self.policy = Linear(torch.from_numpy(W))
        self.starts = torch.from_numpy(rng.normal(size=(N, ds)))

    def estimator(self, states: System, actions: str, n: int = H) -> Estimator:
        return Estimator(states, self.model, actions, Tail(n, self.critic, self.gamma))

    def bias(self, states: System, actions: str) -> np.ndarray:
        """|mean gradient − true mean gradient| on these very starts, at 0 … H."""
        whole = Estimator(self.simulator, self.simulator, actions, Tail(T, None, self.gamma))
        true = whole.mean_gradient(self.policy, self.starts)
        found = horizon_gradients(self.estimator(states, actions), self.policy, self.starts)
        return (found.means - true).norm(dim=1).numpy()

    def setting(self, starts: Starts) -> Setting:
        return Setting(self.simulator, self.policy, starts, self.gamma, H)

    def bounds_of(self, actions: str) -> Bounds:
        chosen = {
            "model": self.estimator(self.model, actions),
            "mixed": self.estimator(self.simulator, actions),
        }
        found = measured_bounds(self.setting(as_starts(self.starts, len(self.A))), chosen, T)
        assert found is not None
        return found


def named(found: Bounds) -> dict[str, Bound]:
    return {each.theorem: each for each in found.bounds}
