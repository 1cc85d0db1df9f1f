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

from gradlab.gradients.setting import Floats, Starts, group_sums, grouping
from gradlab.gradients.trajectory import CostateTerms
from gradlab.measurement.grams import SAMPLES, Rows, TermSource, group_blocks
from gradlab.measurement.sketches import (
    Sketch,
    explicit_sketch,
    grouped,
    jacobian_sketch,
    sketch_for,
    tails_and_signs,
)
from gradlab.statistics.moments import Moments, PairSums

WIDE = 4096  # parameters beyond which explicit gradients cost more than kernels of their steps
_CLOSE = 1e-5  # |G − T|²/|G|² below which too few digits would be left by steps


@dataclass(frozen=True)
class _Block:
    """λ and J of a block of starts, the group of each within it, [n], and its groups' truths.

    Attributes:
        terms: also with other critics.
        visits: of a start; 0 where a sample is a path.
        truth: T_g, [g, P]; None without a truth.
    """

    terms: Sequence[CostateTerms]
    label: Tensor
    visits: int
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
        norms = self.terms[0].jacobian.squared_norms(costates.flatten(1, 2)[:, None])
        return norms.reshape(costates.shape[:3]).sum(dim=1)


# Σ X [C, K, P] with C critics, squares and |X_g|² [K, g], and sketches [K, g, S].
_First = tuple[Tensor, Tensor, Tensor, list[np.ndarray]]


def _formed_first(block: _Block, sketch: Sketch) -> _First:
    K = len(block.terms[0].costates)
    totals, squares, own, sketches = [], [], [], []
    visits = block.of_visits if block.visits else None
    for k in range(K):
        every = [terms.gradients(k) for terms in block.terms]
        totals.append(torch.stack([G.sum(dim=0) for G in every]))
        norms = (every[0] ** 2).sum(dim=1) if visits is None else visits[k]
        squares.append(group_sums(norms[:, None], block.label)[:, 0])
        own.append(group_sums(every[0], block.label).square().sum(dim=1))
        sketches.append(grouped(explicit_sketch(sketch, every[0]), block.label))
    return torch.stack(totals, dim=1), torch.stack(squares), torch.stack(own), sketches


def _formed_second(block: _Block, total: Tensor, T: Tensor | None) -> Tensor:
    """X·ΣX and, with a truth, X·T, X·ΣT, |Y|², Y·ΣY; with other critics |D|² and D·ΣD of what
    each gradient differs from their mean, summed, over C − 1; [., K, g]."""
    rows = []
    for k in range(total.shape[1]):
        every = [terms.gradients(k) for terms in block.terms]
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
    own = J.squared_norms(costates).clamp_min(0.0)
    squares = block.of_visits if block.visits else own
    along = jacobian_sketch(sketch, J)
    along = along.reshape(*costates.shape[1:3], *along.shape[1:])
    sketched = torch.einsum("ktna,tnas->kns", costates, along)
    total = terms.sums()
    sketches = [grouped(each, block.label) for each in sketched]
    return total[None], block.in_order(squares), block.in_order(own), sketches


def _steps_second(block: _Block, total: Tensor, T: Tensor | None) -> Tensor:
    """The same as formed, each start being a group."""
    (terms,) = block.terms
    J, costates = terms.jacobian, terms.costates
    left = _along_each(terms, total[0])
    if T is None or block.truth is None:
        return block.in_order(left[None])
    steps = costates.shape[1:3]
    everybody = (J @ T[None])[0].reshape(*steps, -1)
    along = torch.stack([J.along_own(block.truth[block.label]), everybody])
    truths = torch.einsum("ktna,dtna->dkn", costates, along)
    return block.in_order(torch.stack([left, *truths]))


def _along_each(terms: CostateTerms, total: Tensor) -> Tensor:
    """X_i · Σ_j X_j of each cell, [K, n]."""
    if len(set(terms.ends)) == 1:
        along = (terms.jacobian @ total).reshape(terms.costates.shape)
        return (terms.costates * along).sum(dim=(1, 3))
    products = []
    for k, sums in enumerate(total):
        jacobian, costates = terms.until_end(k)
        along = (jacobian @ sums[None])[0].reshape(costates.shape)
        products.append((costates * along).sum(dim=(0, 2)))
    return torch.stack(products)


def accumulated(
    source: TermSource, policy: nn.Module, begin: Starts, truth: Rows | None
) -> tuple[list[Moments], Tensor]:
    """Moments of the K cells of a source and their mean gradients [K, P].

    Args:
        truth: true gradients [n, P] of some of the starts, weights included.
    """
    label, size = grouping(begin)
    repeats = max(source.visits, 1)
    wide = sum(p.numel() for p in policy.parameters()) > WIDE

    def made(some: slice) -> _Block:
        _, here = torch.unique(label[some], return_inverse=True)
        T = None if truth is None else repeats * group_sums(truth(some), here)
        return _Block(source.rows(some), here, source.visits, T)

    blocks, found = list(group_blocks(begin.group, SAMPLES)), None
    if wide and not source.several and len(size) == len(label):
        found = _passes(made, blocks, size * repeats, policy, False)
    if found is None:
        found = _passes(made, blocks, size * repeats, policy, True)
    assert found is not None  # what is formed has all its digits
    return found


def _passes(
    made: Callable[[slice], _Block],
    blocks: Sequence[slice],
    size: Floats,
    policy: nn.Module,
    formed: bool,
) -> tuple[list[Moments], Tensor] | None:
    """Both passes over all blocks, one of the two ways; None where too few digits are left."""
    sketch = sketch_for(policy)
    first, second = (_formed_first, _formed_second) if formed else (_steps_first, _steps_second)
    firsts, truths = [], []
    for block in map(made, blocks):
        firsts.append(first(block, sketch))
        if (T := block.truth) is not None:
            truths.append((T.sum(dim=0), T.square().sum(dim=1), explicit_sketch(sketch, T)))
    totals, squared, owns, sketched = zip(*firsts, strict=True)
    total = torch.stack(totals).sum(dim=0)
    squares, own = (torch.cat(parts, dim=1).numpy() for parts in (squared, owns))
    sketches = [np.concatenate(of_cell) for of_cell in zip(*sketched, strict=True)]
    T = torch.stack([each[0] for each in truths]).sum(dim=0) if truths else None
    products, sides = [], []
    for block in map(made, blocks):
        products.append(second(block, total, T))
        if block.truth is not None and T is not None:
            sides.append(torch.stack([block.truth @ T, *(block.truth @ total[0].T).T]))
    sums = torch.cat(products, dim=2).numpy()
    gradient = [PairSums(of_cell, left, left) for of_cell, left in zip(own, sums[0], strict=True)]
    moments = [Moments(size, *each) for each in zip(squares, gradient, strict=True)]
    true, rest = None, sums[1:]
    if T is not None:
        side, *along = torch.cat(sides, dim=1).numpy()
        reference = PairSums(torch.cat([each[1] for each in truths]).numpy(), side, side)
        true = torch.cat([each[2] for each in truths]).numpy()
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
    marks = tails_and_signs(sketches, size, true)
    marked = [replace(m, tails=t, signs=s) for m, (t, s) in zip(moments, marks, strict=True)]
    return marked, total[0] / size.sum()


def difference(gradient: PairSums, cross: PairSums, truth: PairSums) -> PairSums:
    """Pair sums of G − T with itself."""
    side = gradient.left - cross.left - cross.right + truth.left
    return PairSums(gradient.own - 2 * cross.own + truth.own, side, side)
