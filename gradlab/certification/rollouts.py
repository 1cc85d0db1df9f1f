"""Findings about several steps: the sign of chained gradients, and smoothed gradients at kinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradlab.certification import sentences
from gradlab.certification.certification import Finding
from gradlab.certification.chains import Chain
from gradlab.certification.comparison import Units
from gradlab.certification.derivatives import Derivative
from gradlab.certification.evaluation import Points, evenly
from gradlab.certification.horizons import AGREE, DIRECTIONS, Signs, signs
from gradlab.certification.sampling import Law
from gradlab.certification.smoothed import PAIRS, POINTS, STEPS, smoothed

STARTS = 30  # trajectories of a chain: with 16 moved ones each, they just fill two calls
DIFFERS = 0.1  # of the smoothed gradient, from which a gap is named


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


def chained(ahead: Ahead, name: str, derivative: Derivative) -> tuple[list[Finding], Signs]:
    """How far the sign of the chained gradient is right."""
    rows = evenly(len(ahead.points), STARTS)
    run = ahead.chain(rows, ahead.horizon, "chain")
    draw = ahead.drawn.draw("directions", len(rows), run.first.shape[1], DIRECTIONS)
    result = signs(run, derivative, ahead.units, ahead.epsilon, draw)
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
    decided = result.points > 0 and result.gap > max(DIFFERS, 2 * result.noise)
    text = sentences.rough((count, len(onset)), result, STEPS, decided)
    size = result.gap if decided else 0.0
    found = Finding("rough", None, "onset", None, None, size, None, "rough", text, name)
    return [found], numbers
