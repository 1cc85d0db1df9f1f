"""How much the error of one derivative changes the policy gradient: what to correct first.

    e_ij = |ḡ(J with Ĵ_ij in place of J_ij) − ḡ(J)| / |ḡ(J)|,     ḡ = E Σ_t γᵗ Jπ(s_t)ᵀ λ_t
    (q_t, λ_t) = (γ p_{t+1}, 1) [A B; r_s r_a]_t,   p_t = q_t + K_tᵀ λ_t:   θ in every action (BPTT)

along the simulator's closed loop without a critic, exact for errors of any size. It is the mean
that an update follows: what has another sign at every start costs nothing. Norms are unbiased
(pairs of different groups, `moments.pair_mean`) over groups and taken along random directions of
θ, whose own error is part of every interval; up to `DIRECTIONS` parameters they are the axes.

    "effect"  e_ij, Fieller's interval of its square (`over_groups`)
    "share"   e_ij²/e_max² of the same starts, paired: all intervals hold together, and those that
              reach 1 are not told apart from the largest
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import nn

from gradlab.data.noise import stream
from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients.gram import along
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.visited_jacobians import Array, Visited
from gradlab.runs.long_table import At, RowCollector, number
from gradlab.statistics.intervals import Z
from gradlab.statistics.moments import PairSums, combine, pair_mean
from gradlab.statistics.over_groups import (
    Estimates,
    group_sums,
    level_of,
    mean_interval_at,
    ratio_of_means,
)

DIRECTIONS = 64  # in θ
_ROUNDING = 1e-12  # of the gradient's root mean square: smaller changes are none
_MOST = 0.9  # of the gradient's summed norms, for the share of starts that carry it


def add_effects(
    rows: RowCollector,
    visited: Visited,
    path: Path,
    policy: nn.Module,
    discount: float,
    states: Sequence[str],
    actions: Sequence[str],
) -> None:
    """Quantities "effect" and "share" of section entry, and section gradient."""
    g, exact = _changes(visited, path, policy, discount)
    finite = np.isfinite(g).all((1, 2))
    if not finite.any():
        raise InputError(
            "states lead to no finite Jacobian and gradient: begin where the simulator stays finite"
        )
    n, group = int(finite.sum()), visited.group[finite]
    norms = np.sort(np.linalg.norm(g[finite, 0], axis=1))[::-1]
    carriers = np.searchsorted(np.cumsum(norms), _MOST * norms.sum()) + 1
    carry = number(float(carriers), np.nan, np.nan, n, "count")
    rows.add("gradient", "starts that carry 90%", carry)
    sums, size = group_sums(g[finite], group), group_sums(np.ones(n), group)
    effect, share = _against(sums, size, n, exact)
    labels = list(product([*states, "reward"], [*states, *actions]))
    at = At(output=[o for o, _ in labels], input=[i for _, i in labels])
    rows.add("entry", "effect", effect, at)
    rows.add("entry", "share", share, at)


def _changes(
    visited: Visited, path: Path, policy: nn.Module, discount: float
) -> tuple[Array, bool]:
    """[N, 1 + E, D]: each start's gradient along directions of θ and what each of E entries
    changes about it; are the directions all there are?"""
    H, n, ds = visited.states[1:].shape
    J, K, kept = visited.true.J.copy(), visited.K, visited.kept
    J[~kept] = np.eye(*J.shape[2:])
    J[..., ds, :][~kept] = 0.0
    output, entry = (index.ravel() for index in np.indices(J.shape[2:]))
    places = np.arange(len(output))
    size = sum(p.numel() for p in policy.parameters())
    exact = size <= DIRECTIONS
    if exact:
        directions = torch.eye(size, dtype=torch.float64)
    else:
        generator = stream(0, "directions")
        directions = torch.randn(DIRECTIONS, size, generator=generator, dtype=torch.float64)
    g, p = np.zeros((n, 1 + len(places), len(directions))), np.zeros((n, 1 + len(places), ds))
    with np.errstate(over="ignore", invalid="ignore"):
        wrong = visited.wrong[:, :, output, entry]
        for t in reversed(range(H)):
            worth = np.concatenate([discount * p, np.ones((*p.shape[:2], 1))], 2)
            pulled = worth @ J[t]
            pulled[:, 1 + places, entry] += worth[:, 1 + places, output] * wrong[t]
            signal = pulled[..., ds:]
            p = pulled[..., :ds] + signal @ K[t]
            moved = along(policy_jacobian(policy, path.states[t], path.policy_noise[t]), directions)
            g += discount**t * (signal @ moved.permute(1, 2, 0).numpy())
        g[:, 1:] -= g[:, :1]
    return g, exact


def _against(sums: Array, size: Array, n: int, exact: bool) -> tuple[Estimates, Estimates]:
    """Effects of E entries and their shares of the largest, from sums over groups [G, 1 + E, D],
    the first of which are the gradient's."""
    sums = sums / (np.abs(sums).max() or 1.0)  # squares must not overflow
    total, directions = sums.sum(0), sums.shape[2]
    own, left = (sums**2).sum(2).T, (sums * total).sum(2).T
    along_each = (total**2 - (sums**2).sum(0)) / (n**2 - (size**2).sum())
    squares = [pair_mean(PairSums(o, x, x), size) for o, x in zip(own, left, strict=True)]
    gradient, entries = squares[0], squares[1:]
    present = np.flatnonzero(own[1:].sum(1) > _ROUNDING**2 * own[0].sum())
    values = np.array([each.value for each in entries])
    top = max(present, key=lambda k: values[k], default=0)
    unit = gradient.value if gradient.value > 0 else float((total[0] ** 2).sum()) / n**2

    def drawn(combination: Array) -> float:
        """Half the interval that the random directions leave."""
        return 0.0 if exact else Z * float(combination.std()) * directions**0.5

    def widened(value: float, low: float, high: float, half: float) -> tuple[float, float]:
        return value - np.hypot(value - low, half), value + np.hypot(high - value, half)

    effect, share = (np.zeros((4, len(entries))) for _ in range(2))
    level = level_of(max(len(present) - 1, 1))
    for k in present:
        ratio = values[k] / unit
        found = ratio_of_means(entries[k], gradient)
        low, high = (0.0, np.inf) if found is None else (found.low, found.high)
        half = drawn(along_each[1 + k] - ratio * along_each[0]) / unit
        low, high = widened(ratio, low, high, half)
        ends = np.sqrt(np.maximum([ratio, low, high], 0.0))
        effect[:, k] = ends[0], (ends[2] - ends[1]) / (2 * Z), ends[1], ends[2]
        of_top = combine(lambda a, b: a / b, entries[k], entries[top])
        apart = mean_interval_at(of_top, level)
        half = drawn(along_each[1 + k] - of_top.value * along_each[1 + top]) / values[top]
        low, high = widened(of_top.value, apart.low, apart.high, half)
        if not (entries[top].left_out > 0).all():  # the largest may be none
            low, high = 0.0, np.inf
        share[:, k] = of_top.value, apart.se, low, high
        if k == top:
            share[:, k] = 1.0, 0.0, 1.0, 1.0

    def named(columns: Array, method: str) -> Estimates:
        value, se, low, high = columns
        return Estimates(value, se, low, high, np.full(len(entries), n), method)

    return named(effect, "Fieller, of squared norms"), named(share, "paired jackknife of squares")
