"""Whether a truth can be had: its length, planned from a few starts and steps, and why it stands.

Where unrolling all starts would take longer than `PATIENCE`, some go first for some steps, and say

    how fast closed-loop chains grow      clearly faster than 1/γ: only a shorter objective can do
    where N starts would be precise       se_n √(n/N) / |g|, for every T that a cut may have

Without a T ≥ H that may do, there is no truth; else all are unrolled as far as patience goes.
Prices are operation counts (`linearization_price`), so results depend on no clock.

Why a truth stands, is cut or does not exist: one sentence from what it was judged by.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor

from gradlab.gradients import gram
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import LinearizedPath
from gradlab.gradients.setting import Setting, Starts
from gradlab.systems.system import System
from gradlab.truth.agreement import ERRORS, PRECISION, SPREAD, Judged, TrueGradient, precision_of
from gradlab.truth.oracles import (
    AT_MOST,
    BLOCK,
    Unrolled,
    all_action_gradients,
    effective_horizon,
    joined,
    unroll_first_action,
)

PATIENCE = 40.0  # seconds of one core for a truth
SCOUTING = 10.0  # and for those that go first
FEWEST, MOST = 8, 16  # scouts
_DIFFERENCES = 2048  # rows that common-random differences step beside the starts
_HOPELESS = 2 * PRECISION  # relative standard error expected of all starts, beyond which none try
_GRID = 0.8  # ratio of the truncations at which precision is tried


@dataclass(frozen=True)
class Plan:
    """How many steps all starts are unrolled for.

    Attributes:
        at_most: steps; 0: not at all.
        scouts: starts that went first, 0 where none had to; their `unrolled` gradients.
        whole: seconds of one core that the rule's own length would take.
        why: what stands in the way of all of it, "" where nothing does.
        path: of the scouts, where they leave no truth.
    """

    at_most: int
    scouts: int = 0
    unrolled: Unrolled | None = None
    whole: float = 0.0
    why: str = ""
    path: LinearizedPath | None = None

    @property
    def block(self) -> int:
        """Steps between two looks: no more than there are."""
        return min(BLOCK, -(-self.at_most // -(-self.at_most // BLOCK)))


def linearization_price(system: System) -> float:
    """Seconds of one core for the Jacobians at one state; 0 where nobody counts them."""
    price: float = getattr(system, "linearization_price", 0.0)
    return price


def plan(setting: Setting, kinds: Collection[str]) -> Plan:
    """As far as the rule goes where patience allows it, else as far as scouts and patience do."""
    simulator, discount = setting.simulator, setting.discount
    n, H = len(setting.starts.states), max(setting.horizon, 1)
    price = linearization_price(simulator)
    stencil = 2 * (simulator.state_dim + simulator.action_dim + 1)
    per_step = price * (n + _DIFFERENCES / stencil)
    whole = per_step * min(2 * effective_horizon(discount), AT_MOST)
    if whole <= PATIENCE:
        return Plan(AT_MOST)
    count = min(max(int(SCOUTING / (price * BLOCK)), FEWEST), MOST, n)
    steps = max(min(int(SCOUTING / (price * count)), BLOCK), H)
    few = replace(setting, starts=setting.starts.block(slice(0, count)))
    pieces: list[LinearizedPath] = []
    unrolled = unroll_first_action(few, at_most=steps, block=steps, keep=pieces)
    affordable = min(int(PATIENCE / per_step), AT_MOST)
    if affordable < H:
        why = f"unrolling {n} starts for {H} steps takes {per_step * H:.0f} s of a core"
        return Plan(0, count, unrolled, whole, why, joined(pieces))
    if not _outgrows(unrolled, discount):
        return Plan(affordable, count, unrolled, whole, "its price")
    reach = _precise(pieces, unrolled, few, kinds, n)
    if not reach:
        why = f"no T from {H} to {unrolled.horizon} would be precise with {n} starts"
        return Plan(0, count, unrolled, whole, why, joined(pieces))
    reach = affordable if reach == unrolled.horizon else int(np.ceil(reach / _GRID))
    return Plan(min(reach, affordable), count, unrolled, whole, "its growth and its price")


def _outgrows(unrolled: Unrolled, discount: float) -> bool:
    """Do most chains clearly grow faster than 1/γ: the median by two standard errors, and by as
    much again as the discount itself shrinks?"""
    exponents = unrolled.lyapunov
    spread = float(exponents.std()) / len(exponents) ** 0.5 if len(exponents) > 1 else 0.0
    return float(exponents.median()) - 2 * spread > -2 * float(np.log(discount))


def _precise(
    pieces: list[LinearizedPath],
    unrolled: Unrolled,
    scouting: Setting,
    kinds: Collection[str],
    n: int,
) -> int:
    """The longest tried T ≥ H at which n starts would be precise, 0 where there is none."""
    policy, few, H = scouting.policy, scouting.starts, max(scouting.horizon, 1)
    linear, T = joined(pieces), unrolled.horizon
    noise = few.policy_noise(policy, scouting.seed, 0)
    jacobian, weight = policy_jacobian(policy, few.states, noise), few.weight[:, None]
    while T >= H:
        precise = []
        if "all" in kinds:
            precise.append(all_action_gradients(linear, policy, T, scouting.discount))
        if "first" in kinds:
            g = unrolled.gradients[T - 1] * weight
            precise.append(gram.path_gradients(jacobian, g[None]))
        if max(_relative(G, few) for G in precise) * (len(few.states) / n) ** 0.5 < _HOPELESS:
            return T
        T = H - 1 if T == H else max(int(_GRID * T), H)
    return 0


def _relative(G: Tensor, few: Starts) -> float:
    """Standard error of the mean gradient over its norm; infinite where nothing is known of it."""
    precision = precision_of(G, few)
    norm, error = float(precision.norm), float(precision.error)
    return error / norm if norm > 0 and np.isfinite(error) else float("inf")


Status = Literal["converged", "cut", "imprecise", "score", "jumps", "none"]
_MOST = 1_000_000  # starts that may be asked for


@dataclass(frozen=True)
class TruthOutcome:
    """What a truth was judged by.

    Attributes:
        horizon: T; whole: nothing is cut there.
        references: of every kind of gradient, at T; sweep: first-action ones of every truncation.
        scouted: what was planned; unrolled: what came of it.
        checked: were they compared with finite differences?
        starts: that were unrolled.
        growth: λ per step, the starts' mean over the first `window` steps; NaN: nobody asked.
    """

    horizon: int
    whole: bool
    references: list[TrueGradient]
    sweep: Judged | None
    scouted: Plan
    unrolled: Unrolled
    discount: float
    checked: bool
    starts: int
    growth: float = float("nan")
    window: int = 0

    @property
    def exponents(self) -> str:
        return _exponents(self.unrolled, self.discount, self.growth, self.window)

    @property
    def flagged(self) -> float:
        """Share of Jacobians that failed their certificate."""
        return self.unrolled.flagged / (self.unrolled.horizon * self.starts)


def reason(status: Status, outcome: TruthOutcome) -> str:
    """One sentence, with the boundary term and what was not tried."""
    if status == "none":
        text = f"no truth here: {_obstacle(outcome)}"
    else:
        worst = max(outcome.references, key=lambda reference: reference.boundary)
        text = _standing(status, outcome) + _missed(worst)
    text += _beyond(status, outcome.horizon, outcome.sweep)
    scouted = outcome.scouted
    if not outcome.whole and scouted.at_most < AT_MOST:
        text += (
            f"; more than {scouted.at_most:,} steps were not tried: they take {scouted.whole:.0f} s"
        )
    share = outcome.flagged
    return text + (f"; {share:.2%} of its Jacobians are flagged" if share else "")


def given_up(scouted: Plan, unrolled: Unrolled, discount: float, growth: float, window: int) -> str:
    """Why there is no truth, as the starts that went first show."""
    growing = _exponents(unrolled, discount, growth, window)
    return (
        f"no truth here: {growing} on {scouted.scouts:,} starts that were "
        f"unrolled for {unrolled.horizon:,} steps; {scouted.why}"
    )


def of_blocks(status: Status, every: TrueGradient, T: int, starts: int, pilot: int) -> str:
    """Of a truth whose length the first starts chose, and which all of them judged."""
    precision = f"standard error {every.relative_se:.2g} of its norm"
    if every.carried_by_few:
        precision = f"1% of the starts carry {every.concentration:.0%} of its squared gradients"
    said: dict[Status, str] = {
        "converged": f"the simulator unrolled for {T:,} steps converges and agrees with finite "
        f"differences",
        "cut": f"the objective is cut at T = {T:,} steps, where the unrolled gradient of "
        f"{starts:,} starts is precise and agrees with finite differences",
        "imprecise": f"the truth is not precise at N = {starts:,} ({precision}): only paired "
        f"comparisons are sharp",
        "none": f"no truth here: of {starts:,} starts the return of T = {T:,} steps is not precise "
        f"({precision})",
    }
    text = said[status] + _missed(every)
    return f"{text}; T was chosen by the first {pilot:,} starts and checked on all {starts:,}"


def _standing(status: Status, outcome: TruthOutcome) -> str:
    T = outcome.horizon
    if status == "converged":
        judged = "agrees with" if outcome.checked else "was not compared with"
        return f"the simulator unrolled for {T:,} steps converges and {judged} finite differences"
    if status == "cut":
        return (
            f"the objective is cut at T = {T:,} steps, the longest at which the unrolled gradient "
            f"is precise, as half of the starts chose and the others judge, and agrees with finite "
            f"differences ({outcome.exponents})"
        )
    if (share := _concentration(outcome)) > SPREAD:
        return (
            f"the truth is not reliable at N = {outcome.starts:,}: 1% of the starts carry "
            f"{share:.0%} of its squared gradients (wanted: at most {SPREAD:.0%}), and rarer ones "
            f"may carry as much; only paired comparisons are sharp; many more starts, a narrower "
            f"law of the starts or a shorter horizon would help"
        )
    worst = max(outcome.references, key=lambda reference: reference.relative_se)
    more = "more starts"
    if 0 < worst.missing < _MOST:
        more = f"about {worst.missing:,} more starts"
    elif worst.missing >= _MOST:  # beyond any budget
        more = "a shorter horizon or a narrower law of the starts"
    size = "its norm is lost in it"
    if worst.relative_se < 10:
        size = f"it is {worst.relative_se:.2g} of its norm (wanted: {PRECISION:g})"
    return (
        f"the truth has a large standard error, {size}: only paired comparisons are sharp; "
        f"{more} would do"
    )


def _exponents(
    unrolled: Unrolled, discount: float, growth: float = float("nan"), window: int = 0
) -> str:
    """The closed loop's exponent, that of the fastest start beside the largest that converges."""
    fastest, limit = float(unrolled.lyapunov.max()), -float(np.log(discount))
    against = f"{fastest:.3g} of the fastest start over {unrolled.horizon:,}, against ln 1/γ = "
    if not np.isfinite(growth):
        return f"λ = {against}{limit:.3g}"
    mean = f"λ = {growth:.3g} per step over {window:,} steps, the mean of the starts"
    return f"{mean}, {against}{limit:.3g}"


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
        f"; at {steps:,} steps it is {there.distance:.2g} ± {there.distance_se:.1g} away from "
        f"them, {there.discrepancy:.2g} times what is allowed, beside a norm of {there.norm:.2g}"
    )


def _missed(reference: TrueGradient) -> str:
    """What is said of the boundary term beside a truth that stands."""
    if np.isnan(reference.boundary):
        return ""
    if reference.boundary_se == 0:
        return "; no episode's end moved with θ, so no boundary term of termination was seen"
    return f"; it misses {_boundary(reference)}"


def _boundary(reference: TrueGradient) -> str:
    return (
        f"the boundary term of termination, {reference.boundary:.2g} ± "
        f"{reference.boundary_se:.2g} beside its norm of {reference.norm:.2g}"
    )


def _concentration(outcome: TruthOutcome) -> float:
    """The largest share of squared gradients that 1% of the starts carry; NaN: unknown."""
    shares = (reference.concentration for reference in outcome.references)
    return max((share for share in shares if np.isfinite(share)), default=float("nan"))


def _obstacle(outcome: TruthOutcome) -> str:
    """Why there is no truth."""
    unrolled, exponents = outcome.unrolled, outcome.exponents
    if unrolled.lost:
        return (
            f"the rollout or its Jacobians leave the finite numbers on "
            f"{unrolled.lost:,} starts, first at step {unrolled.lost_at:,} ({exponents})"
        )
    if not unrolled.converged:
        text = f"{exponents}, the unrolled gradient does not converge"
        share = _concentration(outcome)
        if share > SPREAD:
            text += (
                f", and at {outcome.horizon:,} steps 1% of the starts carry {share:.0%} of its "
                f"square"
            )
        return text
    worst = max(outcome.references, key=lambda reference: reference.discrepancy)
    if worst.boundary > ERRORS * worst.boundary_se:
        return f"the unrolled gradient misses {_boundary(worst)}"
    if worst.discrepancy > 1.0:
        return (
            f"{exponents}, and the unrolled gradient differs from finite differences by "
            f"{worst.discrepancy:.2g} times what is allowed"
        )
    return f"{exponents}, but what is left out after {outcome.horizon:,} steps is not negligible"
