"""The one accumulator of moments: gradients of K cells, by groups of starts, in two passes.

    X_g = Σ_{i∈g} G_i,    squares_g = Σ_{i∈g} |G_i|²,    T_g the same sum of the truth
    first pass     Σ X, squares, |X_g|², sketches
    second pass    X_g·ΣX, X_g·T_g, X_g·ΣT, ΣX·T_g, |Y_g|² and Y_g·ΣY with Y = X − T

A sample is a start with the steps of its path, or with its visits, which are samples of their own
in `squares`. Groups of one start are the default. Two ways of taking the products of a block give
the same numbers to rounding:

    formed     G_i itself, a cell at a time: where θ is small, groups are shared, or critics differ
    by steps   |G_i|² = λ_iᵀ Θ_i λ_i and G_i·v = Σ_t λ_t,i · (J_t,i v), Θ_i over the steps of one
               start: for policies of more than a few thousand parameters several times cheaper

By steps |Y|² is |X|² − 2 X·T + |T|², whose digits cancel where G and T nearly agree: such gradients
are formed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.gradients import gram
from gradlab.gradients.courses import Carried
from gradlab.gradients.setting import Floats, Starts, group_sums, grouping
from gradlab.measurement.grams import group_blocks
from gradlab.measurement.sketches import (
    Sketch,
    explicit_sketch,
    grouped,
    jacobian_sketch,
    sketch_for,
    tails_and_signs,
    true_sketch,
)
from gradlab.statistics.moments import Moments, PairSums

WIDE = 4096  # parameters beyond which explicit gradients cost more than kernels of their steps
SAMPLES = 128  # starts whose gradients are held at once
_CLOSE = 1e-5  # |G − T|²/|G|² below which too few digits would be left by steps

Rows = Callable[[slice], Sequence[Carried]]  # starts → λ and J, and those with other critics


@dataclass(frozen=True)
class _Block:
    """λ and J of a block of starts, the group of each within it, [n], and its groups' truths.

    Attributes:
        repeats: visits of a start; 0 where a sample is a path.
        truth: T_g, [g, P]; None without a truth.
    """

    terms: Sequence[Carried]
    label: Tensor
    repeats: int
    truth: Tensor | None

    def in_order(self, x: Tensor) -> Tensor:
        """[..., n] of starts as [..., g] of groups of one."""
        ordered = torch.empty_like(x)
        ordered[..., self.label] = x
        return ordered

    @property
    def of_visits(self) -> Tensor:
        """Σ_visits |G|², [K, n]."""
        costates = self.terms[0].costates
        norms = gram.squared_norms(self.terms[0].jacobian, costates.flatten(1, 2))
        return norms.reshape(costates.shape[:3]).sum(dim=1)


@dataclass(frozen=True)
class _First:
    """Σ X [C, K, P], squares and |X_g|² [K, g], and sketches [K, g, S]; C critics."""

    total: Tensor
    squares: Tensor
    own: Tensor
    sketch: list[np.ndarray]


def _formed_first(block: _Block, sketch: Sketch) -> _First:
    K = len(block.terms[0].costates)
    totals, squares, own, sketches = [], [], [], []
    visits = block.of_visits if block.repeats else None
    for k in range(K):
        every = [gram.path_gradients(*terms.until_end(k)) for terms in block.terms]
        totals.append(torch.stack([G.sum(dim=0) for G in every]))
        norms = (every[0] ** 2).sum(dim=1) if visits is None else visits[k]
        squares.append(group_sums(norms[:, None], block.label)[:, 0])
        own.append(group_sums(every[0], block.label).square().sum(dim=1))
        sketches.append(grouped(explicit_sketch(sketch, every[0]), block.label))
    return _First(torch.stack(totals, dim=1), torch.stack(squares), torch.stack(own), sketches)


def _formed_second(block: _Block, total: Tensor, T: Tensor | None) -> Tensor:
    """X·ΣX and, with a truth, X·T, X·ΣT, |Y|², Y·ΣY; with other critics |D|² and D·ΣD of what
    each gradient differs from their mean, summed, over C − 1; [., K, g]."""
    rows = []
    for k in range(total.shape[1]):
        every = [gram.path_gradients(*terms.until_end(k)) for terms in block.terms]
        X, sums = group_sums(every[0], block.label), total[0, k]
        row = [X @ sums]
        if T is not None and block.truth is not None:
            Y = X - block.truth
            row += [(X * block.truth).sum(dim=1), X @ T, (Y * Y).sum(dim=1), Y @ (sums - T)]
        if len(every) > 1:
            G = torch.stack(every)
            apart = [group_sums(d, block.label) for d in G - G.mean(dim=0)]
            sides = total[:, k] - total[:, k].mean(dim=0)
            share = len(every) - 1
            pairs = list(zip(apart, sides, strict=True))
            row.append(torch.stack([(d * d).sum(dim=1) for d in apart]).sum(dim=0) / share)
            row.append(torch.stack([d @ side for d, side in pairs]).sum(dim=0) / share)
        rows.append(torch.stack(row))
    return torch.stack(rows, dim=1)


def _steps_first(block: _Block, sketch: Sketch) -> _First:
    (terms,) = block.terms
    J, costates = terms.jacobian, terms.costates
    own = gram.path_squared_norms(J, costates).clamp_min(0.0)
    squares = block.of_visits if block.repeats else own
    along = jacobian_sketch(sketch, J)
    along = along.reshape(*costates.shape[1:3], *along.shape[1:])
    sketched = torch.einsum("ktna,tnas->kns", costates, along)
    total = costates.shape[2] * gram.path_mean_gradients(J, costates, terms.ends)
    sketches = [grouped(each, block.label) for each in sketched]
    return _First(total[None], block.in_order(squares), block.in_order(own), sketches)


def _steps_second(block: _Block, total: Tensor, T: Tensor | None) -> Tensor:
    """The same as formed, each start being a group."""
    (terms,) = block.terms
    J, costates = terms.jacobian, terms.costates
    left = _along_each(terms, total[0])
    if T is None or block.truth is None:
        return block.in_order(left[None])
    steps = costates.shape[1:3]
    everybody = gram.along(J, T[None])[0].reshape(*steps, -1)
    along = torch.stack([gram.along_own(J, block.truth[block.label]), everybody])
    truths = torch.einsum("ktna,dtna->dkn", costates, along)
    return block.in_order(torch.stack([left, *truths]))


def _along_each(terms: Carried, total: Tensor) -> Tensor:
    """X_i · Σ_j X_j of each cell, [K, n]."""
    if len(set(terms.ends)) == 1:
        along = gram.along(terms.jacobian, total).reshape(terms.costates.shape)
        return (terms.costates * along).sum(dim=(1, 3))
    products = []
    for k, sums in enumerate(total):
        jacobian, costates = terms.until_end(k)
        along = gram.along(jacobian, sums[None])[0].reshape(costates.shape)
        products.append((costates * along).sum(dim=(0, 2)))
    return torch.stack(products)


def accumulated(
    rows: Rows,
    policy: nn.Module,
    begin: Starts,
    T: Tensor | None,
    repeats: int = 0,
    formed: bool = False,
) -> tuple[list[Moments], Tensor]:
    """Moments of K cells and the mean gradients [K, P].

    Args:
        rows: λ [K, steps or visits, n, width] and J of some of the starts, weights included.
        T: true gradients of the starts, [N, P].
        repeats: visits of each start; 0: samples are paths.
        formed: take the first way in any case, as other critics need it.
    """
    label, size = grouping(begin)
    truth = None if T is None else max(repeats, 1) * group_sums(T, label)
    wide = sum(p.numel() for p in policy.parameters()) > WIDE

    def made(some: slice) -> _Block:
        groups, here = torch.unique(label[some], return_inverse=True)
        return _Block(rows(some), here, repeats, None if truth is None else truth[groups])

    blocks = list(group_blocks(begin.group, SAMPLES))
    size = size * max(repeats, 1)
    found = None
    if wide and not formed and len(size) == len(label):
        found = _passes(made, blocks, size, policy, truth, False)
    if found is None:
        found = _passes(made, blocks, size, policy, truth, True)
    assert found is not None  # what is formed has all its digits
    return found


def _passes(
    made: Callable[[slice], _Block],
    blocks: Sequence[slice],
    size: Floats,
    policy: nn.Module,
    truth: Tensor | None,
    formed: bool,
) -> tuple[list[Moments], Tensor] | None:
    """Both passes over all blocks, one of the two ways; None where too few digits are left."""
    sketch = sketch_for(policy)
    first, second = (_formed_first, _formed_second) if formed else (_steps_first, _steps_second)
    firsts = [first(made(rows), sketch) for rows in blocks]
    total = torch.stack([each.total for each in firsts]).sum(dim=0)
    squares = torch.cat([each.squares for each in firsts], dim=1).numpy()
    sketches = [
        np.concatenate(of_cell) for of_cell in zip(*(f.sketch for f in firsts), strict=True)
    ]
    T = None if truth is None else truth.sum(dim=0)
    sums = torch.cat([second(made(rows), total, T) for rows in blocks], dim=2).numpy()
    own = torch.cat([each.own for each in firsts], dim=1).numpy()
    gradient = [PairSums(of_cell, left, left) for of_cell, left in zip(own, sums[0], strict=True)]
    moments = [Moments(size, *each) for each in zip(squares, gradient, strict=True)]
    true, rest = None, sums[1:]
    if truth is not None and T is not None:
        side = (truth @ T).numpy()
        reference = PairSums(truth.square().sum(dim=1).numpy(), side, side)
        true = true_sketch(explicit_sketch(sketch, truth).numpy(), size)
        along = (total[0] @ truth.T).numpy()
        cross = [PairSums(*each) for each in zip(*rest[:2], along, strict=True)]
        if formed:
            errors = [PairSums(own, left, left) for own, left in zip(*rest[2:4], strict=True)]
        else:
            errors = [difference(g, c, reference) for g, c in zip(gradient, cross, strict=True)]
            near = [e.own.sum() < _CLOSE * x.sum() for e, x in zip(errors, squares, strict=True)]
            if any(near):
                return None
        moments = [
            replace(each, truth=reference, difference=error, cross=crossed)
            for each, error, crossed in zip(moments, errors, cross, strict=True)
        ]
        rest = rest[4:] if formed else rest[2:]
    if len(rest):
        critics = [PairSums(own, left, left) for own, left in zip(*rest, strict=True)]
        moments = [replace(m, critics=each) for m, each in zip(moments, critics, strict=True)]
    marked = [
        replace(each, tails=tails, signs=signs)
        for each, of_cell in zip(moments, sketches, strict=True)
        for tails, signs in [tails_and_signs(of_cell, size, true)]
    ]
    return marked, total[0] / size.sum()


def difference(gradient: PairSums, cross: PairSums, truth: PairSums) -> PairSums:
    """Pair sums of G − T with itself."""
    side = gradient.left - cross.left - cross.right + truth.left
    return PairSums(gradient.own - 2 * cross.own + truth.own, side, side)
