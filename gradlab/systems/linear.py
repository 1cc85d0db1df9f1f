"""Linear dynamics with quadratic reward: the system whose every answer is known in closed form.

    s' = A s + B u + w,   w ~ N(0, W),   r = -(sᵀ Q s + uᵀ R u)      (s, u before the step)

W may be singular (zero: no noise), hence w = W^{1/2} ξ with the symmetric root.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.system import Certificate, Linearization, Transition, check_step, sample_normal


@dataclass(frozen=True, eq=False)
class LinearQuadratic:
    """The system above.

    Attributes:
        A: [ds, ds], B: [ds, da].
        Q: [ds, ds], R: [da, da], symmetric and positive semidefinite.
        noise_covariance: W [ds, ds], symmetric and positive semidefinite.
    """

    differentiable: ClassVar[bool] = True

    A: Tensor
    B: Tensor
    Q: Tensor
    R: Tensor
    noise_covariance: Tensor
    noise_root: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.A.ndim != 2 or self.A.shape[0] != self.A.shape[1]:
            raise InputError(f"A has shape {tuple(self.A.shape)}, expected [ds, ds]")
        ds = self.A.shape[0]
        if self.B.ndim != 2 or self.B.shape[0] != ds:
            raise InputError(f"B has shape {tuple(self.B.shape)}, expected [{ds}, da]")
        for name, matrix in (("A", self.A), ("B", self.B)):
            if not torch.isfinite(matrix).all():
                raise InputError(f"{name} has entries that are not finite")
        check_covariance("Q", self.Q, ds)
        check_covariance("R", self.R, self.B.shape[1])
        check_covariance("noise_covariance", self.noise_covariance, ds)
        object.__setattr__(self, "noise_root", symmetric_root(self.noise_covariance))

    @property
    def state_dim(self) -> int:
        return self.B.shape[0]

    @property
    def action_dim(self) -> int:
        return self.B.shape[1]

    @property
    def noise_dim(self) -> int:
        return self.B.shape[0]

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        check_step(self, state, action, noise)
        Q, R = self.Q.to(state), self.R.to(state)
        after = self._mean(state, action)
        if noise is not None:
            after = after + noise @ self.noise_root.to(state)
        reward = -((state @ Q) * state).sum(1) - ((action @ R) * action).sum(1)
        return Transition(after, reward, torch.ones_like(reward, dtype=torch.bool))

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        check_step(self, state, action, noise)
        n = state.shape[0]
        return Linearization(
            A=self.A.to(state).expand(n, -1, -1),
            B=self.B.to(state).expand(n, -1, -1),
            r_s=-2 * state @ self.Q.to(state),
            r_a=-2 * action @ self.R.to(state),
            certificate=Certificate.exact(state),
        )

    sample_noise = sample_normal

    def infer_noise(self, state: Tensor, action: Tensor, next_state: Tensor) -> Tensor:
        """[N, ds], the smallest ξ that explains the transition (its projection if none does)."""
        check_step(self, state, action, None)
        inverse = torch.linalg.pinv(self.noise_root, hermitian=True).to(state)
        unexplained = next_state - self._mean(state, action)
        return torch.mm(unexplained, inverse)

    def _mean(self, state: Tensor, action: Tensor) -> Tensor:
        return state @ self.A.to(state).T + action @ self.B.to(state).T


def symmetric_root(covariance: Tensor) -> Tensor:
    """W^{1/2}, symmetric, for positive semidefinite W."""
    values, vectors = torch.linalg.eigh(covariance)
    # Rounding leaves the zero eigenvalues of a singular W at ±1e-17, whose roots (1e-9) a
    # pseudo-inverse would mistake for noise.
    scale = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    values = torch.where(values > scale, values, 0.0)
    return torch.mm(vectors * values.sqrt(), vectors.T)


def check_covariance(name: str, matrix: Tensor, width: int) -> None:
    """Finite, symmetric and positive semidefinite [width, width], up to rounding."""
    if matrix.shape != (width, width):
        raise InputError(f"{name} has shape {tuple(matrix.shape)}, expected [{width}, {width}]")
    if not torch.isfinite(matrix).all():
        raise InputError(f"{name} has entries that are not finite")
    rounding = 100 * width * torch.finfo(matrix.dtype).eps * matrix.abs().max()
    if (matrix - matrix.T).abs().max() > rounding:
        raise InputError(f"{name} is not symmetric: use ({name} + {name}.T) / 2")
    lowest = torch.linalg.eigvalsh(matrix)[0]
    if lowest < -rounding:
        raise InputError(f"{name} has the eigenvalue {lowest:.3g}, expected none below 0")
