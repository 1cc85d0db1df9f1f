"""Returns of T steps along fixed actions, and their derivatives by chained Jacobians.

    R_T = Σ_{t<T} γᵗ r_t,      dR_T = Σ_{t<T} γᵗ (r_s δ_t + r_a δa_t),   δ_{t+1} = A δ_t + B δa_t

Only the first state and action are moved.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.certification.evaluation import Derivative, Points, outputs
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

    def rolled(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """R_1 … R_T [T, k · M] of k moved copies of the first points, and z_0 … z_{T−1} along them
        [T, k · M, ds + da]. A trajectory that leaves the numbers starts again, with returns NaN."""
        times, path, rows = len(z) // len(self.first), [z], []
        total = torch.zeros(len(z)).to(z)
        for t in range(self.steps):
            y = outputs(self.system, Points(path[t], self._noise(t, times)))
            total = total + self.discount**t * y[:, -1]
            rows.append(total)
            if t + 1 < self.steps:
                after, total = self._next(y, t, times, total)
                path.append(after)
        return torch.stack(rows), torch.stack(path)

    def tangents(self, derivative: Derivative, directions: Tensor, path: Tensor) -> Tensor:
        """dR_1 … dR_T [T, M, k] along directions [M, ds + da, k] of the first points, by the
        Jacobians at z_t of `path` [T, M, ds + da], all of them in one batch."""
        noise = None if self.noise is None else self.noise.flatten(0, 1)
        every = derivative(self.system, Points(path.flatten(0, 1), noise))
        ds, moved, rows = self.system.state_dim, directions, []
        total = torch.zeros_like(directions[:, 0])
        for t, J in enumerate(every.reshape(*path.shape[:2], *every.shape[1:])):
            change = J @ moved
            total = total + self.discount**t * change[:, -1]
            rows.append(total)
            moved = torch.cat([change[:, :ds], torch.zeros_like(directions[:, ds:])], 1)
        return torch.stack(rows)

    def _noise(self, t: int, times: int) -> Tensor | None:
        return None if self.noise is None else self.noise[t].repeat(times, 1)

    def _next(self, y: Tensor, t: int, times: int, total: Tensor) -> tuple[Tensor, Tensor]:
        """z_{t+1} after the outputs y, and the returns so far."""
        lost = ~torch.isfinite(y).all(1)
        after = torch.cat([y[:, :-1], self.actions[t].repeat(times, 1)], 1)
        after = torch.where(lost[:, None], self.first.repeat(times, 1), after)
        return after, torch.where(lost, torch.nan, total)
