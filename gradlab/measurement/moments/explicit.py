"""Moments of gradients with θ in every action, which are explicit vectors.

Some samples at a time: a first pass sums gradients and their squares within groups, a second one
takes each group's products with the sums; only sums of all horizons [K, P] and sketches are kept.
Of a stratified sample the sums are by stratum, and the second pass makes the groups exchangeable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gradlab.gradients import gram
from gradlab.gradients.estimator import Estimator, first_horizon
from gradlab.gradients.starts import (
    Floats,
    Starts,
    exchangeable,
    group_sums,
    grouping,
    stratum_rows,
)
from gradlab.measurement.moments.held import Held, group_blocks
from gradlab.measurement.moments.sketches import (
    Sketch,
    explicit_sketch,
    grouped,
    sketch_for,
    tails_and_signs,
    true_sketch,
)
from gradlab.statistics.moments import Moments, PairSums

SAMPLES = 128  # whose explicit gradients are held at once


_Rows = Callable[[slice], Iterator[tuple[int, list[Tensor], Tensor]]]


def explicit_moments(
    several: Sequence[Estimator], held: Held, T: Tensor | None
) -> tuple[list[Moments], Tensor]:
    """Moments of every horizon, and the mean gradients of those horizons, [K, P].

    Args:
        several: the estimator, and the same with other critics.
        T: true gradients of the same samples, [N, P].
    """
    policy, begin = held.setting.policy, held.setting.starts
    horizons = tuple(range(first_horizon(several[0]), several[0].tail.horizon + 1))
    blocks = list(group_blocks(begin.group, SAMPLES))

    def gradients(rows: slice) -> Iterator[tuple[int, list[Tensor], Tensor]]:
        found = [held.rows(one, rows, horizons) for one in several]
        for k in range(len(horizons)):
            every = [gram.path_gradients(*terms.until_end(k)) for terms in found]
            yield k, every, grouping(begin.block(rows))[0]

    sketch = sketch_for(policy)
    P, strata = sum(p.numel() for p in policy.parameters()), begin.strata
    sums = begin.states.new_zeros(len(stratum_rows(strata)), len(several), len(horizons), P)
    squares, sketches = _first_pass(gradients, blocks, begin, sums, sketch)
    pairs, critics = _second_pass(gradients, blocks, begin, sums, T)
    label, size = grouping(begin)
    truth = None
    if T is not None:
        truth = true_sketch(grouped(explicit_sketch(sketch, T), label), size, strata)
    cells = []
    for k in range(len(horizons)):
        tails, signs = tails_and_signs(np.concatenate(sketches[k]), size, truth, strata)
        gradient, *against = _concatenated(pairs[k])
        norms = torch.cat(squares[k]).numpy()
        norms = norms if strata is None else norms / strata.weight
        plain = Moments(size, norms, gradient, signs=signs, tails=tails, strata=strata)
        if against:
            reference, error, cross = against
            plain = replace(plain, truth=reference, difference=error, cross=cross)
        across = _concatenated([[block] for block in critics[k]])[0] if critics[k] else None
        cells.append(replace(plain, critics=across))
    return cells, sums.sum(dim=0)[0] / len(begin.states)


def _first_pass(
    gradients: _Rows, blocks: list[slice], begin: Starts, sums: Tensor, sketch: Sketch
) -> tuple[list[list[Tensor]], list[list[Floats]]]:
    """Fills the sums [H, C, K, P]; squared norms and sketches by group, block by block."""
    squares: list[list[Tensor]] = [[] for _ in range(sums.shape[2])]
    sketches: list[list[Floats]] = [[] for _ in range(sums.shape[2])]
    for rows in blocks:
        members = stratum_rows(begin.strata, rows)
        for k, every, label in gradients(rows):
            G = every[0]
            for of_stratum, here in zip(sums, members, strict=True):
                of_stratum[:, k] += torch.stack([gradients[here].sum(dim=0) for gradients in every])
            squares[k].append(group_sums((G * G).sum(dim=1, keepdim=True), label)[:, 0])
            sketches[k].append(grouped(explicit_sketch(sketch, G), label))
    return squares, sketches


def _second_pass(
    gradients: _Rows, blocks: list[slice], begin: Starts, sums: Tensor, T: Tensor | None
) -> tuple[list[list[list[PairSums]]], list[list[PairSums]]]:
    """Pair sums of G, and against a truth of T, Y and G with T; and those across critics."""
    totals, strata = sums.sum(dim=0), begin.strata
    pairs: list[list[list[PairSums]]] = [[] for _ in range(totals.shape[1])]
    critics: list[list[PairSums]] = [[] for _ in range(totals.shape[1])]
    truth_sum = None if T is None else T.sum(dim=0)
    if T is not None:
        T = exchangeable(T, strata)
    for rows in blocks:
        for k, every, label in gradients(rows):
            total = totals[0, k]
            g = exchangeable(group_sums(every[0], label), strata, sums[:, 0, k], rows)
            of_block = [_pairs(g, g, total, total)]
            if T is not None and truth_sum is not None:
                t, difference = group_sums(T[rows], label), total - truth_sum
                of_block += [
                    _pairs(t, t, truth_sum, truth_sum),
                    _pairs(g - t, g - t, difference, difference),
                    _pairs(g, t, total, truth_sum),
                ]
            pairs[k].append(of_block)
            if len(every) > 1:
                critics[k].append(_critic_pairs(every, totals[:, k], label))
    return pairs, critics


def _critic_pairs(every: list[Tensor], sums: Tensor, label: Tensor) -> PairSums:
    """Pair sums of each critic's gradients less their mean, summed over C critics, over C − 1."""
    G, share = torch.stack(every), len(every) - 1
    of_critics = [
        _pairs(d, d, total, total)
        for d, total in zip(
            (group_sums(x, label) for x in G - G.mean(dim=0)),
            sums - sums.mean(dim=0),
            strict=True,
        )
    ]
    own, left, right = (
        np.stack([getattr(of_one, name) for of_one in of_critics]).sum(axis=0) / share
        for name in ("own", "left", "right")
    )
    return PairSums(own, left, right)


def _pairs(x: Tensor, z: Tensor, sum_x: Tensor, sum_z: Tensor) -> PairSums:
    own, left, right = (x * z).sum(dim=1), x @ sum_z, z @ sum_x
    return PairSums(own.numpy(), left.numpy(), right.numpy())


def _concatenated(blocks: list[list[PairSums]]) -> list[PairSums]:
    return [
        PairSums(
            np.concatenate([pair.own for pair in kind]),
            np.concatenate([pair.left for pair in kind]),
            np.concatenate([pair.right for pair in kind]),
        )
        for kind in zip(*blocks, strict=True)
    ]
