"""Does the return jump, and does what jumps do harm? What a trial at real lengths found.

    p_i = G_i·u                              promised: the pathwise slope along u = truth/|truth|
    d_ik = (J_i(η_k) − J_i(−η_k)) / 2η_k     brought: by moves of the actions of 1, 4 and 12%
    e_ik = d_ik − p_i,     gap_k = E e_k / |E p|

A pathwise gradient is blind to jumps, as are differences at tiny steps. Harm is an interval of the
gap at the update's length against ±20%: no test of e ≠ 0, which every curved return fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray

from gradlab.runs.layout import stored

_Floats = NDArray[np.float64]
_Counts = NDArray[np.int64]
_Kind = Literal["smooth", "curved", "harmless", "harmful", "open", "rough"]
HARMFUL = 0.2  # gap from which on a truth is none
_ROUGH = 3.0  # rms of promised over rms of brought slopes from which on no derivative holds
UPDATE = 1  # place of the user's update among the lengths


@dataclass(frozen=True, eq=False)
class Jumps:
    """What paired returns along the pathwise gradient of N starts say of it.

    Attributes:
        kind: "smooth"; "curved": no jump, but the gap at the largest move is beyond 20%;
            "harmless", "harmful", "open": jumps whose gap at the update's length is inside, beyond
            or on both sides of ±20%; "rough": the derivative holds at none of the lengths.
        moves: [3], by which share of their size actions are moved; lengths: η_k in θ.
        promised: E p; brought: [3], E d_k, return per length in θ.
        gap, gap_low, gap_high: [3], with 95% intervals.
        spread: Σ e_1² / Σ e_2²; 1/256 where the return is smooth, 1 and more at jumps.
        roughness: rms p / rms d_1.
        tried: starts that were bisected; starts: those at whose returns a jump was found.
        states: these starts; sizes: of each jump, return of one start; at: the step of the path
            where it is seen.
        missing: further starts that would decide an open gap; 0 where it is decided, −1 where
            nobody knows, as where returns are lost.
        samples: N; horizon: T, steps that a return sums; steps: simulator steps that were taken.
        lost: [3], starts whose return leaves the finite numbers at ±η_k. Gaps, slopes and
            roughness are of the others. Not smooth, whatever the others are: "open" at the least.
    """

    kind: Annotated[str, stored()]
    moves: Annotated[_Floats, stored("length", unit="share of an action's size")]
    lengths: Annotated[_Floats, stored("length", name="length", unit="norm of θ")]
    promised: Annotated[float, stored()]
    brought: Annotated[_Floats, stored("length", unit="return per norm of θ")]
    gap: Annotated[_Floats, stored("length")]
    gap_low: Annotated[_Floats, stored("length")]
    gap_high: Annotated[_Floats, stored("length")]
    spread: Annotated[float, stored()]
    roughness: Annotated[float, stored()]
    tried: Annotated[int, stored()]
    starts: Annotated[_Counts, stored("jump", name="start", optional=True)]
    states: Annotated[_Floats, stored("jump", "state", optional=True)]
    sizes: Annotated[_Floats, stored("jump", unit="discounted return", optional=True)]
    at: Annotated[_Counts, stored("jump", unit="steps", optional=True)]
    missing: Annotated[int, stored()]
    samples: Annotated[int, stored()]
    horizon: Annotated[int, stored()]
    steps: Annotated[int, stored()]
    lost: Annotated[tuple[int, ...], stored("length", name="lost")] = (0, 0, 0)

    @property
    def count(self) -> int:
        """How many of the bisected starts jump."""
        return len(self.starts)

    @property
    def refuted(self) -> bool:
        """Is the pathwise gradient shown to be no gradient of the return at these lengths?"""
        return self.kind in ("harmful", "rough")

    @property
    def bends(self) -> bool:
        """Is the slope at the update's length shown to be another one than at no length?"""
        return not -HARMFUL <= self.gap[UPDATE] <= HARMFUL

    @property
    def first_lost(self) -> tuple[int, float] | None:
        """How many starts are lost at the shortest move at which some are, and that move."""
        found = ((n, float(move)) for n, move in zip(self.lost, self.moves, strict=True) if n)
        return next(found, None)

    @property
    def step(self) -> int | None:
        """The step of the path near which the returns jump: the median over the jumps."""
        return int(np.median(self.at)) if len(self.at) else None


def kind_of(
    roughness: float, jumps: int, gap: _Floats, low: _Floats, high: _Floats, lost: bool = False
) -> _Kind:
    """
    Args:
        jumps: how many were found; gap, low, high: at every length, with intervals.
        lost: do some returns leave the finite numbers?
    """
    kind = _kind_of(roughness, jumps, gap, low, high)
    refuted = kind in ("harmful", "rough") and np.isfinite(gap[UPDATE])
    return "open" if lost and not refuted else kind


def _kind_of(roughness: float, jumps: int, gap: _Floats, low: _Floats, high: _Floats) -> _Kind:
    beyond = (low > HARMFUL) | (high < -HARMFUL)
    if roughness > _ROUGH or (not jumps and beyond.all()):
        return "rough"
    if not jumps:
        return "curved" if abs(gap[-1]) > HARMFUL else "smooth"
    low, high = low[UPDATE], high[UPDATE]
    if low > HARMFUL or high < -HARMFUL:
        return "harmful"
    return "harmless" if low >= -HARMFUL and high <= HARMFUL else "open"
