"""Precision of a gradient: its standard error, and its distance to finite differences.

A gradient agrees where, along every direction v, |v·(mean gradient) − D_ε(v)| is within 3 standard
errors of that paired difference plus |D_ε − D_2ε|/3; and where the boundary term that it misses, if
episodes end, is within 3 of its own standard errors plus 1% of the gradient's size.

A standard error is believed unless 1% of the starts carry more than half of Σ |G_i|² (Gaussian
starts of linear-quadratic problems: 13 to 25%, `reports/coverage`). Distances in θ come from the
directions: E(v·Δ)² = |Δ|²/P, known to within a factor of about 1.5 from 8 of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gradlab.findings import Finding
from gradlab.gradients.policy_jacobian import PolicyJacobian
from gradlab.gradients.setting import Starts, group_sums, grouping
from gradlab.truth.common_random import Differences, mean_and_error

Status = Literal["converged", "cut", "imprecise", "score", "jumps", "none"]
PRECISION = 0.25  # largest relative standard error of an admissible truth
SPREAD = 0.5  # largest share of Σ |G_i|² that 1% of an admissible truth's starts may carry
_FEWEST = 50  # groups of starts from which on the largest one says something of 1%
AIM = 0.18  # what the starts asked for would have: below it, since relative_se is an estimate
ERRORS = 3.0  # standard errors allowed between truth and differences
_ENTRIES = 1 << 24  # of mean gradients held at once
_ROUNDING = 1e-6  # relative error of finite differences in float64
_NEGLIGIBLE = 0.01  # share of the gradient that a boundary term may have


@dataclass(frozen=True)
class TrueGradient:
    """One kind of true gradient.

    Attributes:
        gradients: per start; in the action [N, da] for "first", in θ [N, P] for "all".
        norm: noise-corrected norm of the mean; standard_error: of that mean.
        relative_se: standard_error over the norm (inf where the norm is not distinguishable
            from zero).
        discrepancy: largest |truth − differences| in units of what is allowed (agrees: ≤ 1).
        distance: |truth − differences| in θ, noise-corrected; distance_se: its standard error.
        boundary: norm of the boundary term of termination, which the truth misses, noise-corrected;
            boundary_se: its standard error. NaN where termination is ignored.
        missing: further starts that would bring relative_se below 1/4 (0: none; −1: unknown).
        concentration: share of Σ |G|² over the groups that the largest 1% of them carry; NaN with
            fewer than 50.
    """

    gradients: Tensor
    norm: float
    standard_error: float
    relative_se: float
    discrepancy: float
    distance: float
    distance_se: float
    boundary: float
    boundary_se: float
    missing: int
    concentration: float

    @property
    def carried_by_few(self) -> bool:
        return self.concentration > SPREAD

    @property
    def precise(self) -> bool:
        """A small standard error, and one that is believed."""
        return self.relative_se < PRECISION and not self.carried_by_few

    @property
    def good(self) -> bool:
        """Precise, and in agreement with finite differences."""
        return self.precise and self.discrepancy <= 1.0


@dataclass(frozen=True, eq=False)
class EarlyTruth:
    """True gradients with θ in the first actions of a path.

    Attributes:
        status: of the truth with θ in the first action, by which this one stands or falls: as of
            `truth.Truth`, or "score", "imprecise", and "none" where a path left the finite numbers.
        horizon: T, the steps that the return sums; 0 where there is no truth.
        finding: why.
        of: number of actions → gradients; None without a truth.
    """

    status: Status
    horizon: int
    finding: Finding
    of: Callable[[int], Tensor] | None

    def gradients(self, count: int) -> Tensor | None:
        """Of every start with θ in the first `count` actions, [N, P]; None without a truth."""
        return None if self.of is None else self.of(count)


@dataclass(frozen=True)
class Truncations:
    """Gradients for every truncation T = 1 … and what is known of the mean of each, [T] each: see
    `TrueGradient`.

    `doubt` is the relative standard error of error², that of the mean of G squares q = |G_i|²:
    √(Σ q² / (Σ q)² − 1/G). Without differences nothing is known against them: `discrepancy` is 0
    and distances are NaN.
    """

    gradients: Tensor
    norm: Tensor
    error: Tensor
    concentration: Tensor
    doubt: Tensor
    discrepancy: Tensor
    distance: tuple[Tensor, Tensor]
    boundary: tuple[Tensor, Tensor]

    @property
    def relative(self) -> Tensor:
        """Standard errors over the norms; infinite where nothing is left of a norm."""
        return torch.where(self.norm > 0, self.error / self.norm, torch.inf)

    def within(self, relative_se: float) -> Tensor:
        """[T], as precise as that, not made by few starts, and differences agree."""
        precise = (self.relative < relative_se) & ~(self.concentration > SPREAD)
        return precise & (self.discrepancy <= 1.0)

    def at(self, T: int) -> TrueGradient:
        """The reference at truncation T."""
        n = self.gradients.shape[1]
        norm, error, relative, concentration, discrepancy, distance, spread, edge, rest = (
            float(numbers[T - 1])
            for numbers in (
                self.norm, self.error, self.relative, self.concentration, self.discrepancy,
                *self.distance, *self.boundary,
            )
        )  # fmt: skip
        missing = -1 if not np.isfinite(relative) else 0
        if PRECISION <= relative < np.inf:
            missing = int(np.ceil(n * ((relative / AIM) ** 2 - 1)))
        return TrueGradient(
            self.gradients[T - 1], norm, error, relative, discrepancy, distance, spread, edge, rest,
            missing, concentration,
        )  # fmt: skip


def judge_first(
    sweep: Tensor, jacobian: PolicyJacobian, starts: Starts, differences: Differences | None
) -> Truncations:
    """Action gradients [T, N, da] of every truncation, weights not included."""
    known = sweep_precision(sweep, jacobian, starts)
    if differences is None:
        return known
    slope, weighted = jacobian @ differences.directions, sweep * starts.weight[:, None]
    along = torch.einsum("dna,tna->tdn", slope, weighted)
    return _compared(known, along, differences, starts)


def sweep_precision(sweep: Tensor, jacobian: PolicyJacobian, starts: Starts) -> Truncations:
    """Of the mean of J_iᵀ g_i for action gradients [T, N, da], weights not included."""
    weighted = sweep * starts.weight[:, None]
    blocks = torch.split(weighted, max(1, _ENTRIES // jacobian.size))
    whole = torch.cat([(jacobian.T @ part).square().sum(dim=1) for part in blocks])
    label, size = grouping(starts)
    if len(size) == len(label):
        squares = jacobian.squared_norms(weighted[:, None])
    else:  # the samples of a group as steps of one path
        members = [(label == g).nonzero()[:, 0] for g in range(len(size))]
        squares = torch.cat(
            [jacobian.rows(m).squared_norms(weighted[:, m, None]) for m in members], dim=1
        )
    return precision_from(sweep, whole, squares)


def judge_every(G: Tensor, starts: Starts, differences: Differences) -> Truncations:
    """Gradients [N, P] of one truncation, weights included, and the differences at it."""
    along = (G @ differences.directions.T).T[None]
    return _compared(precision_of(G, starts), along, differences, starts)


def precision_of(G: Tensor, starts: Starts) -> Truncations:
    """Of the mean of gradients [N, P], as of one truncation."""
    sums = group_sums(G, grouping(starts)[0])
    whole, squares = sums.sum(dim=0).square().sum(), sums.square().sum(dim=1)
    return precision_from(G[None], whole[None], squares[None])


def precision_from(gradients: Tensor, whole: Tensor, squares: Tensor) -> Truncations:
    """From |Σ G|² [T] and |Σ_group G|² of each group [T, G]."""
    n, groups = gradients.shape[1], squares.shape[1]
    square, sums = whole / n**2, squares.sum(dim=1)
    variance = (sums / n**2 - square / groups).clamp_min(0.0) * groups / max(groups - 1, 1)
    concentration = torch.full_like(sums, torch.nan)
    if groups >= _FEWEST:
        concentration = squares.topk(max(groups // 100, 1), dim=1).values.sum(dim=1) / sums
    doubt = (squares.square().sum(dim=1) / sums**2 - 1 / groups).clamp_min(0.0).sqrt()
    norm = (square - variance).clamp_min(0.0).sqrt()
    unknown = torch.full_like(norm, torch.nan), torch.full_like(norm, torch.nan)
    known = norm, variance.sqrt(), concentration, doubt
    return Truncations(gradients, *known, torch.zeros_like(norm), unknown, unknown)


def _compared(
    known: Truncations, along: Tensor, differences: Differences, starts: Starts
) -> Truncations:
    """With discrepancy, distance and boundary term of every truncation.

    Args:
        along: v·truth of each start, [T, directions, N].
    """
    count = differences.narrow.shape[2]
    few, group = along[:, :, :count], starts.group[:count]
    gap, error = mean_and_error(few - differences.narrow, group)
    truncation = (differences.narrow - differences.wide).mean(dim=2).abs() / 3
    rounding = _ROUNDING * few.abs().mean(dim=2) + 1e-300
    ratio = (gap.abs() / (ERRORS * error + truncation + rounding)).amax(dim=1)
    P = int((differences.directions != 0).any(dim=0).sum())
    boundary = known.boundary
    if differences.boundary is not None:
        flux, spread = mean_and_error(
            differences.boundary, starts.group[: differences.boundary.shape[2]]
        )
        size = _NEGLIGIBLE * along.mean(dim=2).square().mean(dim=1, keepdim=True).sqrt()
        ratio = torch.maximum(ratio, (flux.abs() / (ERRORS * spread + size + rounding)).amax(dim=1))
        boundary = _size(flux, spread, P)
    ratio = torch.where(torch.isfinite(ratio), ratio, torch.inf)
    return replace(known, discrepancy=ratio, distance=_size(gap, error, P), boundary=boundary)


def _size(slopes: Tensor, errors: Tensor, P: int) -> tuple[Tensor, Tensor]:
    """|Δ| and its standard error from v·Δ along random unit directions, [T, directions]."""
    noise = errors.square().mean(dim=1)
    square = slopes.square().mean(dim=1) - noise
    return (P * square.clamp_min(0.0)).sqrt(), (P * noise).sqrt()
