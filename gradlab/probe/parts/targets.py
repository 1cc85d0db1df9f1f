"""The algebra of a critic's targets and of advantages, from the loop's own tensors.

    y = r + γ (1 − d) v                                 γ̂ by least squares of y − r on (1 − d) v
    A_t = r_t + γ (1 − e_t) v_{t+1} − v_t + γ λ (1 − e_t) A_{t+1}      (GAE, arXiv:1506.02438)

Both are identities: they hold to rounding, or a mistake with a name does, or what was handed over
is not what the loop uses. Nothing is reconstructed. Where a time limit cuts an episode, v_{t+1} is
the value of its last observation, which enters through `final_value`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Any, final

import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.probe.alarms.parts import ADVANTAGE, DISCOUNT
from gradlab.probe.parts.answers import Answer, off

ROUNDING = 1e-3  # of the size of y − r, or of the advantages: float32 leaves 1e-6
OFF = 1e-3  # of γ: (1 − .99²) is ten times as much
ADDED = ("reward", "terminated", "next_value", "target")
UNDISCOUNTED = 0.99995


@dataclass(frozen=True)
class Fit:
    """What one batch of targets says.

    Attributes:
        discount: γ̂; rest: what the identity leaves of y − r, as a share of its size.
        mistake: what fits instead; "": nothing is wrong, or nothing fits.
    """

    discount: float
    rest: float
    mistake: str = ""


@final
class Algebra:
    """Targets of one-step (or n-step, with γⁿ and summed rewards) fits."""

    name = "targets are r + γ (1 − d) v"

    def __init__(self) -> None:
        self._fit: Fit | None = None
        self._declared: float | None = None
        self._looks = 0

    def take(
        self, reward: Tensor, terminated: Tensor, value: Tensor, target: Tensor,
        discount: float | None,
    ) -> None:  # fmt: skip
        """One batch, as the loop has it."""
        self._declared, self._looks = discount, self._looks + 1
        if target.numel() == reward.numel() ** 2 > 1:
            self._fit = Fit(nan, nan, "shape")
            return
        r, d, v, y = (x.detach().double().reshape(-1) for x in (reward, terminated, value, target))
        sure = _fit(y - r, (1 - d) * v)
        cut = bool(((d > 0) & (v != 0)).any())
        others = {"kept": v, "swapped": d * v} if cut else {}
        if sure.rest > ROUNDING:
            for mistake, each in others.items():
                if (found := _fit(y - r, each)).rest < ROUNDING:
                    sure = Fit(found.discount, found.rest, mistake)
        self._fit = sure

    def answer(self, *_: object) -> Answer:
        fit, declared = self._fit, self._declared
        if fit is None:
            return off(
                "targets are not handed over: probe.batch(reward=…, terminated=…, next_value=…, "
                "target=…, discount=…)"
            )
        if fit.mistake:
            return self._fault(fit, f"of y − r is left {fit.rest:.1g}", _MISTAKES[fit.mistake])
        if not fit.rest < ROUNDING:
            return off(
                f"y is not r + γ (1 − d) v of what was handed over ({fit.rest:.2g} of y − r is "
                f"left): hand over what the loop adds up, the entropy in next_value"
            )
        proof = f"γ̂ = {fit.discount:.5f}, declared {declared}; {fit.rest:.1g} of y − r is left"
        if declared is not None and abs(fit.discount - declared) > OFF:
            words = f"use γ = {fit.discount:.4f}, not {declared:g}: is γ squared, or left out?"
            return self._fault(fit, proof, words)
        if fit.discount > UNDISCOUNTED and declared is None:
            return self._fault(fit, proof, "use γ = 1: is the discount left out?")
        return Answer("sound", proof, fit.discount, declared or 1.0, self._looks)

    def _fault(self, fit: Fit, proof: str, words: str) -> Answer:
        limit = 1.0 if self._declared is None else self._declared
        message = f"the critic's targets {words}"
        return Answer("fault", proof, fit.discount, limit, self._looks, DISCOUNT, message)


_MISTAKES = {
    "shape": "have one number per pair of rows, [B, B]: do reward and value have shapes [B] and "
    "[B, 1]?",
    "kept": "go on beyond terminal states, r + γ v without (1 − d): are terminations stored and "
    "used?",
    "swapped": "go on at terminal states alone, r + γ d v: is the mask of terminations inverted?",
}


def _fit(left: Tensor, right: Tensor) -> Fit:
    square = float(right @ right)
    slope = float(left @ right) / square if square > 0 else nan
    size = float(left.norm())
    return Fit(slope, float((left - slope * right).norm()) / size if size > 0 else nan)


@final
class Advantages:
    """Generalised advantages of a rollout, recomputed."""

    name = "advantages are those of GAE"

    def __init__(self) -> None:
        self._found, self._rest, self._looks = "", nan, 0

    def take(self, rollout: Rollout) -> None:
        """One rollout, as the loop has it."""
        self._looks += 1
        size = max(float(rollout.advantage.double().norm()), 1e-300)
        rests = {name: float(each.norm()) / size for name, each in rollout.residuals().items()}
        self._found = min(rests, key=lambda name: (rests[name] >= ROUNDING, _ORDER.index(name)))
        self._rest = rests[self._found]

    def answer(self, *_: object) -> Answer:
        if not self._looks:
            return off(
                "advantages are not handed over: probe.rollout(reward=…, value=…, ended=…, "
                "last_value=…, advantage=…, discount=…, trace=…)"
            )
        if not self._rest < ROUNDING:
            return off(
                f"advantages are not GAE's of what was handed over ({self._rest:.2g} is left): "
                f"hand them over before they are normalised"
            )
        proof = f"{self._rest:.1g} of the advantages is left (fault: another formula fits)"
        if self._found == "":
            return Answer("sound", proof, self._rest, ROUNDING, self._looks)
        return Answer(
            "fault", proof, self._rest, ROUNDING, self._looks, ADVANTAGE,
            f"the advantages {_FORMULAS[self._found]}",
        )  # fmt: skip


@dataclass(frozen=True)
class Rollout:
    """Steps of environments side by side, [T] or [T, N].

    Attributes:
        value: of the states that are acted in; last_value: of the ones after the last step.
        ended: whether step t ended an episode; truncated: by its time limit.
        final_value: of the last observation where it was truncated, 0 elsewhere.
        discount, trace: γ and λ.
    """

    reward: Tensor
    value: Tensor
    ended: Tensor
    advantage: Tensor
    last_value: Tensor
    discount: float
    trace: float
    truncated: Tensor | None = None
    final_value: Tensor | None = None

    def residuals(self) -> dict[str, Tensor]:
        """What each formula leaves of the advantages, step by step from the loop's own next one:
        GAE, and the mistakes that have been made in it, by name."""
        e = self.ended.double()
        shifted = torch.cat([torch.zeros_like(e[:1]), e[:-1]])
        found = {
            "unended": self._left(torch.zeros_like(e)),
            "shifted": self._left(shifted),
            "exchanged": self._left(e, self.trace, self.discount),
            "unfinished": self._left(e, last=torch.zeros_like(self.last_value)),
        }
        limits = self.truncated is not None and bool(self.truncated.any())
        if not limits:
            return {"": self._left(e)} | found
        if self.final_value is None:
            return {"cut": self._left(e)} | found
        return {"": self._left(e, final=self.final_value), "cut": self._left(e)} | found

    def _left(
        self, ended: Tensor, discount: float | None = None, trace: float | None = None,
        last: Tensor | None = None, final: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        gamma = self.discount if discount is None else discount
        decay = gamma * (self.trace if trace is None else trace)
        end = (self.last_value if last is None else last).double()[None]
        value, advantage, on = self.value.double(), self.advantage.double(), 1 - ended
        following = torch.cat([value[1:], end])
        carried = torch.cat([advantage[1:], torch.zeros_like(advantage[:1])])
        expected = self.reward.double() + on * (gamma * following + decay * carried) - value
        return expected + (0.0 if final is None else gamma * final.double()) - advantage


_ORDER = ("", "cut", "shifted", "unended", "exchanged", "unfinished")
_FORMULAS = {
    "cut": "treat time limits as ends: is the value of the last observation added where an "
    "episode is truncated?",
    "shifted": "use the ends of one step earlier: do rewards and dones have the same index?",
    "unended": "go on beyond the ends of episodes: are dones used?",
    "exchanged": "have γ and λ exchanged: in which order are they given?",
    "unfinished": "end with the rollout: is the value after its last step added?",
}


def tensors(**given: Any) -> dict[str, Tensor]:
    """As tensors without their graphs.

    Raises:
        InputError: something that is no array of numbers.
    """
    found = {}
    for name, each in given.items():
        try:
            found[name] = torch.as_tensor(each).detach()
        except (TypeError, ValueError, RuntimeError):
            kind = type(each).__name__
            raise InputError(f"{name} is a {kind}, expected a tensor or an array") from None
    return found


def check_rows(reward: Tensor, **others: Tensor) -> None:
    """Raises InputError for tensors of another number of entries than `reward`."""
    for name, each in others.items():
        if each.numel() != reward.numel():
            raise InputError(
                f"{name} has shape {tuple(each.shape)}, expected as many numbers as reward, "
                f"{tuple(reward.shape)}"
            )
