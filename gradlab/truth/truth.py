"""Is there a true gradient here, and how far can it be believed?

The unrolled gradient of the simulator is the truth where it converges (every chain of closed-loop
Jacobians slower than 1/γ, remainder under 1%), where its relative standard error is under 1/4, and
where it agrees with common-random-number differences (`agreement`). Else the objective is cut at
the longest T ≥ H where it does (without convergence at most where γᵀ reaches 1%: beyond, only the
divergence is measured); where no T has the precision the converged truth is kept for paired
comparisons; else there is no truth, and the reason is given with the exponent.

    first   E_d[J_θπᵀ ∂_a Q^π]    one forward sweep has every T
    all     ∇_θ E_d[V^π]          its terms may fade as slowly as γᵗ however stable the loop is, so
                                  it is unrolled for longer; cuts are tried on a grid of ratio 0.8
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import LinearizedPath
from gradlab.gradients.setting import Setting
from gradlab.progress import Progress, silent
from gradlab.truth.agreement import ERRORS, PRECISION, Judged, Reference, judge_every, judge_first
from gradlab.truth.common_random import Differences, common_random_differences
from gradlab.truth.continued import joined, piece, shortened
from gradlab.truth.oracles import (
    AT_MOST,
    TOLERANCE,
    Unrolled,
    all_action_gradients,
    all_action_remainder,
    effective_horizon,
    unroll_first_action,
)
from gradlab.truth.scout import Plan, plan

Status = Literal["converged", "cut", "imprecise", "none"]
SHORTER = 0.8  # ratio of the truncations at which a gradient with all actions is tried


@dataclass(frozen=True)
class Truth:
    """The references of every bias, or the reason why there are none.

    Attributes:
        status: "converged"; "cut" at a shorter horizon; "imprecise": converged, but a standard
            error is above 1/4 of its norm, so only paired comparisons are sharp; "none".
        horizon: T, the number of simulator steps that the reference return sums.
        first, every: gradients with θ in the first action and in all actions, where asked for.
        lyapunov: largest closed-loop exponent per step over the starts.
        remainder: bound on the norm of what the unrolling leaves out; NaN where it is cut.
        flagged: share of Jacobians that failed their certificate.
        boundary: norm of the boundary term of termination, which pathwise gradients miss, told
            also where it leaves no truth; boundary_se: its standard error. NaN where termination
            is ignored.
        reason: one sentence.
        checked: was it compared with finite differences?
        path: the simulator's first H steps from the starts with its own Jacobians, where they were
            made for a gradient with all actions.
        scouts: starts that went first and showed that there is none (see `scout`), else 0.
    """

    status: Status
    horizon: int
    first: Reference | None
    every: Reference | None
    lyapunov: float
    remainder: float
    flagged: float
    boundary: float
    boundary_se: float
    reason: str
    checked: bool = True
    path: LinearizedPath | None = None
    scouts: int = 0

    @property
    def admissible(self) -> bool:
        return self.status != "none"


def matched_truth(
    setting: Setting,
    *,
    kinds: Collection[str] = ("first",),
    check: bool = True,
    progress: Progress = silent,
) -> Truth:
    """E_d[J_θπᵀ ∂_a Q^π] for kind "first" and ∇_θ E_d[V^π] for kind "all".

    Where both are asked for, one T cuts both. ∇_θ E_ζ[V^π] for the law ζ of the starts is also
    the objective's gradient, which `objective` compares every estimator with.

    Args:
        setting: whose H is the longest horizon to be judged; a cut truth is never shorter.
        check: False leaves out the comparison with finite differences, most of the price, where
            it can be: not for gradients of all actions, ends of episodes, or a truth that must be
            cut. For a simulator whose truth has been found to agree under a policy nearby.
    """
    horizon, discount = setting.horizon, setting.discount
    scouted = plan(setting, kinds)
    if scouted.unrolled is not None and not scouted.at_most:
        return _given_up(scouted, scouted.unrolled, discount)
    asked = _Question(setting, progress, scouted.at_most)
    pieces: list[LinearizedPath] | None = [] if "all" in kinds else None
    unrolled = unroll_first_action(
        setting, at_least=horizon, at_most=scouted.at_most, block=scouted.block,
        progress=progress, keep=pieces,
    )  # fmt: skip
    longest = max(int(torch.isfinite(unrolled.gradients).flatten(1).all(dim=1).sum()), 1)
    reach = longest if unrolled.converged else min(longest, effective_horizon(discount))
    check |= "all" in kinds or setting.termination == "mask" or not unrolled.converged
    sweep = _first(asked, unrolled.gradients[:reach], check) if "first" in kinds else None
    good = torch.ones(reach, dtype=torch.bool) if sweep is None else sweep.good
    T = _truncation(good, horizon)
    whole, every = unrolled.converged and reach == T, None
    remainder = unrolled.remainder
    if pieces is not None:
        every = _every(asked, shortened(joined(pieces), T), good, whole)
        T, whole, remainder = every.horizon, every.whole, max(remainder, every.remainder)
    first = None if sweep is None else sweep.at(min(T, reach))
    judged = (first, None if every is None else every.reference)
    found = [each for each in judged if each is not None]
    status = _status(found, whole) if horizon <= T else "none"
    kept = status != "none"
    worst = max(found, key=lambda each: each.boundary)
    flagged = unrolled.flagged / (unrolled.horizon * len(setting.starts.states))
    judgement = "agrees with" if check else "was not compared with"
    reason = _reason(status, T, unrolled, discount, found, judgement) + _beyond(status, T, sweep)
    reason += _untried(scouted) if not whole else ""
    return Truth(
        status=status,
        horizon=T,
        first=first if kept else None,
        every=every.reference if kept and every is not None else None,
        lyapunov=float(unrolled.lyapunov.max()),
        remainder=remainder if whole else float("nan"),
        flagged=flagged,
        boundary=worst.boundary,
        boundary_se=worst.boundary_se,
        reason=reason + (f"; {flagged:.2%} of its Jacobians are flagged" if flagged else ""),
        checked=check,
        path=None if pieces is None or not kept else shortened(joined(pieces), horizon),
    )


def _given_up(scouted: Plan, unrolled: Unrolled, discount: float) -> Truth:
    """No truth, as the starts that went first say."""
    exponents = _exponents(float(unrolled.lyapunov.max()), discount)
    nothing = float("nan")
    return Truth(
        status="none",
        horizon=unrolled.horizon,
        first=None,
        every=None,
        lyapunov=float(unrolled.lyapunov.max()),
        remainder=nothing,
        flagged=unrolled.flagged / (unrolled.horizon * scouted.scouts),
        boundary=nothing,
        boundary_se=nothing,
        reason=f"no truth here: {exponents} on {scouted.scouts} starts that were unrolled for "
        f"{unrolled.horizon} steps; {scouted.why}",
        checked=False,
        scouts=scouted.scouts,
    )


def _untried(scouted: Plan) -> str:
    """What was not tried, and its price."""
    if scouted.at_most >= AT_MOST:
        return ""
    return f"; more than {scouted.at_most} steps were not tried: they take {scouted.whole:.0f} s"


@dataclass(frozen=True)
class _Question:
    """Whose truth is asked for, and for how many steps at most."""

    setting: Setting
    progress: Progress
    at_most: int

    def differences(self, T: int, actions: str) -> Differences:
        of_this_length = replace(self.setting, horizon=T)
        return common_random_differences(of_this_length, actions=actions, progress=self.progress)

    def extended(self, linear: LinearizedPath, T: int) -> LinearizedPath:
        """The path, continued up to T steps."""
        H = linear.path.horizon
        more = piece(self.setting, T - H, first=H, before=linear.path)
        return joined([linear, more])


@dataclass(frozen=True)
class _Every:
    """The gradient with all actions at its T; `whole`: it converges and nothing is cut."""

    reference: Reference
    horizon: int
    whole: bool
    remainder: float


def _first(asked: _Question, sweep: Tensor, check: bool) -> Judged:
    """First-action gradients of every truncation, judged."""
    policy, starts = asked.setting.policy, asked.setting.starts
    jacobian = policy_jacobian(
        policy, starts.states, starts.policy_noise(policy, asked.setting.seed, 0)
    )
    differences = asked.differences(len(sweep), "first") if check else None
    return judge_first(sweep, jacobian, starts, differences)


def _truncation(good: Tensor, horizon: int) -> int:
    """The longest admissible T ≥ H, counted from 1; all of it where there is none."""
    found = good.nonzero().flatten() + 1
    found = found[found >= max(horizon, 1)]
    return int(found[-1]) if len(found) else len(good)


def _every(asked: _Question, linear: LinearizedPath, good: Tensor, whole: bool) -> _Every:
    """The gradient with all actions at the longest T where it, and `good`, are admissible.

    Args:
        linear: the simulator's path, where to begin with T.
        good: [reach], where the first-action gradient is admissible, if it is asked for.
        whole: nothing is cut there, so go on until this one converges too.
    """
    setting, remainder, T = asked.setting, float("nan"), linear.path.horizon
    policy, starts, discount = setting.policy, setting.starts, setting.discount
    if whole:
        linear, G, remainder, whole = _until_converged(asked, linear)
    else:
        G = all_action_gradients(linear, policy, T, discount)
    longest = linear.path.horizon
    differences = asked.differences(longest, "all")
    best = judge_every(G, starts, differences.at(longest)).at(1)
    if best.good:
        return _Every(best, longest, whole, remainder)
    for t in _shorter(longest, setting.horizon):
        if good[min(t, len(good)) - 1]:
            G = all_action_gradients(linear, policy, t, discount)
            found = judge_every(G, starts, differences.at(t)).at(1)
            if found.good:
                return _Every(found, t, False, float("nan"))
    return _Every(best, longest, whole, remainder)


def _until_converged(
    asked: _Question, linear: LinearizedPath
) -> tuple[LinearizedPath, Tensor, float, bool]:
    """A path so long that the gradient with all actions leaves out less than the tolerance, and
    that gradient [N, P]."""
    while True:
        T, discount = linear.path.horizon, asked.setting.discount
        G, remainder = all_action_remainder(linear, asked.setting.policy, T, discount)
        error = float((G.square().sum(dim=1).mean() / len(G)).sqrt())
        room = TOLERANCE * max(float(G.mean(dim=0).norm()), error)
        if not remainder > room or asked.at_most <= T:
            return linear, G, remainder, remainder <= room
        missing = np.log(max(room, 1e-300) / remainder) / np.log(discount)
        linear = asked.extended(linear, min(T + int(np.ceil(missing)) + 1, asked.at_most))


def _shorter(T: int, horizon: int) -> Iterator[int]:
    """Truncations below T, down to the horizon."""
    least = max(horizon, 1)
    while least < T:
        T = max(int(SHORTER * T), least)
        yield T


def _status(found: list[Reference], whole: bool) -> Status:
    if any(each.discrepancy > 1.0 for each in found):
        return "none"
    if all(each.relative_se < PRECISION for each in found):
        return "converged" if whole else "cut"
    return "imprecise" if whole else "none"


def _reason(
    status: Status,
    T: int,
    unrolled: Unrolled,
    discount: float,
    found: list[Reference],
    judgement: str,
) -> str:
    exponents = _exponents(float(unrolled.lyapunov.max()), discount)
    if status == "none":
        return f"no truth here: {_obstacle(unrolled, exponents, found, T)}"
    worst = max(found, key=lambda each: each.relative_se)
    if status == "converged":
        text = f"the simulator unrolled for {T} steps converges and {judgement} finite differences"
    elif status == "cut":
        text = (
            f"the objective is cut at T = {T} steps, the longest at which the unrolled gradient "
            f"is precise and agrees with finite differences ({exponents})"
        )
    else:
        more = f"about {worst.missing} more starts" if worst.missing > 0 else "more starts"
        size = "its norm is lost in it"
        if np.isfinite(worst.relative_se):
            size = f"it is {worst.relative_se:.2g} of its norm (wanted: {PRECISION:g})"
        text = (
            f"the truth has a large standard error, {size}: only paired comparisons are sharp; "
            f"{more} would do"
        )
    return text + _missed(max(found, key=lambda each: each.boundary))


def _exponents(lyapunov: float, discount: float) -> str:
    return f"λ = {lyapunov:.3g} per step against ln 1/γ = {-float(np.log(discount)):.3g}"


def _beyond(status: Status, T: int, sweep: Judged | None) -> str:
    """Where, and by how much, what was cut off leaves finite differences (at contacts, mostly)."""
    if status != "cut" or sweep is None:
        return ""
    off = (sweep.discrepancy[T:] > 1.0).nonzero().flatten()
    if not len(off):
        return ""
    steps = T + 1 + int(off[0])
    there = sweep.at(steps)
    return (
        f"; at {steps} steps it is {there.distance:.2g} ± {there.distance_se:.1g} away from them, "
        f"{there.discrepancy:.2g} times what is allowed, beside a norm of {there.norm:.2g}"
    )


def _missed(reference: Reference) -> str:
    """What is said of the boundary term beside a truth that stands."""
    if np.isnan(reference.boundary):
        return ""
    if reference.boundary_se == 0:
        return "; no episode's end moved with θ, so no boundary term of termination was seen"
    return f"; it misses {_boundary(reference)}"


def _boundary(reference: Reference) -> str:
    return (
        f"the boundary term of termination, {reference.boundary:.2g} ± "
        f"{reference.boundary_se:.2g} beside its norm of {reference.norm:.2g}"
    )


def _obstacle(unrolled: Unrolled, exponents: str, found: list[Reference], T: int) -> str:
    """Why there is no truth."""
    if unrolled.lost:
        return (
            f"the rollout or its Jacobians leave the finite numbers on "
            f"{unrolled.lost} starts, first at step {unrolled.lost_at} ({exponents})"
        )
    if not unrolled.converged:
        return f"{exponents}, the unrolled gradient does not converge"
    worst = max(found, key=lambda each: each.discrepancy)
    if worst.boundary > ERRORS * worst.boundary_se:
        return f"the unrolled gradient misses {_boundary(worst)}"
    if worst.discrepancy > 1.0:
        return (
            f"{exponents}, and the unrolled gradient differs from finite differences by "
            f"{worst.discrepancy:.2g} times what is allowed"
        )
    return f"{exponents}, but what is left out after {T} steps is not negligible"
