"""Until which step the chained gradient has the right sign.

Along random directions of the first state and action, dR_T by the system's own Jacobians against
differences of R_T at two step sizes. A sign is certain where the difference is larger than what
both sizes disagree by. The horizon is the largest T up to which 95% of the certain signs agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.certification.chains import Chain
from gradlab.certification.comparison import Units
from gradlab.certification.derivatives import Derivative

DIRECTIONS = 4
AGREE, CERTAIN = 0.95, 0.2  # share of signs that agree; least share that is certain
STEP = 4.0  # times ε^{1/3} of the spread
ROUNDING = 32.0


@dataclass(frozen=True)
class Signs:
    """Of T = 1 … H steps: share of certain signs, and of these the share that agrees."""

    certain: tuple[float, ...]
    agree: tuple[float, ...]
    constant: bool = False  # the reward, as far as moved trajectories show

    @property
    def horizon(self) -> int:
        """The largest T up to which signs agree; as far as enough of them are certain."""
        for t, (certain, agree) in enumerate(zip(self.certain, self.agree, strict=True)):
            if certain < CERTAIN or not agree >= AGREE:
                return t
        return len(self.certain)

    @property
    def decidable(self) -> bool:
        """Whether enough signs are certain at the first step to say anything."""
        return not self.constant and self.certain[0] >= CERTAIN

    @property
    def turns(self) -> bool:
        """Whether signs are wrong beyond it, and not only uncertain."""
        h = self.horizon
        return h < len(self.certain) and self.certain[h] >= CERTAIN


def signs(
    chain: Chain, derivative: Derivative, units: Units, epsilon: float, draw: Tensor
) -> Signs:
    """
    Args:
        draw: standard normal [M, ds + da, k], the directions in spreads.
    """
    directions = draw * units.z[:, None]
    h = STEP * epsilon ** (1 / 3)
    steps = torch.tensor([h, h / 4]).to(draw)
    R, path = chain.rolled(_moved(chain.first, directions, steps))
    m, k = len(chain.first), directions.shape[2]
    given = chain.tangents(derivative, directions, path[:, :m])
    R = R[:, m:].reshape(chain.steps, 2, 2, k, m).transpose(3, 4)  # [T, sizes, signs, M, k]
    wide, narrow = ((R[:, :, 0] - R[:, :, 1]) / (2 * steps[:, None, None])).unbind(1)
    rounding = ROUNDING * epsilon * R[:, 0].abs().amax(1) / h
    error = 2 * (wide - narrow).abs() + rounding
    certain = (narrow.abs() > error) & torch.isfinite(given)
    agree = (given.sign() == narrow.sign()) & certain
    counts = certain.flatten(1).sum(1)
    shares = agree.flatten(1).sum(1).double() / counts  # 114 of 120 are 95%, not less
    known = wide[torch.isfinite(wide)]
    constant = bool(len(known)) and not bool(known.any())  # no return moves with its first state
    share = tuple((counts / certain[0].numel()).tolist())
    return Signs(share, tuple(shares.nan_to_num().tolist()), constant)


def _moved(first: Tensor, directions: Tensor, steps: Tensor) -> Tensor:
    """The first points, then these moved by ± every step along every direction,
    [(1 + 2 · sizes · k) M, ds + da]: one rollout has all of them."""
    sides = torch.stack([steps, -steps], 1)[..., None, None, None]
    ends = first + sides * directions.permute(2, 0, 1)  # [sizes, signs, k, M, ds + da]
    return torch.cat([first, ends.reshape(-1, first.shape[1])])
