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

from dataclasses import dataclass
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
from gradlab.gradients.rollout import Starts, policy_noise_at
from gradlab.hooks import Progress, silent
from gradlab.systems.system import System

Status = Literal["converged", "cut", "imprecise", "none"]
PRECISION = 0.25  # largest relative standard error of an admissible truth
ERRORS = 3.0  # standard errors allowed between truth and differences
ROUNDING = 1e-6  # relative error of finite differences in float64


@dataclass(frozen=True)
class Truth:
    """The reference of every bias, or the reason why there is none.

    Attributes:
        status: "converged"; "cut" at a shorter horizon; "imprecise": converged, but its standard
            error is above 1/4 of its norm, so only paired comparisons are sharp; "none".
        horizon: T, the number of simulator steps that the reference return sums.
        first: first-action gradients per start, [N, da]; None where status is "none".
        all_actions: per-start gradients with θ in every action, [N, P], where asked for.
        norm: noise-corrected norm of the mean first-action gradient.
        standard_error: of that mean.
        relative_se: standard_error over the norm (inf where the norm is lost).
        lyapunov: largest closed-loop exponent per step over the starts.
        remainder: bound on what the unrolling leaves out, relative to the norm.
        discrepancy: largest |truth − differences| in units of what is allowed (admissible ≤ 1).
        missing: further starts that would bring relative_se to 1/4 (0: none; -1: unknown).
        flagged: share of Jacobians that failed their certificate.
        reason: one sentence.
    """

    status: Status
    horizon: int
    first: Tensor | None
    all_actions: Tensor | None
    norm: float
    standard_error: float
    relative_se: float
    lyapunov: float
    remainder: float
    discrepancy: float
    missing: int
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
    all_actions: bool = False,
    termination: str = "ignore",
    seed: int = 0,
    progress: Progress = silent,
) -> Truth:
    """E_d[J_θπᵀ ∂_a Q^π] for the first action and, where asked for, ∇_θ E_d[V^π].

    Args:
        horizon: H, the longest horizon to be judged; a cut truth is never shorter.
    """
    unrolled = unroll_first_action(
        simulator, policy, starts, discount,
        termination=termination, seed=seed, at_least=horizon, progress=progress,
    )  # fmt: skip
    noise = policy_noise_at(policy, len(starts.states), seed, 0, starts.states)
    jacobian = gram.policy_jacobian(policy, starts.states, noise)
    norms, errors = _precision(unrolled, jacobian, starts)
    relative = torch.where(norms > 0, errors / norms, torch.inf)
    usable = torch.isfinite(unrolled.gradients).flatten(1).all(dim=1)
    longest = int(usable.sum())
    differences = common_random_differences(
        simulator, policy, starts, max(longest, 1), discount,
        termination=termination, seed=seed, progress=progress,
    )  # fmt: skip
    gap = _discrepancy(unrolled.gradients[: max(longest, 1)], differences, jacobian, starts)
    reach = longest if unrolled.converged else min(longest, effective_horizon(discount))
    T, status = _decide(unrolled.converged, relative[:reach], gap[:reach], horizon)
    at = max(T, 1) - 1
    every = None
    if all_actions and status != "none":
        every = unroll_all_actions(
            simulator, policy, starts, T, discount, termination=termination, seed=seed
        )
    norm, relative_se, distance = float(norms[at]), float(relative[at]), float(gap[at])
    remainder = _remainder(unrolled, T, discount, jacobian, starts) / max(norm, 1e-300)
    missing = _missing(len(starts.states), norm, float(errors[at]))
    lyapunov = float(unrolled.lyapunov.max())
    return Truth(
        status=status,
        horizon=T,
        first=None if status == "none" else unrolled.gradients[at],
        all_actions=every,
        norm=norm,
        standard_error=float(errors[at]),
        relative_se=relative_se,
        lyapunov=lyapunov,
        remainder=remainder,
        discrepancy=distance,
        missing=missing,
        flagged=unrolled.flagged / (unrolled.horizon * len(starts.states)),
        reason=_reason(status, T, unrolled, discount, relative_se, distance, missing),
    )


def _decide(converged: bool, relative: Tensor, gap: Tensor, horizon: int) -> tuple[int, Status]:
    """The truncation and its status; horizons are counted from 1."""
    longest, agrees = len(relative), gap <= 1.0
    if converged and agrees[-1] and relative[-1] < PRECISION:
        return longest, "converged"
    good = (agrees & (relative < PRECISION)).nonzero().flatten() + 1
    good = good[good >= max(horizon, 1)]
    if len(good):
        return int(good[-1]), "cut"
    if converged and agrees[-1]:
        return longest, "imprecise"
    return longest, "none"


def _precision(
    unrolled: Unrolled, jacobian: gram.PolicyJacobian, starts: Starts
) -> tuple[Tensor, Tensor]:
    """Noise-corrected norm of the mean gradient and its standard error, for every T, [T] each."""
    g = unrolled.gradients * starts.weight[:, None]
    total, within = gram.products(jacobian, g, starts.group)
    n = len(starts.states)
    square = (g * total).sum(dim=(1, 2)) / n**2
    own = (g * within).sum(dim=(1, 2)) / n**2
    groups = len(np.unique(starts.group.numpy()))
    variance = (own - square / groups).clamp_min(0.0) * groups / max(groups - 1, 1)
    return (square - variance).clamp_min(0.0).sqrt(), variance.sqrt()


def _discrepancy(
    gradients: Tensor, differences: Differences, jacobian: gram.PolicyJacobian, starts: Starts
) -> Tensor:
    """Largest |v·truth − difference| over the directions in units of what is allowed, [T]."""
    count = differences.narrow.shape[2]
    slope = gram.along(jacobian, differences.directions)[:, :count]
    along = torch.einsum("dna,tna->tdn", slope, gradients[:, :count])
    gap = along - differences.narrow
    error = gap.std(dim=2) / count**0.5 if count > 1 else torch.zeros_like(gap[:, :, 0])
    truncation = (differences.narrow - differences.wide).mean(dim=2).abs() / 3
    rounding = ROUNDING * along.abs().mean(dim=2)
    allowed = ERRORS * error + truncation + rounding + 1e-300
    ratio = (gap.mean(dim=2).abs() / allowed).amax(dim=1)
    return torch.where(torch.isfinite(ratio), ratio, torch.inf)


def _remainder(
    unrolled: Unrolled, T: int, discount: float, jacobian: gram.PolicyJacobian, starts: Starts
) -> float:
    if unrolled.horizon > T or not unrolled.converged:
        return float("nan")
    ones = unrolled.remainder[None, :, None].expand(1, -1, jacobian.action_dim)
    return float(gram.squared_norms(jacobian, ones)[0].sqrt().mean())


def _missing(n: int, norm: float, error: float) -> int:
    if norm <= 0.0:
        return -1
    return max(0, int(np.ceil(n * ((error / (PRECISION * norm)) ** 2 - 1))))


def _reason(
    status: Status,
    T: int,
    unrolled: Unrolled,
    discount: float,
    relative_se: float,
    gap: float,
    missing: int,
) -> str:
    limit, lyapunov = -float(np.log(discount)), float(unrolled.lyapunov.max())
    if status == "converged":
        return f"the simulator unrolled for {T} steps converges and agrees with finite differences"
    if status == "cut":
        return (
            f"the objective is cut at T = {T} steps, the longest at which the unrolled gradient "
            f"is precise and agrees with finite differences (λ = {lyapunov:.3g} per step against "
            f"ln 1/γ = {limit:.3g})"
        )
    if status == "imprecise":
        more = f"about {missing} more starts would do" if missing > 0 else "more starts would do"
        return (
            f"the truth's standard error is {relative_se:.2g} of its norm (wanted: 0.25): only "
            f"paired comparisons are sharp; {more}"
        )
    if not unrolled.converged:
        return (
            f"no truth here: λ = {lyapunov:.3g} per step against ln 1/γ = {limit:.3g}, the "
            f"unrolled gradient does not converge"
        )
    return (
        f"no truth here: λ = {lyapunov:.3g}, and the unrolled gradient differs from finite "
        f"differences by {gap:.2g} times what is allowed"
    )
