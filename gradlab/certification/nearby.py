"""Whether a Jacobian that seems wrong is wrong in a neighbourhood, and at other steps, too."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.certification.comparison import Units, compared
from gradlab.certification.derivatives import Derivative
from gradlab.certification.evaluation import Points, evenly
from gradlab.certification.reference import reference
from gradlab.data.noise import stream
from gradlab.systems.system import System

POINTS = 16  # that are moved
NEAR = 1e-3  # of the coordinates' spread, by which they are
FINE = 1e-4  # of the usual step: a function that oscillates within that one is seen here


@dataclass(frozen=True)
class Nearby:
    """Of one source of derivatives.

    Attributes:
        size: of every coordinate, by which differences step.
        usual: size of every entry over all points, [out, in].
    """

    system: System
    points: Points
    derivative: Derivative
    size: Tensor
    units: Units
    tolerance: float
    epsilon: float
    usual: Tensor

    def __call__(self, points: Tensor, rows: slice, columns: slice) -> Tensor:
        """bool [M], whether some of the points stay off in a block where they are moved."""
        few = points[evenly(len(points), POINTS)]
        here = self.points.at(few)
        generator = stream(0, "certify neighbours")
        draw = torch.randn(here.z.shape, generator=generator, dtype=here.z.dtype)
        moved = Points(here.z + NEAR * self.units.z * draw, here.noise)
        J = self.derivative(self.system, moved)
        coarse, fine = (
            compared(
                J,
                reference(self.system, moved, scale * self.size, self.tolerance, self.epsilon),
                self.units,
                self.tolerance,
                self.epsilon,
                self.usual,
            )
            for scale in (1.0, FINE)
        )
        off = coarse.off & ~(fine.judged & ~fine.off)
        return off[:, rows, columns].flatten(1).any(1)
