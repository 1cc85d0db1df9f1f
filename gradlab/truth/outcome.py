"""Whether a truth can be had: its length, planned from a few starts and steps, and why it stands.

Where unrolling all starts would take longer than `PATIENCE`, some go first for some steps, and say

    how fast closed-loop chains grow      clearly faster than 1/γ: only a shorter objective can do
    where N starts would be precise       se_n √(n/N) / |g|, for every T that a cut may have

Without a T ≥ H that may do, there is no truth; else all are unrolled as far as patience goes.
Prices are operation counts (`linearization_price`), so results depend on no clock.

Why a truth stands, is cut or does not exist: one finding from what it was judged by.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from torch import Tensor

from gradlab.findings import Decision, Finding
from gradlab.gradients import gram
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import LinearizedPath
from gradlab.gradients.setting import Setting, Starts
from gradlab.systems.system import System
from gradlab.truth.agreement import ERRORS, PRECISION, SPREAD, TrueGradient, precision_of
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
        why: there is no truth; None where there may be one.
        path: of the scouts, where they leave no truth.
    """

    at_most: int
    scouts: int = 0
    unrolled: Unrolled | None = None
    why: Finding | None = None
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
    if affordable >= H and not _outgrows(unrolled, discount):
        return Plan(affordable, count)
    code, limit, reach = "truth_too_dear", round(per_step * H), 0
    if affordable >= H:
        code, limit = "truth_never_precise", unrolled.horizon
        reach = _precise(pieces, unrolled, few, kinds, n)
    if not reach:
        why = Finding(code, "fail", "", H, threshold=limit, n=n)
        return Plan(0, count, unrolled, why, joined(pieces))
    reach = affordable if reach == unrolled.horizon else int(np.ceil(reach / _GRID))
    return Plan(min(reach, affordable), count)


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
_LOST = 10.0  # standard errors over the norm, from which on that is lost


@dataclass(frozen=True)
class TruthOutcome:
    """What a truth was judged by.

    Attributes:
        horizon: T; whole: nothing is cut there.
        references: of every kind of gradient, at T.
        at_most: steps that were to be tried; unrolled: what came of it.
        checked: were they compared with finite differences?
        starts: that were unrolled.
    """

    horizon: int
    whole: bool
    references: list[TrueGradient]
    at_most: int
    unrolled: Unrolled
    discount: float
    checked: bool
    starts: int


def found(status: Status, outcome: TruthOutcome) -> Finding:
    """Why it stands, is cut or does not exist."""
    T, n = outcome.horizon, outcome.starts
    if status == "none":
        return _obstacle(outcome)
    if status == "imprecise":
        few = [each for each in outcome.references if each.carried_by_few]
        if few:
            return imprecise(max(few, key=lambda each: each.concentration), n)
        return imprecise(max(outcome.references, key=lambda each: each.relative_se), n)
    if status == "cut" and outcome.at_most < AT_MOST:
        return Finding("truth_cut_by_price", "pass", "", T, threshold=outcome.at_most, n=n)
    code = "truth_cut" if status == "cut" else "truth_converged"
    return Finding(code if outcome.checked else "truth_unchecked", "pass", "", T, n=n)


def imprecise(reference: TrueGradient, n: int, decision: Decision = "undecided") -> Finding:
    """A standard error that is large, or not to be believed."""
    if reference.carried_by_few:
        share = reference.concentration
        return Finding("truth_few_carry", decision, "", share, threshold=SPREAD, n=n)
    error, more = reference.relative_se, reference.missing
    if error >= _LOST or more >= _MOST:  # beyond any budget
        return Finding("truth_in_noise", decision, n=n)
    return Finding("truth_imprecise", decision, "", error, threshold=PRECISION, n=n, more=more)


def _obstacle(outcome: TruthOutcome) -> Finding:
    """Why there is no truth."""
    unrolled, n = outcome.unrolled, outcome.starts
    if unrolled.lost:
        return Finding("truth_lost", "fail", "", unrolled.lost, n=n, at=f"step {unrolled.lost_at}")
    if not unrolled.converged:
        fastest, limit = float(unrolled.lyapunov.max()), -float(np.log(outcome.discount))
        return Finding("truth_diverges", "fail", "", fastest, threshold=limit, n=n)
    worst = max(outcome.references, key=lambda reference: reference.discrepancy)
    if worst.boundary > ERRORS * worst.boundary_se:
        size, norm = worst.boundary, worst.norm
        return Finding("truth_misses_boundary", "fail", "", size, threshold=norm, n=n)
    if worst.discrepancy > 1.0:
        return Finding("truth_differs", "fail", "", worst.discrepancy, threshold=1.0, n=n)
    return Finding("truth_remainder", "fail", "", outcome.horizon, n=n)
