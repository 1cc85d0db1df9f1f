"""The true gradient, where there is one, and how far it can be trusted.

    first   E_d[J_θπᵀ ∂_a Q^π]    one forward sweep has every T
    all     ∇_θ E_d[V^π]          unrolled for longer; cuts are tried on a grid of ratio 0.8

The simulator's unrolled gradient is the truth where it converges (closed-loop chains slower than
1/γ, remainder under 1%), its relative standard error is under 1/4 and not made by 1% of the starts,
and it agrees with common-random-number differences (`agreement`). Else the objective is cut at the
longest T ≥ H where it does; where no T is precise the converged truth serves paired comparisons;
else there is none, and the reason is given.

The longest T at which a sample is precise is one at which it happens to look so: groups 0, 2, 4, …
choose T with a margin (`AIM`), groups 1, 3, 5, … say what norm and error are
there. A squared error is taken two of its own standard errors above (`Truncations.doubt`).

`early_truth`: θ in the first k actions, Σ_{t<k} γᵗ E[J_θπ(s_t)ᵀ ∂_a Q^π(s_t, a_t)], which is what a
gradient of k − 1 steps that ends in an exact critic expects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.findings import Decision, Finding
from gradlab.findings.checks import reason
from gradlab.gradients.policy_jacobian import PolicyJacobian, policy_jacobian
from gradlab.gradients.rollout import Trajectory
from gradlab.gradients.setting import Setting, Starts, grouping
from gradlab.progress import Progress, silent
from gradlab.systems.system import by_differences
from gradlab.truth.agreement import (
    AIM,
    ERRORS,
    PRECISION,
    SPREAD,
    EarlyTruth,
    Status,
    TrueGradient,
    Truncations,
    judge_every,
    judge_first,
    precision_of,
    sweep_precision,
)
from gradlab.truth.common_random import Differences, common_random_differences
from gradlab.truth.oracles import (
    AT_MOST,
    BLOCK,
    TOLERANCE,
    Unrolled,
    all_action_gradients,
    all_action_remainder,
    closed_loop_exponent,
    early_action_gradients,
    effective_horizon,
    joined,
    piece,
    unroll_first_action,
)

_FIRST = 16  # starts that go first where Jacobians are differenced
_MOST = 1_000_000  # starts that may be asked for
_LOST = 10.0  # standard errors over the norm, from which on that is lost
_FEWEST = 8  # groups that are split
_ABOVE = 2.0  # standard errors of the squared error


# Truncations as known by the half of the groups that chooses, and by the one that judges.
_Halves = tuple[Truncations, Truncations]


def halves_of_sweep(known: Truncations, jacobian: PolicyJacobian, starts: Starts) -> _Halves:
    """Of first-action gradients [T, N, da] of every truncation."""
    sweep = known.gradients

    def precision(rows: Tensor, few: Starts) -> Truncations:
        return sweep_precision(sweep[:, rows], jacobian.rows(rows), few)

    return _halves(known, starts, precision)


def halves_of_gradients(known: Truncations, starts: Starts) -> _Halves:
    """Of gradients [1, N, P] of one truncation."""
    G = known.gradients[0]
    return _halves(known, starts, lambda rows, few: precision_of(G[rows], few))


def _halves(
    known: Truncations, starts: Starts, precision: Callable[[Tensor, Starts], Truncations]
) -> _Halves:
    """How squares are spread is a matter of all starts: a half has too few."""
    label, size = grouping(starts)
    if len(size) < _FEWEST:
        return known, known
    parts = []
    for half in (0, 1):
        rows = (label % 2 == half).nonzero().flatten()
        few = Starts(starts.states[rows], starts.weight[rows], starts.group[rows])
        mine = precision(rows, few)
        # Taken at its upper end.
        error = mine.error / 2**0.5 * (1 + _ABOVE * mine.doubt).sqrt()
        parts.append(replace(known, norm=mine.norm, error=error, doubt=mine.doubt))
    return parts[0], parts[1]


_SHORTER = 0.8  # ratio of the truncations at which a gradient with all actions is tried


@dataclass(frozen=True)
class Truth:
    """The references of every bias, or why there are none.

    Attributes:
        status: "converged"; "cut" at a shorter horizon; "imprecise": converged, but a standard
            error is above 1/4 of its norm or not reliable, since 1% of the starts carry more than
            half of the squared gradients, so only paired comparisons are sharp; "score": the
            return jumps, and the truth is that of the score function; "jumps": it jumps, and there
            is none (both by `measurement.jumps`); "none".
        horizon: T, the number of simulator steps that the reference return sums.
        first, every: gradients with θ in the first action and in all actions, where asked for.
        lyapunov: largest closed-loop exponent per step over the starts.
        growth: λ per step of the closed loop, the mean over the starts (`closed_loop_exponent`);
            NaN where it converges, or θ is in the first action alone.
        remainder: bound on the norm of what the unrolling leaves out; NaN where it is cut.
        flagged: share of Jacobians that failed their certificate.
        boundary: norm of the boundary term of termination, which pathwise gradients miss, there
            also where it leaves no truth; boundary_se: its standard error. NaN where termination
            is ignored.
        finding: why it stands, is cut or does not exist.
        checked: was it compared with finite differences?
        path: the simulator's first H steps from the starts with its own Jacobians, where they were
            made for a gradient with all actions.
        refused: the pathwise gradient with θ in all actions of T steps that is no truth; of the
            starts that went first, where only they were unrolled.
    """

    status: Status
    horizon: int
    first: TrueGradient | None
    every: TrueGradient | None
    lyapunov: float
    remainder: float
    flagged: float
    boundary: float
    boundary_se: float
    finding: Finding
    checked: bool = True
    path: Trajectory | None = None
    refused: TrueGradient | None = None
    growth: float = float("nan")

    @property
    def reason(self) -> str:
        """The finding in words."""
        return reason(self.finding)

    @property
    def admissible(self) -> bool:
        return self.status not in ("none", "jumps")

    @property
    def pathwise(self) -> TrueGradient | None:
        """The unrolled gradient with θ in all actions, a truth or not."""
        return self.refused if self.refused is not None else self.every


def matched_truth(
    setting: Setting,
    *,
    kinds: Collection[str] = ("first",),
    check: bool = True,
    max_steps: int | None = None,
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
        max_steps: steps that are unrolled at most, at least H. None: 1000, or none where a few
            starts of a simulator that is differenced show that it makes no truth.

    Raises:
        InputError: fewer steps than the horizon.
    """
    at_most, n = AT_MOST if max_steps is None else max_steps, len(setting.starts.states)
    if validation.whole("max_steps", at_most, 1) < setting.horizon:
        raise InputError(f"max_steps is {max_steps}, expected at least the horizon, "
                         f"{setting.horizon}: raise it, or shorten the horizon")  # fmt: skip
    if max_steps is None and by_differences(setting.simulator) and n > _FIRST:
        ahead = _ahead(setting, kinds)
        if isinstance(ahead, Truth):
            return ahead
        at_most = ahead
    pieces: list[Trajectory] | None = [] if "all" in kinds else None
    unrolled = unroll_first_action(
        setting, at_least=setting.horizon, at_most=at_most, block=_block(at_most),
        progress=progress, keep=pieces,
    )  # fmt: skip
    check |= "all" in kinds or setting.termination == "mask" or not unrolled.converged
    reach = _reach(unrolled, setting.discount)
    sweep = None
    if "first" in kinds:
        differences = _differences(setting, reach, "first", progress) if check else None
        first = unrolled.gradients[:reach]
        sweep = judge_first(first, _jacobian(setting), setting.starts, differences)
    cut = _cut(setting, unrolled, sweep, pieces, at_most, progress)
    truth = _concluded(setting, unrolled, cut, check, at_most)
    if pieces is None:
        return truth
    if cut.status != "converged":
        steps = min(setting.horizon, unrolled.horizon)
        truth = replace(truth, growth=closed_loop_exponent(joined(pieces), steps))
    if not truth.admissible:
        return truth
    return replace(truth, path=joined(pieces).cut(setting.horizon))


def _block(at_most: int) -> int:
    """Steps between two looks at convergence: no more than there are."""
    return min(BLOCK, -(-at_most // -(-at_most // BLOCK)))


def _ahead(setting: Setting, kinds: Collection[str]) -> Truth | int:
    """How far all starts are unrolled, as a few show that go first; the missing truth where their
    chains outgrow the discount and not even H steps would be precise."""
    H, discount, n = max(setting.horizon, 1), setting.discount, len(setting.starts.states)
    few = setting.starts.block(slice(0, _FIRST))
    pieces: list[Trajectory] = []
    steps = max(BLOCK, H)
    unrolled = unroll_first_action(
        replace(setting, starts=few), at_most=steps, block=steps, keep=pieces
    )
    if not _outgrows(unrolled, discount):
        return AT_MOST
    linear, carrying = pieces[0], {"first": 1, "all": H}
    for kind in kinds:
        G = early_action_gradients(linear, setting.policy, carrying[kind], H, discount)
        relative = float(precision_of(G, few).relative) * (len(few.states) / n) ** 0.5
        if not relative < 2 * PRECISION:
            return _given_up(setting, kinds, unrolled, linear)
    return steps


def _outgrows(unrolled: Unrolled, discount: float) -> bool:
    """Do most chains clearly grow faster than 1/γ: the median by two standard errors, and by as
    much again as the discount itself shrinks?"""
    exponents = unrolled.lyapunov
    spread = float(exponents.std()) / len(exponents) ** 0.5
    return bool(float(exponents.median()) - 2 * spread > -2 * np.log(discount))


def _reach(unrolled: Unrolled, discount: float) -> int:
    """The longest truncation that can be a truth."""
    longest = max(int(torch.isfinite(unrolled.gradients).flatten(1).all(dim=1).sum()), 1)
    return longest if unrolled.converged else min(longest, effective_horizon(discount))


def _unjudged(setting: Setting, unrolled: Unrolled, horizon: int) -> Truth:
    """What unrolling alone knows: "converged", or to be "cut"."""
    nothing, n = float("nan"), len(unrolled.lyapunov)
    return Truth(
        status="converged" if unrolled.converged else "cut",
        horizon=horizon,
        first=None,
        every=None,
        lyapunov=float(unrolled.lyapunov.max()),
        remainder=unrolled.remainder,
        flagged=unrolled.flagged / (unrolled.horizon * n),
        boundary=nothing,
        boundary_se=nothing,
        finding=_diverges(unrolled, setting.discount, n),
        checked=False,
    )


def _cut(
    setting: Setting,
    unrolled: Unrolled,
    sweep: Truncations | None,
    pieces: list[Trajectory] | None,
    at_most: int,
    progress: Progress,
) -> Truth:
    """One T for both kinds of gradients, the longest that is admissible; "converged" where both do
    and nothing is cut."""
    reach = _reach(unrolled, setting.discount)
    begun = _unjudged(setting, unrolled, reach)
    if sweep is not None and pieces is None and sweep.at(reach).good:
        return replace(begun, first=sweep.at(reach))
    T, good, halves = reach, torch.ones(reach, dtype=torch.bool), None
    if sweep is not None:
        halves = halves_of_sweep(sweep, _jacobian(setting), setting.starts)
        good = halves[0].within(AIM)
        if not sweep.at(reach).good:  # what one half of the starts chooses, if the other agrees
            admissible = good.nonzero().flatten() + 1
            admissible = admissible[admissible >= max(setting.horizon, 1)]
            T = int(admissible[-1]) if len(admissible) else len(good)
            T = T if halves[1].at(T).good else len(sweep.gradients)
    whole = reach == T
    cut = replace(begun, horizon=T, status=begun.status if whole else "cut")
    if pieces is not None:
        linear = joined(pieces).cut(T)
        cut = _every(setting, cut, linear, good, not whole, at_most, progress)
    if sweep is None or halves is None:
        return cut
    if cut.horizon < reach:
        return replace(cut, first=halves[1].at(cut.horizon))
    return replace(cut, first=sweep.at(reach))


def _references(truth: Truth) -> list[TrueGradient]:
    return [reference for reference in (truth.first, truth.every) if reference is not None]


def _concluded(
    setting: Setting, unrolled: Unrolled, cut: Truth, checked: bool, at_most: int
) -> Truth:
    """The truth that the references make, or none."""
    n, references, whole = len(setting.starts.states), _references(cut), cut.status == "converged"
    status = _status(references, whole) if setting.horizon <= cut.horizon else "none"
    kept = status != "none"
    if status == "none":
        found = _obstacle(cut, unrolled, setting.discount, n)
    elif status == "imprecise":
        few = [each for each in references if each.carried_by_few]
        worst = max(
            few or references, key=lambda each: each.concentration if few else each.relative_se
        )
        found = imprecise(worst, n)
    elif status == "cut" and at_most < AT_MOST:
        found = Finding("truth_cut_by_steps", "pass", "", cut.horizon, threshold=at_most, n=n)
    else:
        code = f"truth_{status}" if checked else "truth_unchecked"
        found = Finding(code, "pass", "", cut.horizon, n=n)
    worst = max(references, key=lambda reference: reference.boundary)
    return replace(
        cut,
        status=status,
        first=cut.first if kept else None,
        every=cut.every if kept else None,
        refused=None if kept else cut.every,
        remainder=cut.remainder if whole else float("nan"),
        boundary=worst.boundary,
        boundary_se=worst.boundary_se,
        finding=found,
        checked=checked,
    )


def imprecise(reference: TrueGradient, n: int, decision: Decision = "undecided") -> Finding:
    """A standard error that is large, or not to be believed."""
    if reference.carried_by_few:
        share = reference.concentration
        return Finding("truth_few_carry", decision, "", share, threshold=SPREAD, n=n)
    error, more = reference.relative_se, reference.missing
    if error >= _LOST or more >= _MOST:  # beyond any budget
        return Finding("truth_in_noise", decision, n=n)
    return Finding("truth_imprecise", decision, "", error, threshold=PRECISION, n=n, more=more)


def _obstacle(cut: Truth, unrolled: Unrolled, discount: float, n: int) -> Finding:
    """Why there is no truth."""
    if unrolled.lost:
        return Finding("truth_lost", "fail", "", unrolled.lost, n=n, at=f"step {unrolled.lost_at}")
    if not unrolled.converged:
        return _diverges(unrolled, discount, n)
    worst = max(_references(cut), key=lambda reference: reference.discrepancy)
    if worst.boundary > ERRORS * worst.boundary_se:
        size, norm = worst.boundary, worst.norm
        return Finding("truth_misses_boundary", "fail", "", size, threshold=norm, n=n)
    if worst.discrepancy > 1.0:
        return Finding("truth_differs", "fail", "", worst.discrepancy, threshold=1.0, n=n)
    return Finding("truth_remainder", "fail", "", cut.horizon, n=n)


def _diverges(unrolled: Unrolled, discount: float, n: int) -> Finding:
    fastest, limit = float(unrolled.lyapunov.max()), -float(np.log(discount))
    return Finding("truth_diverges", "fail", "", fastest, threshold=limit, n=n)


def _given_up(
    setting: Setting, kinds: Collection[str], unrolled: Unrolled, linear: Trajectory
) -> Truth:
    """No truth, as the starts that went first show; their own gradient is kept."""
    truth = replace(_unjudged(setting, unrolled, unrolled.horizon), status="none")
    truth = replace(truth, remainder=float("nan"))
    if "all" not in kinds:
        return truth
    G = all_action_gradients(linear, setting.policy, unrolled.horizon, setting.discount)
    few = setting.starts.block(slice(0, len(G)))
    growth = closed_loop_exponent(linear, min(setting.horizon, unrolled.horizon))
    return replace(truth, refused=precision_of(G, few).at(1), growth=growth)


def _differences(setting: Setting, T: int, actions: str, progress: Progress) -> Differences:
    of_this_length = replace(setting, horizon=T)
    return common_random_differences(of_this_length, actions=actions, progress=progress)


def _jacobian(setting: Setting) -> PolicyJacobian:
    """Of the policy at the starts."""
    noise = setting.starts.policy_noise(setting.policy, setting.seed, 0)
    return policy_jacobian(setting.policy, setting.starts.states, noise)


def _every(
    setting: Setting,
    cut: Truth,
    linear: Trajectory,
    good: Tensor,
    chosen: bool,
    at_most: int,
    progress: Progress,
) -> Truth:
    """With the gradient of all actions at the longest T where it, and `good`, are admissible.

    Args:
        cut: where it converged nothing is cut, so go on until this one converges, too.
        linear: the simulator's path, where to begin with T.
        good: [reach], where the first-action gradient is admissible, if it is asked for.
        chosen: one half of the starts chose this T, so the other judges it.
    """
    T, policy, starts, discount = cut.horizon, setting.policy, setting.starts, setting.discount
    whole = cut.status == "converged"
    if whole:
        linear, G, remainder, whole = _until_converged(setting, linear, at_most)
        cut = replace(cut, remainder=max(cut.remainder, remainder))
    else:
        G = all_action_gradients(linear, policy, T, discount)
    longest = linear.path.horizon
    cut = replace(cut, horizon=longest, status="converged" if whole else "cut")
    differences = _differences(setting, longest, "all", progress)
    judged = judge_every(G, starts, differences.at(longest))
    best = (halves_of_gradients(judged, starts)[1] if chosen else judged).at(1)
    if best.good:
        return replace(cut, every=best)
    for t in _shorter(longest, setting.horizon):
        if not good[min(t, len(good)) - 1]:
            continue
        G = all_action_gradients(linear, policy, t, discount)
        judged = judge_every(G, starts, differences.at(t))
        choosing, judging = halves_of_gradients(judged, starts)
        if choosing.within(AIM):
            if judging.at(1).good:
                return replace(cut, horizon=t, status="cut", every=judging.at(1))
            break  # another t would be chosen by the half that judges
    return replace(cut, every=best)


def _until_converged(
    setting: Setting, linear: Trajectory, at_most: int
) -> tuple[Trajectory, Tensor, float, bool]:
    """A path so long that the gradient with all actions leaves out less than the tolerance, and
    that gradient [N, P]."""
    while True:
        T, discount = linear.path.horizon, setting.discount
        G, remainder = all_action_remainder(linear, setting.policy, T, discount)
        error = float((G.square().sum(dim=1).mean() / len(G)).sqrt())
        room = TOLERANCE * max(float(G.mean(dim=0).norm()), error)
        if not remainder > room or at_most <= T:
            return linear, G, remainder, remainder <= room
        missing = np.log(max(room, 1e-300) / remainder) / np.log(discount)
        steps = min(T + int(np.ceil(missing)) + 1, at_most) - T
        linear = joined([linear, piece(setting, steps, first=T, before=linear.path)])


def _shorter(T: int, horizon: int) -> Iterator[int]:
    """Truncations below T, down to the horizon."""
    least = max(horizon, 1)
    while least < T:
        T = max(int(_SHORTER * T), least)
        yield T


def _status(references: list[TrueGradient], whole: bool) -> Status:
    if any(reference.discrepancy > 1.0 for reference in references):
        return "none"
    if all(reference.precise for reference in references):
        return "converged" if whole else "cut"
    return "imprecise" if whole else "none"


def early_truth(setting: Setting, counts: Sequence[int], *, check: bool = True) -> EarlyTruth:
    """The truth for several numbers of actions that carry θ.

    A return that converges from the first action on is summed for as many steps after the last
    one; one that has to be cut is cut at the same T, never before the setting's horizon.

    Args:
        check: as in `matched_truth`.
    """
    most = max(counts)
    longest = replace(setting, horizon=max(setting.horizon, most))
    truth = matched_truth(longest, kinds=["first"], check=check)
    if not truth.admissible:
        return EarlyTruth(truth.status, 0, truth.finding, None)
    steps = truth.horizon + (0 if truth.status == "cut" else most - 1)
    linear = piece(setting, steps)

    def gradients(count: int) -> Tensor:
        return early_action_gradients(linear, setting.policy, count, steps, setting.discount)

    return EarlyTruth(truth.status, steps, truth.finding, gradients)
