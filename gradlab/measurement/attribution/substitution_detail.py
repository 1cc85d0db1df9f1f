"""A cause's share of the squared bias, split over the entries of its blocks and over steps.

A difference of two gradients splits over blocks, entries and steps without a rest:

    g(X) − g(Y) = Σ_t γᵗ [γ p_{t+1}ᵀ (ΔA D + ΔB E) + Δr_sᵀ D + Δr_aᵀ E + λ_tᵀ ΔK D]_t + tail
    D_0 = 0, E_0 = I, E_t = K_t D_t, D_{t+1} = A_t D_t + B_t E_t   of X,    p, λ of Y

(a telescoping sum: X up to step t, Y from there on); the mean over both orders is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.gradients.groups import grouping
from gradlab.gradients.rollout import LinearizedPath
from gradlab.measurement.attribution.substitution import (
    CAUSES,
    Parts,
    Substitutions,
    named,
    products,
)
from gradlab.measurement.moments.inner_products import pair_sums
from gradlab.statistics.moments import Estimate, PairSums
from gradlab.statistics.shapley import estimates, without

BLOCKS = {
    "states": ("A", "B", "r_s", "r_a", "K", "q_s", "q_a"),
    "A": ("A",),
    "B": ("B",),
    "reward": ("r_s", "r_a"),
    "critic_s": ("q_s",),
    "critic_a": ("q_a",),
}
ENTRIES = 1 << 24  # action gradients held at once
SIDES = ("own", "left", "right")


@dataclass(frozen=True)
class Detail:
    """One cause's share, split over entries of its blocks and over steps; each sums to the share.

    Attributes:
        labels: (block, output, input) of each entry; the output of a gradient is 0.
        entries: their shares, all steps together.
        steps: shares of steps 0 … n, all entries together.
    """

    labels: tuple[tuple[str, int, int], ...]
    entries: tuple[Estimate, ...]
    steps: tuple[Estimate, ...]


def detail(substituted: Substitutions, cause: str, horizon: int) -> Detail:
    """Where in a cause its share comes from."""
    if cause not in CAUSES or horizon not in substituted.horizons:
        raise InputError(
            f"cause is {cause!r} and horizon {horizon}, expected one of {CAUSES} and of "
            f"{substituted.horizons}"
        )
    label, size = grouping(substituted.starts)
    sums: list[PairSums] = []
    batch: list[tuple[float, Tensor]] = []
    labels: tuple[tuple[str, int, int], ...] = ()
    player = CAUSES.index(cause)
    for S, weight in without(len(CAUSES), player):
        labels, rows = _rows(substituted, S, player, horizon)
        batch.append((weight, rows))
        if len(batch) * rows.numel() >= ENTRIES:
            sums += _split_sums(substituted, batch, label)
            batch = []
    sums += _split_sums(substituted, batch, label) if batch else []
    total = PairSums(*(np.sum([getattr(s, x) for s in sums], axis=0) for x in SIDES))
    every = estimates(total, size)
    return Detail(labels, tuple(every[: len(labels)]), tuple(every[len(labels) :]))


def _rows(
    substituted: Substitutions, S: int, player: int, horizon: int
) -> tuple[tuple[tuple[str, int, int], ...], Tensor]:
    """Y_S + Y_{S∪i}, then the split of Y_S − Y_{S∪i} over entries and steps, [1 + E, N, da]."""
    k = substituted.horizons.index(horizon)
    joined = S | 1 << player
    x, y = substituted.parts(named(S)), substituted.parts(named(joined))
    entries: dict[str, Tensor] = {}
    steps = [torch.zeros_like(substituted.truth) for _ in range(horizon + 1)]
    for block, t, piece in split(x, y, horizon, substituted.discount, BLOCKS[CAUSES[player]]):
        entries[block] = entries[block] + piece if block in entries else piece
        steps[t] = steps[t] + piece.sum(dim=(0, 1))
    labels = tuple(
        (b, i, j) for b, e in entries.items() for i in range(len(e)) for j in range(e.shape[1])
    )
    flat = [e.flatten(0, 1) for e in entries.values()]
    both = substituted.errors[S, k] + substituted.errors[joined, k]
    pieces = torch.cat([*flat, torch.stack(steps)]) * substituted.starts.weight[:, None]
    return labels, torch.cat([both[None], pieces])


def _split_sums(
    substituted: Substitutions, batch: list[tuple[float, Tensor]], label: Tensor
) -> Iterator[PairSums]:
    """w_S times the pair sums of each split with its Y_S + Y_{S∪i}; Θ is formed once."""
    total, within = products(substituted, torch.cat([rows for _, rows in batch]))
    size = len(batch[0][1])
    for k, (weight, rows) in enumerate(batch):
        all_of_it, of_group = (whole[k * size : (k + 1) * size] for whole in (total, within))
        sums = pair_sums(rows[1:], all_of_it[:1], of_group[:1], rows[:1], all_of_it[1:], label)
        yield PairSums(weight * sums.own, weight * sums.left, weight * sums.right)


def split(
    x: Parts, y: Parts, n: int, discount: float, blocks: Collection[str] = BLOCKS["states"]
) -> Iterator[tuple[str, int, Tensor]]:
    """(block, step, [rows, columns, N, da]): pieces whose sum is g_n(x) − g_n(y).

    Args:
        blocks: those in which x and y differ; the others' pieces are 0, and left out.
    """
    for before, after in ((x, y), (y, x)):
        D, E = _sensitivities(before.linear, n)
        p, costate = _costates(after, n, discount)
        for t in range(n + 1):
            scale = 0.5 * discount**t
            for block, worth, moved in _sources(t, n, D[t], E[t], p, costate[t], discount):
                if block in blocks:
                    delta = _at(x, block, t) - _at(y, block, t)
                    yield block, t, scale * torch.einsum("ni,nij,nja->ijna", worth, delta, moved)


def _sources(
    t: int, n: int, D: Tensor, E: Tensor, p: Tensor, costate: Tensor, discount: float
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each block of step t with what its output is worth and how its input has moved."""
    one = torch.ones_like(costate[:, :1])
    if t < n:
        ahead = discount * p[t + 1]
        yield from (("A", ahead, D), ("B", ahead, E), ("r_s", one, D), ("r_a", one, E))
    else:
        yield from (("q_s", one, D), ("q_a", one, E))
    yield "K", costate, D


def _at(parts: Parts, block: str, t: int) -> Tensor:
    """[N, rows, columns] of one block at one step; gradients are rows."""
    values: Tensor = getattr(parts.tail if block in ("q_s", "q_a") else parts.linear, block)[t]
    return values if values.ndim == 3 else values[:, None]


def _sensitivities(linear: LinearizedPath, n: int) -> tuple[Tensor, Tensor]:
    """D_t = ∂s_t/∂a_0 and E_t = ∂a_t/∂a_0 for t = 0 … n, [n + 1, N, ·, da]."""
    samples, ds = linear.path.states.shape[1:]
    da = linear.path.actions.shape[2]
    new = linear.path.states.new_zeros
    D, E = [new(samples, ds, da)], [torch.eye(da).to(new(0)).expand(samples, -1, -1)]
    for t in range(n):
        D.append(linear.A[t] @ D[t] + linear.B[t] @ E[t])
        E.append(linear.K[t + 1] @ D[t + 1])
    return torch.stack(D), torch.stack(E)


def _costates(parts: Parts, n: int, discount: float) -> tuple[Tensor, Tensor]:
    """p_t and λ_t, what s_t and a_t are worth at step t, for t = 0 … n."""
    linear, tail = parts.linear, parts.tail
    costate = [tail.q_a[n]]
    p = [tail.q_s[n] + torch.einsum("nas,na->ns", linear.K[n], costate[0])]
    for t in reversed(range(n)):
        ahead = discount * p[-1]
        costate.append(linear.r_a[t] + torch.einsum("nia,ni->na", linear.B[t], ahead))
        open_loop = linear.r_s[t] + torch.einsum("nij,ni->nj", linear.A[t], ahead)
        p.append(open_loop + torch.einsum("nas,na->ns", linear.K[t], costate[-1]))
    return torch.stack(p[::-1]), torch.stack(costate[::-1])
