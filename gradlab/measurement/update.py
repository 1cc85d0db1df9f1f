"""The user's update: its optimiser, its rate, and how far its first step moves the actions.

    move = rms(π_θ+Δ(s_0) − π_θ(s_0)) / rms(π_θ(s_0))      to first order in the step Δ

A gradient is judged where it is used: at the length of a real update. Without a rate one step is
taken to move the actions by 4%, and updates to be made at 3e-4, as most published code makes them,
or less, where its first step would move the actions by more than 4%. What was assumed is recorded
with the numbers. A rate that is too long by far is refused before a truth is made, by the gradient
of few starts and steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor, log10
from typing import Literal

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.errors import InputError
from gradlab.gradients.setting import Setting
from gradlab.runs.rehearsal import RATE
from gradlab.truth.common_random import own_size
from gradlab.truth.oracles import unroll_all_actions

_Optimizer = Literal["adam", "sgd"]
_OPTIMIZERS: tuple[_Optimizer, ...] = ("adam", "sgd")
_MOVE = 0.04  # share of the actions' size that an update moves them by, where no rate is given
_FEW = 32  # starts whose gradient goes first
_FAR = 2.0  # times the actions' size, beyond which few starts and steps may refuse a rate
REFIT = 25  # updates between two fits of the critic, where nobody says how many


@dataclass(frozen=True)
class Update:
    """What the user's training loop does with a mean gradient.

    Attributes:
        optimizer: "adam" (its defaults but for the rate) or "sgd" (plain steps).
        rate: learning rate; None: 3e-4, or less where its first step would move the actions by
            more than 4%.
        refit: updates between two fits of the critic, the longest that a rehearsal lasts.
    """

    optimizer: _Optimizer = "adam"
    rate: float | None = None
    refit: int = REFIT

    def __post_init__(self) -> None:
        validation.word("optimizer", self.optimizer, _OPTIMIZERS)
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise InputError(f"lr is {self.rate!r}, expected a positive number, or None")
        validation.whole("refit", self.refit, 1)

    def first_step(self, gradient: Tensor) -> Tensor:
        """Δ/rate of the first update along a mean gradient [P]."""
        return gradient.sign() if self.optimizer == "adam" else gradient

    def move(self, setting: Setting, gradient: Tensor, most: float = 1.0) -> float:
        """By which share of their size the first update moves the actions at the starts; `_MOVE`
        without a rate.

        Raises:
            InputError: by more than they are, or `most` times that.
        """
        if self.rate is None:
            return _MOVE
        moved = self.rate * _moved(setting, self.first_step(gradient))
        if moved > most:
            allowed = self.rate / moved
            unit = 10.0 ** floor(log10(allowed))  # rounded down: what is advised is not refused
            raise InputError(
                f"lr is {self.rate:g}: the first step of {self.optimizer} moves the actions by "
                f"{moved:.0%} of their size, expected at most 100%; try lr "
                f"{floor(allowed / unit) * unit:g}"
            )
        return moved

    def check(self, setting: Setting) -> None:
        """Refuse a rate before a truth is made, by the H-step gradient of a few of the starts.

        It is not the truth's gradient, which decides where this one moves the actions by less than
        `_FAR` times their size (`move`).

        Raises:
            InputError: the first step moves the actions by more than that.
        """
        if self.rate is None:
            return
        few = setting.starts.block(slice(0, _FEW))
        short = replace(setting, starts=few, horizon=max(setting.horizon, 1))
        gradient = unroll_all_actions(short).mean(dim=0)
        few.draws.clear()
        if torch.isfinite(gradient).all():
            self.move(replace(setting, starts=few), gradient, _FAR)

    def rate_for(self, setting: Setting, gradient: Tensor) -> float:
        """The rate; without one `RATE`, or the one whose first step along a mean gradient [P] moves
        the actions by `_MOVE`."""
        if self.rate is not None:
            return self.rate
        moved = _moved(setting, self.first_step(gradient))
        return min(RATE, _MOVE / moved) if moved > 0 else RATE

    def stepping(self, theta: Tensor, rate: float) -> torch.optim.Optimizer:
        """torch's optimiser of a flat parameter vector, whose `grad` is the negative gradient."""
        if self.optimizer == "adam":
            return torch.optim.Adam([theta], lr=rate, foreach=False)
        return torch.optim.SGD([theta], lr=rate, foreach=False)


def _moved(setting: Setting, step: Tensor) -> float:
    """Share of their size by which a step [P] moves the first actions, to first order."""
    length = float(step.norm())
    if not length > 0:
        return 0.0
    return length / reach(setting.policy, setting, step / length)


def reach(policy: nn.Module, setting: Setting, direction: Tensor) -> float:
    """Length of a step along a unit direction [P] that moves the first actions by their size."""
    starts = setting.starts
    noise = starts.policy_noise(policy, setting.seed, 0)
    return own_size(policy, starts.states, noise, direction[None], starts.weight)
