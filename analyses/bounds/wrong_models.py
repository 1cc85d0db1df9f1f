"""A system with one constant error: of its predictions, its Jacobians, or its reward's gradient.

    s' = f(s, a) + offset,   Â = A + ΔA, B̂ = B + ΔB,   r̂_s = r_s + Δr_s, r̂_a = r_a + Δr_a

The parts are wrong one by one, so Jacobians need not be the predictions' derivatives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from analyses.harness.systems import Around
from gradlab.data.noise import stream
from gradlab.systems.system import Linearization, System, Transition

SOURCES = ("jacobian", "prediction", "reward gradient")


@dataclass(frozen=True, eq=False)
class Wrong(Around):
    """A system with constant errors of prediction, Jacobians and reward gradient."""

    differentiable: ClassVar[bool] = False

    offset: Tensor
    A: Tensor
    B: Tensor
    r_s: Tensor
    r_a: Tensor

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        out = self.system.step(state, action, noise)
        return replace(out, state=out.state + self.offset)

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        out = self.system.linearize(state, action, noise)
        return Linearization(
            out.A + self.A, out.B + self.B, out.r_s + self.r_s, out.r_a + self.r_a, out.certificate
        )


def direction(system: System, source: str, k: int) -> Wrong:
    """The k-th random error of one source, of size ε = 1: |ΔA| + |ΔB|, |offset| or |Δr_s| + |Δr_a|.

    Spectral norms, as in (5).
    """
    ds, da = system.state_dim, system.action_dim
    draw = stream(k, f"bias-lin {source}")
    zero = torch.zeros(ds, ds + da, dtype=torch.float64)
    none = Wrong(system, zero[0, :ds], zero[:, :ds], zero[:, ds:], zero[0, :ds], zero[0, ds:])
    off = torch.randn(zero.shape, generator=draw, dtype=torch.float64)
    if source == "jacobian":
        A, B = off[:, :ds], off[:, ds:]
        size = torch.linalg.matrix_norm(A, 2) + torch.linalg.matrix_norm(B, 2)
        return replace(none, A=A / size, B=B / size)
    r_s, r_a = off[0, :ds], off[0, ds:]
    if source == "prediction":
        return replace(none, offset=r_s / r_s.norm())
    size = r_s.norm() + r_a.norm()
    return replace(none, r_s=r_s / size, r_a=r_a / size)


def scaled(unit: Wrong, epsilon: float) -> Wrong:
    return Wrong(
        unit.system,
        *(epsilon * x for x in (unit.offset, unit.A, unit.B, unit.r_s, unit.r_a)),
    )
