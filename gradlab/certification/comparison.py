"""J against D, entry by entry: which are wrong, in which block, where.

    off     |J − D| − 5 error(D)  >  tolerance · max(|D|, root mean square of the entry)

A state is off where an entry is; a block is wrong in a stratum where a hundredth of the states that
can be judged there are off, and stay off where the state is moved a little: a Jacobian that is
wrong is wrong in a neighbourhood, a kink that the differences did not see is a point.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.certification.reference import Reference

SAFETY = 5.0  # errors of D, that a difference is allowed
SHARE = 0.01  # of the judged states
_NEGLIGIBLE = 1e-7  # of the largest entry of a row in units of its inputs' spreads
_NOTHING = 1e-10  # spreads of the output by one of the input, which is no effect
_ROUNDED = 300.0  # times ε^{2/3}, spreads of the output by one of the input: rounding over h
_SMALL = 1e-3  # of a block's root mean square, below which an error is relative to that


@dataclass(frozen=True)
class Units:
    """Spread of outputs y [out] and inputs z [in], by which entries are compared."""

    y: Tensor
    z: Tensor

    def scaled(self, J: Tensor) -> Tensor:
        """∂y_i/∂z_j in spreads of both."""
        return J * self.z / self.y[:, None]


@dataclass(frozen=True)
class DerivativeComparison:
    """Of one source of derivatives with the differences, at every point.

    Attributes:
        J, D: [N, out, in].
        judged: bool [N, out, in], entries that D decides.
        off: bool [N, out, in], judged entries that are wrong.
        lost: bool [N, out, in], entries of J that are not finite where f and D are.
        usual: size of every entry over the states, [out, in], to which errors are relative where
            the entry is smaller.
    """

    J: Tensor
    D: Tensor
    judged: Tensor
    off: Tensor
    lost: Tensor
    usual: Tensor


def compared(
    J: Tensor,
    found: Reference,
    units: Units,
    tolerance: float,
    epsilon: float,
    usual: Tensor | None = None,
) -> DerivativeComparison:
    """Every entry judged. One that agrees within an error of D that is nothing in units of spread
    is sound, however small it is itself.

    Args:
        tolerance: relative error that counts as wrong.
        epsilon: precision of the step's values.
        usual: as `DerivativeComparison` has it, of a larger sample; None: of these points.
    """
    D, error = found.D, SAFETY * found.error
    finite = torch.isfinite(J)
    certain = torch.isfinite(D) & torch.isfinite(error) & ~found.kink[:, None, :]
    lost = ~finite & torch.isfinite(found.y)[:, :, None]
    usual = _usual(D, certain, units) if usual is None else usual
    size = torch.maximum(D.abs().nan_to_num(), usual)
    gap = (J - D).abs()
    decided = error <= torch.maximum(tolerance * size, 0.5 * gap)
    agrees = (gap <= error) & (units.scaled(error) <= _ROUNDED * epsilon ** (2 / 3))
    judged = certain & finite & (decided | agrees)
    return DerivativeComparison(
        J, D, judged, judged & (gap - error > tolerance * size), lost, usual
    )


def _usual(D: Tensor, certain: Tensor, units: Units) -> Tensor:
    """Root mean square of every entry over the states, [out, in]; at least what counts in its
    row."""
    known = torch.where(certain, D, 0.0).nan_to_num()
    rms = (known.square().sum(0) / certain.sum(0).clamp_min(1)).sqrt()
    scaled = units.scaled(rms)
    least = (_NEGLIGIBLE * scaled.amax(1, keepdim=True)).clamp_min(_NOTHING)
    return torch.maximum(scaled, least) * units.y[:, None] / units.z


def relative_errors(
    comparison: DerivativeComparison, units: Units, rows: slice, columns: slice
) -> Tensor:
    """‖J − D‖ / ‖D‖ of one block at every point, [N], over its judged entries in units of spread;
    NaN where none is judged, 1 where D = 0 and J is not. Sizes are at least what counts in their
    rows."""
    judged = comparison.judged[:, rows, columns]
    scale = units.z[columns] / units.y[rows, None]
    gap, size, own = (
        torch.where(judged, x[:, rows, columns] * scale, 0.0).flatten(1).norm(dim=1)
        for x in (comparison.J - comparison.D, comparison.D, comparison.J)
    )
    usual = size.square().mean().sqrt()
    row = torch.where(comparison.judged, comparison.D, 0.0)[:, rows] * units.z / units.y[rows, None]
    whole = row.flatten(1).norm(dim=1).square().mean().sqrt()
    size = torch.maximum(size, torch.maximum(_SMALL * usual, _NEGLIGIBLE * whole))
    ratio = gap / torch.where(size > 0, size, torch.where(own > 0, own, 1.0))
    return torch.where(judged.flatten(1).any(1), ratio, torch.nan)
