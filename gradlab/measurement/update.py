"""The update, and the one test of it: where it leads, does it pay?

    θ_{k+1} = θ_k + step of the user's rule along a candidate's mean gradient at θ_k
    ΔJ_i(k) = J_i(θ_k) − J_i(θ_0)      of the same starts on the same noise     (`UpdateTest`)

    move = rms(π_θ+Δ(s_0) − π_θ(s_0)) / rms(π_θ(s_0))      to first order in the step Δ

A gradient is judged where it is used: at the length of a real update. Without a rate one step is
taken to move the actions by 4%, and updates to be made at 3e-4, as most published code makes them,
or less, where its first step would move the actions by more than 4%. What was assumed is recorded
with the numbers. A rate that is too long by far is refused before a truth is made, by the gradient
of few starts and steps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, log10
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.errors import InputError
from gradlab.gradients.setting import Setting
from gradlab.networks.interface import flat_parameters
from gradlab.runs.identity import Cell
from gradlab.runs.rehearsal import RATE
from gradlab.truth.common_random import own_size
from gradlab.truth.oracles import unroll_all_actions

Named = Literal["adam", "sgd", "length"]
Optimizer = Callable[[Iterable[Any]], torch.optim.Optimizer]  # parameters → their optimiser
Gradient = Callable[[nn.Module, int], Tensor]  # policy, update → mean ascent gradient [P]
_MOVE = 0.04  # share of the actions' size that an update moves them by, where no rate is given
_FEW = 32  # starts whose gradient goes first
_FAR = 2.0  # times the actions' size, beyond which few starts and steps may refuse a rate
REFIT = 25  # updates between two fits of the critic, where nobody says how many


@dataclass(frozen=True)
class Update:
    """What the user's training loop does with a mean gradient.

    Attributes:
        optimizer: "adam" (its defaults but for the rate), "sgd" (plain steps), "length" (steps as
            long as the rate), or a function of parameters that returns torch's optimiser of them,
            with a rate of its own.
        rate: learning rate; None: 3e-4, or less where its first step would move the actions by
            more than 4%.
        refit: updates between two fits of the critic, the longest that a rehearsal lasts.
    """

    optimizer: Named | Optimizer = "adam"
    rate: float | None = None
    refit: int = REFIT

    def __post_init__(self) -> None:
        if not callable(self.optimizer):
            validation.word("optimizer", self.optimizer, get_args(Named))
        elif self.rate is not None:
            raise InputError(f"rate is {self.rate!r} beside an optimizer function: set it there")
        if self.rate is not None and not 0 < self.rate < float("inf"):
            raise InputError(f"lr is {self.rate!r}, expected a positive number, or None")
        validation.whole("refit", self.refit, 1)

    @property
    def assumed(self) -> bool:
        """Did nobody give a rate?"""
        return self.rate is None and not callable(self.optimizer)

    @property
    def name(self) -> str:
        """Of the optimiser, as it is recorded."""
        named = self.optimizer
        return named if isinstance(named, str) else getattr(named, "__name__", "own optimiser")

    def first_step(self, gradient: Tensor) -> Tensor:
        """Δ/rate of the first update along a mean gradient [P]; Δ of a rule of the user's own.

        Raises:
            InputError: the user's own moves nothing, or to NaN.
        """
        if self.optimizer == "adam":
            return gradient.sign()
        if not callable(self.optimizer):
            return nn.functional.normalize(gradient, dim=0) if self.fixed else gradient
        theta = torch.zeros_like(gradient)
        rule, theta.grad = self.stepping([theta], 1.0), -gradient
        rule.step()
        step = theta.detach()
        if not (torch.isfinite(step).all() and (step.any() or not gradient.any())):
            what = "nothing" if torch.isfinite(step).all() else "to NaN"
            raise InputError(f"optimizer {self.name} moves {what}: give one whose step() moves θ")
        return step

    @property
    def fixed(self) -> bool:
        """Are steps as long as the rate, whatever the gradient's size?"""
        return self.optimizer == "length"

    def move(self, setting: Setting, gradient: Tensor, most: float = 1.0) -> float:
        """By which share of their size the first update moves the actions at the starts; `_MOVE`
        without a rate.

        Raises:
            InputError: by more than they are, or `most` times that.
        """
        own = callable(self.optimizer)
        if self.assumed:
            return _MOVE
        moved = (self.rate or 1.0) * _moved(setting, self.first_step(gradient))
        if moved > most:
            allowed = (self.rate or 1.0) / moved
            unit = 10.0 ** floor(log10(allowed))  # rounded down: what is advised is not refused
            raise InputError(
                f"{f'optimizer {self.name}' if own else f'lr is {self.rate:g}'}: the first step of "
                f"{self.name} moves the actions by {moved:.0%} of their size, expected at most "
                f"100%; try {'its rate times' if own else 'lr'} {floor(allowed / unit) * unit:g}"
            )
        return moved

    def check(self, setting: Setting) -> None:
        """Refuse a rate before a truth is made, by the H-step gradient of a few of the starts.

        It is not the truth's gradient, which decides where this one moves the actions by less than
        `_FAR` times their size (`move`).

        Raises:
            InputError: the first step moves the actions by more than that.
        """
        if self.assumed:
            return
        few = setting.starts.block(slice(0, _FEW))
        short = replace(setting, starts=few, horizon=max(setting.horizon, 1))
        gradient = unroll_all_actions(short).mean(dim=0)
        few.draws.clear()
        if torch.isfinite(gradient).all():
            self.move(replace(setting, starts=few), gradient, _FAR)

    def rate_for(self, setting: Setting, gradient: Tensor) -> float:
        """The rate, 1 of a rule of the user's own; without one `RATE`, or the one whose first step
        along a mean gradient [P] moves the actions by `_MOVE`."""
        if not self.assumed:
            return self.rate or 1.0
        moved = _moved(setting, self.first_step(gradient))
        return min(RATE, _MOVE / moved) if moved > 0 else RATE

    def stepping(self, parameters: Iterable[Any], rate: float) -> torch.optim.Optimizer:
        """torch's optimiser of parameters whose `grad` is the negative gradient.

        Raises:
            InputError: a rule of the user's own gives none.
        """
        if self.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=rate, foreach=False)
        if not callable(self.optimizer):
            return torch.optim.SGD(parameters, lr=rate, foreach=False)
        rule = self.optimizer(parameters)
        validation.instance("optimizer", rule, torch.optim.Optimizer, "a torch.optim.Optimizer")
        return rule


@dataclass(frozen=True, eq=False)
class UpdateTest:
    """Where candidates lead by a rule's updates, and what that does to the return.

    Attributes:
        candidates: by name, mean ascent gradients [P], which stay as they are, or functions of
            policy and update that give them.
        lengths: rates of the rule, in θ where its steps have a length.
        updates: rising numbers of updates after which a policy is judged.
        rule: what makes a step of a gradient.
    """

    candidates: Mapping[Cell, Tensor | Gradient]
    lengths: Sequence[float]
    updates: Sequence[int]
    rule: Update

    def steps(self, policy: nn.Module, progress: Callable[[int], None] | None = None) -> Tensor:
        """θ_k − θ_0 of every candidate, length and number of updates, [C, L, K, P]; NaN from a
        gradient on that is not finite.

        Args:
            progress: called with the updates that were made, of C · L · max(updates).
        """
        made, moved = 0, []
        for candidate in self.candidates.values():
            for rate in self.lengths:
                before = made

                def counted(k: int, before: int = before) -> None:
                    if progress is not None:
                        progress(before + k)

                moved.append(self._followed(policy, candidate, rate, counted))
                made += self.updates[-1]
        shape = len(self.candidates), len(self.lengths), len(self.updates), -1
        return torch.stack(moved).reshape(*shape)

    def _followed(
        self, policy: nn.Module, candidate: Tensor | Gradient, rate: float,
        counted: Callable[[int], None],
    ) -> Tensor:  # fmt: skip
        """[K, P]"""
        begin, there = flat_parameters(policy), copy.deepcopy(policy)
        theta, moved = begin.clone(), []
        optimizer = self.rule.stepping([theta], rate)
        for k in range(self.updates[-1]):
            mean = candidate if isinstance(candidate, Tensor) else candidate(there, k)
            if not torch.isfinite(mean).all():
                theta.fill_(torch.nan)
                break
            theta.grad = -(mean / mean.norm() if self.rule.fixed else mean)
            optimizer.step()
            place(there, theta)
            counted(k + 1)
            if k + 1 in self.updates:
                moved.append(theta.detach() - begin)
        lost = [torch.full_like(begin, torch.nan)] * (len(self.updates) - len(moved))
        return torch.stack(moved + lost)


@torch.no_grad()
def place(policy: nn.Module, theta: Tensor) -> None:
    """Put θ [P] into the parameters."""
    parameters = list(policy.parameters())
    for p, piece in zip(
        parameters, torch.split(theta, [p.numel() for p in parameters]), strict=True
    ):
        p.copy_(piece.view_as(p))


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
