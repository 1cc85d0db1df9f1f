"""Is there a true gradient here, and how far can it be believed?

The unrolled gradient of the simulator is the truth where it converges (every chain of closed-loop
Jacobians slower than 1/γ, remainder under 1%), where its relative standard error is under 1/4, and
where it agrees with common-random-number differences along 8 directions within 3 standard errors
plus |D_ε − D_2ε|/3 for their truncation. Else the objective is cut at the longest T ≥ H where it
does (without convergence at most where γᵀ reaches 1%: beyond, only the divergence is measured);
where no T has the precision the converged truth is kept for paired comparisons; else there is no
truth, and the reason is given with the exponent.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.gradients import gram
from gradlab.gradients.oracles import (
    Differences,
    Unrolled,
    common_random_differences,
    effective_horizon,
    unroll_all_actions,
    unroll_first_action,
)
from gradlab.gradients.policy_jacobian import PolicyJacobian, policy_jacobian
from gradlab.gradients.starts import Starts
from gradlab.hooks import Progress, silent
from gradlab.systems.system import System

Status = Literal["converged", "cut", "imprecise", "none"]
PRECISION = 0.25  # largest relative standard error of an admissible truth
ERRORS = 3.0  # standard errors allowed between truth and differences
ROUNDING = 1e-6  # relative error of finite differences in float64


@dataclass(frozen=True)
class Reference:
    """One kind of true gradient.

    Attributes:
        gradients: per start; in the action [N, da] for "first", in θ [N, P] for "all".
        norm: noise-corrected norm of the mean; standard_error: of that mean.
        relative_se: standard_error over the norm (inf where the norm is lost in noise).
        discrepancy: largest |truth − differences| in units of what is allowed (agrees: ≤ 1).
        missing: further starts that would bring relative_se to 1/4 (0: none; −1: unknown).
    """

    gradients: Tensor
    norm: float
    standard_error: float
    relative_se: float
    discrepancy: float
    missing: int


@dataclass(frozen=True)
class Truth:
    """The references of every bias, or the reason why there are none.

    Attributes:
        status: "converged"; "cut" at a shorter horizon; "imprecise": converged, but a standard
            error is above 1/4 of its norm, so only paired comparisons are sharp; "none".
        horizon: T, the number of simulator steps that the reference return sums.
        first, every: gradients with θ in the first action and in all actions, where asked for.
        lyapunov: largest closed-loop exponent per step over the starts.
        remainder: bound on what the unrolling leaves out (of the first-action gradient).
        flagged: share of Jacobians that failed their certificate.
        reason: one sentence.
    """

    status: Status
    horizon: int
    first: Reference | None
    every: Reference | None
    lyapunov: float
    remainder: float
    flagged: float
    reason: str

    @property
    def admissible(self) -> bool:
        return self.status != "none"


def matched_truth(
    simulator: System,
    policy: nn.Module,
    starts: Starts,
    discount: float,
    horizon: int,
    *,
    kinds: Collection[str] = ("first",),
    termination: str = "ignore",
    seed: int = 0,
    progress: Progress = silent,
) -> Truth:
    """E_d[J_θπᵀ ∂_a Q^π] for kind "first" and ∇_θ E_d[V^π] for kind "all".

    T is chosen on the first-action gradient; the other kind is then judged at the same T.

    Args:
        horizon: H, the longest horizon to be judged; a cut truth is never shorter.
    """
    unrolled = unroll_first_action(
        simulator, policy, starts, discount,
        termination=termination, seed=seed, at_least=horizon, progress=progress,
    )  # fmt: skip
    noise = starts.policy_noise(policy, seed, 0)
    jacobian = policy_jacobian(policy, starts.states, noise)
    longest = max(int(torch.isfinite(unrolled.gradients).flatten(1).all(dim=1).sum()), 1)
    sweep = unrolled.gradients[:longest]
    norms, errors = _precision(sweep, jacobian, starts)
    compare = partial(
        common_random_differences, simulator, policy, starts,
        discount=discount, termination=termination, seed=seed, progress=progress,
    )  # fmt: skip
    differences = compare(horizon=longest)
    slope = gram.along(jacobian, differences.directions)
    along = torch.einsum("dna,tna->tdn", slope, sweep)
    gap = _discrepancy(along, differences)
    reach = longest if unrolled.converged else min(longest, effective_horizon(discount))
    relative = torch.where(norms > 0, errors / norms, torch.inf)
    T = _truncation(unrolled.converged, relative[:reach], gap[:reach], horizon)
    at = T - 1
    found = {"first": _reference(sweep[at], norms[at], errors[at], gap[at])}
    if "all" in kinds:
        G = unroll_all_actions(
            simulator, policy, starts, T, discount, termination=termination, seed=seed
        )
        differences = compare(horizon=T, actions="all")
        found["all"] = _explicit_reference(G, differences, starts)
    asked = [found[kind] for kind in found if kind in kinds]
    cut = unrolled.horizon > T or not unrolled.converged
    status = _status(asked, unrolled.converged, cut, long_enough=horizon <= T <= reach)
    keep = {kind: found[kind] for kind in kinds if status != "none"}
    return Truth(
        status=status,
        horizon=T,
        first=keep.get("first"),
        every=keep.get("all"),
        lyapunov=float(unrolled.lyapunov.max()),
        remainder=float("nan") if cut else unrolled.remainder,
        flagged=unrolled.flagged / (unrolled.horizon * len(starts.states)),
        reason=_reason(status, T, unrolled, discount, asked),
    )


def _truncation(converged: bool, relative: Tensor, gap: Tensor, horizon: int) -> int:
    """T, counted from 1: all of it where that is admissible, else the longest cut that is."""
    longest, agrees = len(relative), gap <= 1.0
    if converged and agrees[-1] and relative[-1] < PRECISION:
        return longest
    good = (agrees & (relative < PRECISION)).nonzero().flatten() + 1
    good = good[good >= max(horizon, 1)]
    return int(good[-1]) if len(good) else longest


def _status(asked: list[Reference], converged: bool, cut: bool, long_enough: bool) -> Status:
    if not long_enough or any(each.discrepancy > 1.0 for each in asked):
        return "none"
    if all(each.relative_se < PRECISION for each in asked):
        return "cut" if cut else "converged"
    return "imprecise" if converged else "none"


def _reference(gradients: Tensor, norm: Tensor, error: Tensor, gap: Tensor) -> Reference:
    n, size = len(gradients), float(norm)
    relative = float(error) / size if size > 0 else float("inf")
    missing = max(0, int(np.ceil(n * ((relative / PRECISION) ** 2 - 1)))) if size > 0 else -1
    return Reference(gradients, size, float(error), relative, float(gap), missing)


def _explicit_reference(G: Tensor, differences: Differences, starts: Starts) -> Reference:
    """The reference of explicit per-start gradients [N, P], weights included."""
    along = (G @ differences.directions.T).T[None]
    weight = starts.weight[: differences.narrow.shape[2]]
    last = replace(
        differences, narrow=differences.narrow[-1:] * weight, wide=differences.wide[-1:] * weight
    )
    gap = _discrepancy(along, last)
    labels, inverse = np.unique(starts.group.numpy(), return_inverse=True)
    sums = G.new_zeros(len(labels), G.shape[1]).index_add_(0, torch.from_numpy(inverse), G)
    norm, error = _norm_and_error(
        sums.sum(dim=0).square().sum(), sums.square().sum(), len(G), len(labels)
    )
    return _reference(G, norm, error, gap[0])


def _precision(
    gradients: Tensor, jacobian: PolicyJacobian, starts: Starts
) -> tuple[Tensor, Tensor]:
    """Noise-corrected norm of the mean gradient and its standard error, for every T, [T] each."""
    g = gradients * starts.weight[:, None]
    total, within = gram.products(jacobian, g, starts.group)
    whole, own = (g * total).sum(dim=(1, 2)), (g * within).sum(dim=(1, 2))
    return _norm_and_error(whole, own, len(starts.states), len(np.unique(starts.group.numpy())))


def _norm_and_error(whole: Tensor, own: Tensor, n: int, groups: int) -> tuple[Tensor, Tensor]:
    """From |Σ G|² and Σ_groups |Σ_group G|²."""
    square = whole / n**2
    variance = (own / n**2 - square / groups).clamp_min(0.0) * groups / max(groups - 1, 1)
    return (square - variance).clamp_min(0.0).sqrt(), variance.sqrt()


def _discrepancy(along: Tensor, differences: Differences) -> Tensor:
    """Largest |v·truth − difference| over the directions in units of what is allowed, [T].

    Args:
        along: v·truth of each start, [T, directions, N].
    """
    count = differences.narrow.shape[2]
    along = along[:, :, :count]
    gap = along - differences.narrow
    error = gap.std(dim=2) / count**0.5 if count > 1 else torch.zeros_like(gap[:, :, 0])
    truncation = (differences.narrow - differences.wide).mean(dim=2).abs() / 3
    rounding = ROUNDING * along.abs().mean(dim=2)
    allowed = ERRORS * error + truncation + rounding + 1e-300
    ratio = (gap.mean(dim=2).abs() / allowed).amax(dim=1)
    return torch.where(torch.isfinite(ratio), ratio, torch.inf)


def _reason(
    status: Status, T: int, unrolled: Unrolled, discount: float, asked: list[Reference]
) -> str:
    limit, lyapunov = -float(np.log(discount)), float(unrolled.lyapunov.max())
    exponents = f"λ = {lyapunov:.3g} per step against ln 1/γ = {limit:.3g}"
    worst = max(asked, key=lambda each: each.relative_se)
    if status == "converged":
        return f"the simulator unrolled for {T} steps converges and agrees with finite differences"
    if status == "cut":
        return (
            f"the objective is cut at T = {T} steps, the longest at which the unrolled gradient "
            f"is precise and agrees with finite differences ({exponents})"
        )
    if status == "imprecise":
        more = f"about {worst.missing} more starts" if worst.missing > 0 else "more starts"
        size = "its norm is lost in it"
        if np.isfinite(worst.relative_se):
            size = f"it is {worst.relative_se:.2g} of its norm (wanted: {PRECISION:g})"
        return (
            f"the truth has a large standard error, {size}: only paired comparisons are sharp; "
            f"{more} would do"
        )
    if unrolled.lost:
        return (
            f"no truth here: the rollout or its Jacobians leave the finite numbers on "
            f"{unrolled.lost} starts, first at step {unrolled.lost_at}"
        )
    if not unrolled.converged:
        return f"no truth here: {exponents}, the unrolled gradient does not converge"
    gap = max(each.discrepancy for each in asked)
    return (
        f"no truth here: λ = {lyapunov:.3g}, and the unrolled gradient differs from finite "
        f"differences by {gap:.2g} times what is allowed"
    )
