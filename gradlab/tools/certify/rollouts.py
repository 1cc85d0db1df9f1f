"""Findings about several steps: the sign of chained gradients, and smoothed gradients at kinks.

Until which step the chained gradient has the right sign.

Along random directions of the first state and action, dR_T by the system's own Jacobians against
differences of R_T at two step sizes. A sign is certain where the difference is larger than what
both sizes disagree by. The horizon is the largest T up to which 95% of the certain signs agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlab.tools.certify import sentences
from gradlab.tools.certify.chains import PAIRS, POINTS, STEPS, Chain, smoothed
from gradlab.tools.certify.comparison import Units
from gradlab.tools.certify.evaluation import Derivative, Points, evenly
from gradlab.tools.certify.result import Finding
from gradlab.tools.certify.sampling import Law

_DIRECTIONS = 4
AGREE, _CERTAIN = 0.95, 0.2  # share of signs that agree; least share that is certain
_STEP = 4.0  # times ε^{1/3} of the spread
_ROUNDING = 32.0


@dataclass(frozen=True)
class _Signs:
    """Of T = 1 … H steps: share of certain signs, and of these the share that agrees."""

    certain: tuple[float, ...]
    agree: tuple[float, ...]
    constant: bool = False  # the reward, as far as moved trajectories show

    @property
    def horizon(self) -> int:
        """The largest T up to which signs agree; as far as enough of them are certain."""
        for t, (certain, agree) in enumerate(zip(self.certain, self.agree, strict=True)):
            if certain < _CERTAIN or not agree >= AGREE:
                return t
        return len(self.certain)

    @property
    def decidable(self) -> bool:
        """Whether enough signs are certain at the first step to say anything."""
        return not self.constant and self.certain[0] >= _CERTAIN

    @property
    def turns(self) -> bool:
        """Whether signs are wrong beyond it, and not only uncertain."""
        h = self.horizon
        return h < len(self.certain) and self.certain[h] >= _CERTAIN


def _signs(
    chain: Chain, derivative: Derivative, units: Units, epsilon: float, draw: Tensor
) -> _Signs:
    """
    Args:
        draw: standard normal [M, ds + da, k], the directions in spreads.
    """
    directions = draw * units.z[:, None]
    h = _STEP * epsilon ** (1 / 3)
    steps = torch.tensor([h, h / 4]).to(draw)
    # One rollout has the first points, then these moved by ± every step along every direction.
    sides = torch.stack([steps, -steps], 1)[..., None, None, None]
    ends = chain.first + sides * directions.permute(2, 0, 1)  # [sizes, signs, k, M, ds + da]
    R, path = chain.rolled(torch.cat([chain.first, ends.reshape(-1, chain.first.shape[1])]))
    m, k = len(chain.first), directions.shape[2]
    given = chain.tangents(derivative, directions, path[:, :m])
    R = R[:, m:].reshape(chain.steps, 2, 2, k, m).transpose(3, 4)  # [T, sizes, signs, M, k]
    wide, narrow = ((R[:, :, 0] - R[:, :, 1]) / (2 * steps[:, None, None])).unbind(1)
    rounding = _ROUNDING * epsilon * R[:, 0].abs().amax(1) / h
    error = 2 * (wide - narrow).abs() + rounding
    certain = (narrow.abs() > error) & torch.isfinite(given)
    agree = (given.sign() == narrow.sign()) & certain
    counts = certain.flatten(1).sum(1)
    shares = agree.flatten(1).sum(1).double() / counts  # 114 of 120 are 95%, not less
    known = wide[torch.isfinite(wide)]
    constant = bool(len(known)) and not bool(known.any())  # no return moves with its first state
    share = tuple((counts / certain[0].numel()).tolist())
    return _Signs(share, tuple(shares.nan_to_num().tolist()), constant)


_STARTS = 30  # trajectories of a chain: with 16 moved ones each, they just fill two calls
_DIFFERS = 0.1  # of the smoothed gradient, from which a gap is named


@dataclass(frozen=True)
class Ahead:
    """What rollouts from examined points need.

    Attributes:
        horizon: most steps of a chained gradient.
        smoothing: σ of the smoothed return over the spread of the actions.
    """

    drawn: Law
    points: Points
    units: Units
    epsilon: float
    discount: float
    horizon: int
    smoothing: float

    def chain(self, rows: Tensor, steps: int, name: str) -> Chain:
        """From some points, along actions of the law."""
        drawn, first, m = self.drawn, self.points.at(rows), len(rows)
        da = drawn.system.action_dim
        actions = drawn.action_size * drawn.draw(f"{name} actions", steps - 1, m, da)
        if first.noise is None:
            return Chain(drawn.system, first.z, actions, None, self.discount)
        width = drawn.system.noise_dim
        noise = drawn.draw(f"{name} noise", steps - 1, m, width)
        return Chain(
            drawn.system, first.z, actions, torch.cat([first.noise[None], noise]), self.discount
        )


def chained(ahead: Ahead, name: str, derivative: Derivative) -> tuple[list[Finding], _Signs]:
    """How far the sign of the chained gradient is right."""
    rows = evenly(len(ahead.points), _STARTS)
    run = ahead.chain(rows, ahead.horizon, "chain")
    draw = ahead.drawn.draw("directions", len(rows), run.first.shape[1], _DIRECTIONS)
    result = _signs(run, derivative, ahead.units, ahead.epsilon, draw)
    if not result.decidable:
        text = sentences.no_sign(result.constant)
        return [Finding("sign", None, None, None, None, 0.0, None, "note", text, name)], result
    if not result.turns:
        return [], result
    h = result.horizon
    text = sentences.sign(h, result.agree[h], result.certain[h], AGREE)
    return [Finding("sign", None, None, None, None, 1 - result.agree[h], False, "rough", text,
                    name)], result  # fmt: skip


def at_kinks(
    ahead: Ahead, name: str, derivative: Derivative, onset: Tensor
) -> tuple[list[Finding], dict[str, Any]]:
    """The gradient of the smoothed return beside that of the return, at points [N] of `onset`."""
    rows = onset.nonzero().flatten()
    if not len(rows):
        return [], {}
    rows = rows[evenly(len(rows), POINTS)]
    run = ahead.chain(rows, STEPS, "smoothing")
    spread = ahead.smoothing * ahead.units.z[ahead.drawn.system.state_dim :]
    draw = ahead.drawn.draw("smoothing", PAIRS, len(rows), len(spread))
    result = smoothed(run, derivative, spread, draw)
    numbers = {"gap": result.gap, "noise": result.noise, "cosine": result.cosine}
    count = int(onset.sum())
    decided = result.points > 0 and result.gap > max(_DIFFERS, 2 * result.noise)
    text = sentences.rough((count, len(onset)), result, STEPS, decided)
    size = result.gap if decided else 0.0
    found = Finding("rough", None, "onset", None, None, size, None, "rough", text, name)
    return [found], numbers
