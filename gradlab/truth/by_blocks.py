"""The gradient of the return from more starts than fit into memory at once, block by block.

    pilot    the first starts, measured whole (`truth.matched_truth`): status, T, agreement
    blocks   ∇_θ of the T-step return of every start, made and dropped
    judged   remainder, growth and precision again, of all starts; up to 1.5 times the tolerance
             is let pass, and reported: beyond it the truth is that of a return cut at T

`early_truth`: θ in the first k actions, Σ_{t<k} γᵗ E[J_θπ(s_t)ᵀ ∂_a Q^π(s_t, a_t)], which is what a
gradient of k − 1 steps that ends in an exact critic expects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from torch import Tensor

from gradlab.findings import Finding
from gradlab.gradients.rollout import LinearizedPath, sensitivities
from gradlab.gradients.setting import Setting
from gradlab.progress import Progress, silent
from gradlab.truth import outcome
from gradlab.truth.agreement import Judged, TrueGradient, precision_from
from gradlab.truth.oracles import (
    TOLERANCE,
    early_action_gradients,
    exponents,
    left_out,
    long_and_short,
    piece,
    shortened,
)
from gradlab.truth.outcome import Status
from gradlab.truth.truth import Truth, matched_truth


@dataclass(frozen=True, eq=False)
class EarlyTruth:
    """
    Attributes:
        status: of the truth with θ in the first action, by which this one stands or falls.
        horizon: T, the steps that the return sums; 0 where there is no truth.
        finding: why.
        path: of the simulator, T steps long; None where there is no truth.
    """

    setting: Setting
    status: Status
    horizon: int
    finding: Finding
    path: LinearizedPath | None

    def gradients(self, count: int) -> Tensor | None:
        """Of every start with θ in the first `count` actions, [N, P]; None without a truth."""
        if self.path is None:
            return None
        setting = self.setting
        return early_action_gradients(
            self.path, setting.policy, count, self.horizon, setting.discount
        )


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
        return EarlyTruth(setting, truth.status, 0, truth.finding, None)
    steps = truth.horizon + (0 if truth.status == "cut" else most - 1)
    return EarlyTruth(setting, truth.status, steps, truth.finding, piece(setting, steps))


PILOT = 512  # starts that choose the length of the truth: as many as `gradlab measure` takes
_PASSED = 1.5  # remainder of all starts, in units of the tolerance


def pilot_truth(setting: Setting, progress: Progress = silent, count: int = PILOT) -> Truth:
    """The truth of the first starts, by which that of all is planned."""
    few = setting.starts.block(slice(0, min(count, len(setting.starts.states))))
    return matched_truth(replace(setting, starts=few), kinds=["all"], progress=progress)


@final
class BlockedTruth:
    """True gradients block by block, and what is known of all of them once each block was made.

    Args:
        setting: with all starts; pilot: with a truth of θ in every action.
    """

    def __init__(self, setting: Setting, pilot: Truth) -> None:
        self._setting, self._pilot = setting, pilot
        size = sum(p.numel() for p in setting.policy.parameters())
        n = len(setting.starts.states)
        self._long, self._short = setting.starts.states.new_zeros(2, size)
        self._squares = setting.starts.states.new_zeros(n)
        self._growth, self._flagged = -np.inf, 0.0

    def block(self, rows: slice) -> tuple[Tensor, LinearizedPath]:
        """Gradients [n, P], weights included, and the simulator's path of H steps."""
        setting, T = self._setting, self._pilot.horizon
        part = replace(setting, starts=setting.starts.block(rows))
        linear = piece(part, max(T, setting.horizon))
        G, short = long_and_short(linear, setting.policy, T, setting.discount)
        self._long += G.sum(dim=0)
        self._short += len(G) * short
        self._squares[rows] = G.square().sum(dim=1)
        self._growth = max(self._growth, float(exponents(sensitivities(linear)).max()))
        self._flagged += float(linear.flags.sum()) / linear.path.horizon
        return G, shortened(linear, setting.horizon)

    @property
    def mean(self) -> Tensor:
        """Of the gradients of all starts, [P]."""
        mean: Tensor = self._long / len(self._squares)
        return mean

    def judged(self, of_pilot: int) -> Truth:
        """The truth of all starts, without their gradients.

        Args:
            of_pilot: how many starts the pilot had.
        """
        n, pilot = len(self._squares), self._pilot
        assert pilot.every is not None
        if of_pilot == n:
            every = replace(pilot.every, gradients=pilot.every.gradients[:0])
            return replace(pilot, every=every, path=None)
        every, discount = self._reference(pilot.every), self._setting.discount
        remainder = left_out(self.mean, self._short / n, pilot.horizon, discount)
        error = float(self._squares.mean() / n) ** 0.5
        room = _PASSED * TOLERANCE * max(float(self.mean.norm()), error)
        growth = max(pilot.lyapunov, self._growth)
        whole = pilot.status != "cut" and remainder <= room and growth < -np.log(discount)
        status = _status(every, whole)
        return replace(
            pilot,
            status=status,
            every=every if status != "none" else None,
            lyapunov=growth,
            remainder=remainder if whole else float("nan"),
            flagged=self._flagged / n,
            finding=outcome.of_blocks(status, every, pilot.horizon, n),
            path=None,
        )

    def _reference(self, of_pilot: TrueGradient) -> TrueGradient:
        """Precision of all starts; distances to finite differences are of the first ones."""
        n = len(self._squares)
        whole = self._long.square().sum()
        names = ("discrepancy", "distance", "distance_se", "boundary", "boundary_se")
        known = [self._long.new_tensor([getattr(of_pilot, name)]) for name in names]
        discrepancy, distance, distance_se, boundary, boundary_se = known
        return Judged(
            self._long.new_zeros(1, n, 0),
            precision_from(whole[None], self._squares[None], n),
            discrepancy,
            (distance, distance_se),
            (boundary, boundary_se),
        ).at(1)


def _status(every: TrueGradient, whole: bool) -> Status:
    if every.precise:
        return "converged" if whole else "cut"
    return "imprecise" if whole else "none"
