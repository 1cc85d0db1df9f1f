"""Returns of T steps along fixed actions, and their derivatives by chained Jacobians.

    R_T = Σ_{t<T} γᵗ r_t,      dR_T = Σ_{t<T} γᵗ (r_s δ_t + r_a δa_t),   δ_{t+1} = A δ_t + B δa_t

Only the first state and action are moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.certification.derivatives import Derivative
from gradlab.certification.evaluation import Points, outputs
from gradlab.systems.system import System


@dataclass(frozen=True)
class Chain:
    """M trajectories of T steps.

    Attributes:
        first: z_0 = (s_0, a_0), [M, ds + da].
        actions: a_1 … a_{T−1}, [T − 1, M, da].
        noise: ξ_0 … ξ_{T−1}, [T, M, noise_dim], or None.
    """

    system: System
    first: Tensor
    actions: Tensor
    noise: Tensor | None
    discount: float

    @property
    def steps(self) -> int:
        return len(self.actions) + 1

    def returns(self, z: Tensor) -> Tensor:
        """R_1 … R_T [T, k · M] of k moved copies of the first points; NaN once a state is lost."""
        times = len(z) // len(self.first)
        total, rows = torch.zeros(len(z)).to(z), []
        for t in range(self.steps):
            y = outputs(self.system, Points(z, self._noise(t, times)))
            total = total + self.discount**t * y[:, -1]
            rows.append(total)
            z, total = self._next(y, t, times, total)
        return torch.stack(rows)

    def tangents(self, derivative: Derivative, directions: Tensor) -> Tensor:
        """dR_1 … dR_T [T, M, k] along directions [M, ds + da, k] of the first points."""
        ds, z, moved = self.system.state_dim, self.first, directions
        total, rows = torch.zeros_like(directions[:, 0]), []
        for t in range(self.steps):
            points = Points(z, self._noise(t, 1))
            change = derivative(self.system, points) @ moved
            total = total + self.discount**t * change[:, -1]
            rows.append(total)
            y = outputs(self.system, points)
            moved = torch.cat([change[:, :ds], torch.zeros_like(directions[:, ds:])], 1)
            z, _ = self._next(y, t, 1, total[:, 0])
        return torch.stack(rows)

    def _noise(self, t: int, times: int) -> Tensor | None:
        return None if self.noise is None else self.noise[t].repeat(times, 1)

    def _next(self, y: Tensor, t: int, times: int, total: Tensor) -> tuple[Tensor, Tensor]:
        """z_{t+1}; a trajectory that left the numbers starts again, its return is lost."""
        lost = ~torch.isfinite(y).all(1)
        if t + 1 == self.steps:
            return y, total
        after = torch.cat([y[:, :-1], self.actions[t].repeat(times, 1)], 1)
        after = torch.where(lost[:, None], self.first.repeat(times, 1), after)
        return after, torch.where(lost, torch.nan, total)
