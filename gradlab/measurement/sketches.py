"""A few hundred numbers per gradient that stand for all of θ: for signs and for tails.

    projections   v·G_i on random Gaussian directions v        `statistics.tails`
    coordinates   (G_i)_p of parameters p drawn once           `statistics.grams`

Signs of 70 000 parameters for every horizon with every start left out would be 10¹⁰ numbers. Those
of 256 drawn parameters are a sample: the share of all has a standard error of at most 0.03 beside
the one that is reported (exact where there are no more parameters). Directions and parameters
depend on nothing but their number.

Moments of gradients with θ in every action, none of them formed.

    |G_i|² = λ_iᵀ Θ_i λ_i,    G_i·v = Σ_t λ_t,i · (J_t,i v),    Θ_i over the steps of one sample

A kernel has (steps · da)² entries, a gradient as many as θ: for policies of more than a few
thousand parameters this is several times cheaper than `explicit_moments`, and the same to rounding.
Sums over samples are matrix products. |G − T|² is |G|² − 2 G·T + |T|², whose digits cancel where G
and T nearly agree: those estimators are left to explicit gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.trajectories import stream
from gradlab.gradients import gram
from gradlab.gradients.courses import Carried
from gradlab.gradients.gram import path_mean_gradients, path_squared_norms
from gradlab.gradients.policy_jacobian import PolicyJacobian
from gradlab.gradients.setting import (
    Floats,
    Starts,
    by_group,
    group_sums,
    grouping,
)
from gradlab.statistics.grams import SoftSigns, sign_agreement, soft_signs
from gradlab.statistics.moments import Array, Estimate, Moments, PairSums
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


_CLOSE = 1e-5  # |G − T|²/|G|² below which too few digits would be left

_Rows = Callable[[slice], Carried]


@dataclass(frozen=True)
class _Products:
    """Of the gradients of K horizons: their sum over all N samples, and per sample the rest.

    Attributes:
        total: Σ_i G_i, [K, P].
        squares: |G_i|², [K, N]; own: G_i · Σ_j G_j, [K, N].
        sketch: [K, N, S].
        truth: G_i · T_i and G_i · Σ_j T_j, [2, K, N]; None without a truth.
    """

    total: Tensor
    squares: Tensor
    own: Tensor
    sketch: Tensor
    truth: Tensor | None


def path_moments(
    rows: _Rows, blocks: list[slice], policy: nn.Module, begin: Starts, T: Tensor | None
) -> tuple[list[Moments], Tensor] | None:
    """Moments of every horizon and the mean gradients [K, P]; None where G and T nearly agree.

    Args:
        rows: λ and J of some of the samples, each of which is a group of its own.
        T: true gradients of the same samples, [N, P].
    """
    sketch = sketch_for(policy)
    kept = _products(rows, blocks, sketch, T)
    label, size = grouping(begin)
    squares = own = by_group(kept.squares, label)
    left, total = by_group(kept.own, label), kept.total
    mean = total / len(begin.states)
    sketches = [grouped(of_path, label) for of_path in kept.sketch]
    gradients = [PairSums(*sums_of_one) for sums_of_one in zip(own, left, left, strict=True)]
    if T is None or kept.truth is None:
        pairs = zip(squares, gradients, sketches, strict=True)
        return [
            _marked(Moments(size, square, gradient), sums, None) for square, gradient, sums in pairs
        ], mean
    true = true_sketch(grouped(explicit_sketch(sketch, T), label), size)
    own, side = by_group(torch.stack([T.square().sum(dim=1), T @ T.sum(dim=0)]), label)
    reference = PairSums(own, side, side)
    products = [by_group(product, label) for product in (*kept.truth, total @ T.T)]
    crosses = [PairSums(*sums_of_one) for sums_of_one in zip(*products, strict=True)]
    moments = []
    for k, (gradient, cross) in enumerate(zip(gradients, crosses, strict=True)):
        error = difference(gradient, cross, reference)
        if error.own.sum() < _CLOSE * squares[k].sum():
            return None
        plain = Moments(size, squares[k], gradient, reference, error, cross)
        moments.append(_marked(plain, sketches[k], true))
    return moments, mean


def _marked(plain: Moments, sums: Floats, truth: TrueSketch | None) -> Moments:
    """The same moments with tails and signs."""
    tails, signs = tails_and_signs(sums, plain.size, truth)
    return replace(plain, tails=tails, signs=signs)


def difference(gradient: PairSums, cross: PairSums, truth: PairSums) -> PairSums:
    """Pair sums of G − T with itself."""
    side = gradient.left - cross.left - cross.right + truth.left
    return PairSums(gradient.own - 2 * cross.own + truth.own, side, side)


def _products(rows: _Rows, blocks: list[slice], sketch: Sketch, T: Tensor | None) -> _Products:
    true = None if T is None else T.sum(dim=0)
    total: Tensor | None = None
    squares, sketches, truths = [], [], []
    for block in blocks:
        part = rows(block)
        sums = part.costates.shape[2] * path_mean_gradients(part.jacobian, part.costates, part.ends)
        total = sums if total is None else total + sums
        squares.append(path_squared_norms(part.jacobian, part.costates).clamp_min(0.0))
        J = jacobian_sketch(sketch, part.jacobian)
        steps = part.costates.shape[1:3]
        J = J.reshape(*steps, *J.shape[1:])
        sketches.append(torch.einsum("ktna,tnas->kns", part.costates, J))
        if T is not None and true is not None:
            everybody = gram.along(part.jacobian, true[None])[0].reshape(*steps, -1)
            along = torch.stack([gram.along_own(part.jacobian, T[block]), everybody])
            truths.append(torch.einsum("ktna,dtna->dkn", part.costates, along))
    assert total is not None
    own = torch.cat([_with_total(rows(block), total) for block in blocks], dim=1)
    truth = torch.cat(truths, dim=2) if truths else None
    sketches_of_all = torch.cat(sketches, dim=1)
    return _Products(total, torch.cat(squares, dim=1), own, sketches_of_all, truth)


def _with_total(part: Carried, total: Tensor) -> Tensor:
    """G_i · Σ_j G_j, [K, n]."""
    products = []
    for k, sums in enumerate(total):
        jacobian, costates = part.until_end(k)
        along = gram.along(jacobian, sums[None])[0].reshape(costates.shape)
        products.append((costates * along).sum(dim=(0, 2)))
    return torch.stack(products)
