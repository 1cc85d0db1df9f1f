"""Returns of T steps along fixed actions, and their derivatives by chained Jacobians.

    R_T = Σ_{t<T} γᵗ r_t,      dR_T = Σ_{t<T} γᵗ (r_s δ_t + r_a δa_t),   δ_{t+1} = A δ_t + B δa_t

Only the first state and action are moved.

At kinks the gradient of the smoothed return beside that of the return.

    ∇_a E R_T(a + σu)  =  E u (R_T(a + σu) − R_T(a − σu)) / 2σ,     u ~ N(0, I)

A kink has no derivative that could be wrong, yet a gradient that is exact on one side can be far
from that of the smoothed return, which is what a stochastic policy follows (Suh et al. 2022).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.systems.system import System
from gradlab.tools.certify.evaluation import Derivative, Points, outputs


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
            y = outputs(
                self.system,
                Points(path[t], None if self.noise is None else self.noise[t].repeat(times, 1)),
            )
            total = total + self.discount**t * y[:, -1]
            rows.append(total)
            if t + 1 < self.steps:
                lost = ~torch.isfinite(y).all(1)
                after = torch.cat([y[:, :-1], self.actions[t].repeat(times, 1)], 1)
                path.append(torch.where(lost[:, None], self.first.repeat(times, 1), after))
                total = torch.where(lost, torch.nan, total)
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


POINTS, PAIRS, STEPS = 16, 128, 5


@dataclass(frozen=True)
class Smoothed:
    """Medians over the kinks.

    Attributes:
        gap: |∇R − ∇E R| over |∇E R|.
        noise: standard error of the smoothed gradient over its norm.
        cosine: of both.
        points: number of kinks.
    """

    gap: float
    noise: float
    cosine: float
    points: int


def smoothed(chain: Chain, derivative: Derivative, sigma: Tensor, draw: Tensor) -> Smoothed:
    """
    Args:
        chain: from kinks.
        sigma: σ of every action, [da].
        draw: u, [pairs, M, da].
    """
    pairs, m, da = draw.shape
    ds = chain.system.state_dim
    moves = torch.cat([draw.new_zeros(pairs, m, ds), sigma * draw], 2)
    z = torch.cat([chain.first + moves, chain.first - moves]).reshape(2 * pairs * m, -1)
    R = chain.rolled(z)[0][-1].reshape(2, pairs, m, 1)
    samples = (draw * (R[0] - R[1]) / 2).nan_to_num()
    mean, error = samples.mean(0), samples.std(0) / pairs**0.5
    into = torch.cat([draw.new_zeros(ds, da), torch.diag(sigma)]).expand(m, -1, -1)
    path = chain.tangents(derivative, into, chain.rolled(chain.first)[1])[-1]
    size = mean.norm(dim=1).clamp_min(1e-300)
    finite = torch.isfinite(path).all(1)
    if not bool(finite.any()):
        return Smoothed(float("nan"), float("nan"), float("nan"), 0)
    gap = ((path - mean).norm(dim=1) / size)[finite].median()
    cosine = torch.nn.functional.cosine_similarity(path, mean, dim=1)[finite].median()
    noise = (error.norm(dim=1) / size)[finite].median()
    return Smoothed(float(gap), float(noise), float(cosine), int(finite.sum()))
