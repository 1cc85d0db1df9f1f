"""A few hundred numbers per gradient that stand for all of θ: for signs and for tails.

    projections   v·G_i on random Gaussian directions v        `statistics.tails`
    coordinates   (G_i)_p of parameters p drawn once           `statistics.grams`

Signs of 70 000 parameters for every horizon with every start left out would be 10¹⁰ numbers. Those
of 256 drawn parameters are a sample: the share of all has a standard error of at most 0.03 beside
the one that is reported (exact where there are no more parameters). Directions and parameters
depend on nothing but their number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.trajectories import stream
from gradlab.gradients import gram
from gradlab.gradients.policy_jacobian import PolicyJacobian
from gradlab.gradients.setting import (
    group_sums,
)
from gradlab.statistics.grams import SoftSigns, sign_agreement, soft_signs
from gradlab.statistics.moments import Array, Estimate
from gradlab.statistics.tails import DIRECTIONS, heavier, tail_index

COORDINATES = 256


@dataclass(frozen=True)
class Sketch:
    """Which directions [D, P] and which trained parameters, ascending [C]."""

    directions: Tensor
    columns: Tensor

    @property
    def width(self) -> int:
        return len(self.directions) + len(self.columns)


def sketch_for(policy: nn.Module) -> Sketch:
    """The same for every measurement of a policy of these sizes."""
    trained = torch.cat(
        [torch.full((p.numel(),), p.requires_grad) for p in policy.parameters()]
    ).nonzero()[:, 0]
    generator = stream(0, "sketch")
    order = torch.randperm(len(trained), generator=generator)[:COORDINATES]
    size = sum(p.numel() for p in policy.parameters())
    directions = torch.randn(DIRECTIONS, size, generator=generator, dtype=torch.float64)
    return Sketch(directions, trained[order].sort().values)


def explicit_sketch(sketch: Sketch, G: Tensor) -> Tensor:
    """[N, D + C] of gradients [N, P]."""
    return torch.cat([G @ sketch.directions.T, G[:, sketch.columns]], dim=1)


def jacobian_sketch(sketch: Sketch, jacobian: PolicyJacobian) -> Tensor:
    """J_i along the directions and at the parameters, [N, da, D + C]: times g_i it is a sketch."""
    along = gram.along(jacobian, sketch.directions).permute(1, 2, 0)
    return torch.cat([along, _columns(jacobian, sketch.columns)], dim=2)


def _columns(jacobian: PolicyJacobian, columns: Tensor) -> Tensor:
    """Columns of J_i, [N, da, C]."""
    signals = jacobian.factors[0].signals
    result = signals.new_zeros(jacobian.samples, jacobian.action_dim, len(columns))
    for factor in jacobian.factors:
        if factor.inputs is None:
            result += factor.signals[:, :, columns]
            continue
        if factor.weight is not None:
            here = _inside(columns, factor.weight)
            inputs = factor.inputs.shape[1]
            place = columns[here] - factor.weight.start
            out, into = place // inputs, place % inputs
            result[:, :, here] += factor.signals[:, :, out] * factor.inputs[:, None, into]
        if factor.bias is not None:
            here = _inside(columns, factor.bias)
            result[:, :, here] += factor.signals[:, :, columns[here] - factor.bias.start]
    return result


def _inside(columns: Tensor, part: slice) -> Tensor:
    return torch.logical_and(columns >= part.start, columns < part.stop)


@dataclass(frozen=True)
class TrueSketch:
    """The truth's sketch by group, [G, D + C], with the signs of its mean."""

    sums: Array
    signs: SoftSigns


def true_sketch(sums: Array, size: Array) -> TrueSketch:
    """Of sums over groups."""
    return TrueSketch(sums, _signs(sums, size))


def tails_and_signs(
    sums: Array, size: Array, truth: TrueSketch | None
) -> tuple[Estimate, Estimate | None]:
    """Tail index, the larger of gradient's and error's, and agreement of signs with the truth.

    Args:
        sums: [G, D + C], sums of the gradients' sketches over each group, weights included.
        size: [G], samples of each group.
    """
    tails = tail_index(sums[:, :DIRECTIONS], size)
    if truth is None:
        return tails, None
    error = (sums - truth.sums)[:, :DIRECTIONS]
    signs = sign_agreement(_signs(sums, size), truth.signs)
    return heavier(tails, tail_index(error, size)), signs


def _signs(sums: Array, size: Array) -> SoftSigns:
    return soft_signs(sums[:, DIRECTIONS:], size)


def grouped(sketch: Tensor, label: Tensor) -> Array:
    """[N, D + C] → [G, D + C]."""
    return np.asarray(group_sums(sketch, label).detach().numpy(), dtype=np.float64)
