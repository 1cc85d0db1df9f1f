"""A few hundred numbers per gradient that stand for all of θ: for signs and for tails.

    projections   v·G_i on random Gaussian directions v        `statistics.tails`
    coordinates   (G_i)_p of parameters p drawn once           `statistics.grams`

Signs of 70 000 parameters for every horizon with every start left out would be 10¹⁰ numbers. Those
of 256 drawn parameters are a sample: the share of all has a standard error of at most 0.03 beside
the one that is reported (exact where there are no more parameters). Directions and parameters
depend on nothing but their number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.trajectories import stream
from gradlab.gradients.policy_jacobian import PolicyJacobian
from gradlab.gradients.setting import (
    group_sums,
)
from gradlab.statistics.grams import sign_agreements
from gradlab.statistics.moments import Array, Estimate
from gradlab.statistics.tails import DIRECTIONS, heavier, tail_index

COORDINATES = 256


Sketch = tuple[Tensor, Tensor]  # directions [D, P], and trained parameters, ascending [C]


def sketch_for(policy: nn.Module) -> Sketch:
    """The same for every measurement of a policy of these sizes."""
    trained = torch.cat(
        [torch.full((p.numel(),), p.requires_grad) for p in policy.parameters()]
    ).nonzero()[:, 0]
    generator = stream(0, "sketch")
    order = torch.randperm(len(trained), generator=generator)[:COORDINATES]
    size = sum(p.numel() for p in policy.parameters())
    directions = torch.randn(DIRECTIONS, size, generator=generator, dtype=torch.float64)
    return directions, trained[order].sort().values


def explicit_sketch(sketch: Sketch, G: Tensor) -> Tensor:
    """[N, D + C] of gradients [N, P]."""
    directions, columns = sketch
    return torch.cat([G @ directions.T, G[:, columns]], dim=1)


def jacobian_sketch(sketch: Sketch, jacobian: PolicyJacobian) -> Tensor:
    """J_i along the directions and at the parameters, [N, da, D + C]: times g_i it is a sketch."""
    directions, columns = sketch
    along = (jacobian @ directions).permute(1, 2, 0)
    return torch.cat([along, _columns(jacobian, columns)], dim=2)


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


def tails_and_signs(
    sums: Sequence[Array], size: Array, truth: Array | None
) -> list[tuple[Estimate, Estimate | None]]:
    """Tail index, the larger of gradient's and error's, and agreement of signs with the truth.

    Args:
        sums: [G, D + C] of each gradient, sums of sketches over each group, weights included.
        size: [G], samples of each group; truth: [G, D + C], likewise.
    """
    tails = [tail_index(each[:, :DIRECTIONS], size) for each in sums]
    if truth is None:
        return [(tail, None) for tail in tails]
    errors = [tail_index((each - truth)[:, :DIRECTIONS], size) for each in sums]
    agree = sign_agreements(
        np.stack([each[:, DIRECTIONS:] for each in sums]), truth[:, DIRECTIONS:], size
    )
    return [(heavier(*pair), signs) for *pair, signs in zip(tails, errors, agree, strict=True)]


def grouped(sketch: Tensor, label: Tensor) -> Array:
    """[N, D + C] → [G, D + C]."""
    return np.asarray(group_sums(sketch, label).detach().numpy(), dtype=np.float64)
