"""Advantages of a rollout, by the loop's own tensors.

    A_t = r_t + γ (1 − e_t) v_{t+1} − v_t + γ λ (1 − e_t) A_{t+1}      (GAE, arXiv:1506.02438)

It holds to rounding, or a mistake with a name does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite, isnan, nan
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.probe.alarms.evidence import ADVANTAGE
from gradlab.probe.parts.recorder import CheckAnswer, off
from gradlab.probe.parts.targets import OFF

if TYPE_CHECKING:
    from gradlab.probe.parts.recorder import Ring

ROUNDING = 1e-3  # of the size of the advantages: float32 leaves 1e-6
LEAST = 16  # rows
_APART = 1e-3  # least singular value of columns of length 1, from which both slopes are read


@final
class Advantages:
    """Generalised advantages of a rollout, recomputed."""

    name = "advantages are those of GAE"

    def __init__(self) -> None:
        self._found, self._rest, self.looks = "", nan, 0
        self._named = ""  # the newest mistake, which explains later rollouts where it can
        self._factors, self._meant = (nan, nan), (nan, nan)  # γ and λ, of the fit and declared
        self._bare = False  # episodes end, and no value of a last observation was handed over
        self._own = False  # the ends are those of the steps themselves
        self.limits = TimeLimits()

    def take(self, rollout: Rollout, recorded: bool = False, ends: bool = False) -> None:
        """One rollout, as the loop has it; `recorded`: time limits were seen by `record`; `ends`:
        its ends are those that were."""
        self.looks += 1
        self._own = ends or rollout.valued_at_ends
        self._meant = rollout.discount, rollout.trace
        self._bare = rollout.final_value is None and bool(rollout.ended.any())
        size = float(rollout.advantage.double().norm())
        rests = {name: float(each.norm()) for name, each in rollout.residuals().items()}
        self._found, self._rest = "", nan
        if size > 0 and all(map(isfinite, (size, *rests.values()))):
            rests = {name: each / size for name, each in rests.items()}
            if not min(rests.values()) < ROUNDING:
                rests |= rollout.normalised()
                self._factors, rests["factors"] = rollout.factors()
            self._found = self._least(rests)
            self._rest = rests[self._found]
            alike = rests["shifted"] == rests["unended"] and self._found != self._named
            if self._found in ("shifted", "unended") and alike:
                self._found = "either"
        self._found = self._found.removeprefix(_NORMALISED)
        mistakes = _FORMULAS.keys() - ({*_OF_GAE} if self._own else {*_OF_GAE, "late"})
        if self._rest < ROUNDING and self._found in mistakes:
            self._named = self._found
        fits = self._found if self._rest < ROUNDING else "nothing"
        self.limits.take(rollout, fits, self._rest, recorded)

    def _least(self, rests: Mapping[str, float]) -> str:
        """The first that fits; of mistakes the one that was named before, if it does."""

        def order(name: str) -> tuple[bool, bool, int]:
            at = _ORDER.index(name)
            new = name.removeprefix(_NORMALISED) != self._named
            return not rests[name] < ROUNDING, new and at > _ORDER.index("late"), at

        return min(rests, key=order)

    def answer(self, *_: object) -> CheckAnswer:
        if not self.looks:
            return off(_NO_ROLLOUT)
        if isnan(self._rest):
            return off("all advantages are 0, or a number that was handed over is not finite")
        if not self._rest < ROUNDING:
            gamma, trace = self._meant
            also = " Bootstrapped at time limits: hand over truncated= and final_value=, too."
            return CheckAnswer(
                "open", f"{self._rest:.2g} of the advantages is left by GAE of γ = {gamma:g}, "
                f"λ = {trace:g}: changed before they were handed over, or of another formula?"
                f"{also * self._bare}", self._rest, ROUNDING, self.looks,
            )  # fmt: skip
        if self._found == "late" and not self._own:
            return off(
                "they fit ended of the next step (that of the last is not known): hand over "
                "whether step t itself ended an episode, of CleanRL's dones "
                "torch.cat([dones[1:], next_done[None]])"
            )
        proof = f"{self._rest:.1g} of the advantages is left (fault: another formula fits)"
        if self._found in _OF_GAE:
            return CheckAnswer("sound", proof, self._rest, ROUNDING, self.looks)
        words = _FORMULAS.get(self._found) or _factors(*self._factors, *self._meant)
        return CheckAnswer(
            "fault", proof, self._rest, ROUNDING, self.looks, ADVANTAGE,
            f"the advantages {words}",
        )  # fmt: skip


@final
class TimeLimits:
    """Is the last observation's value added where a time limit ends an episode?

    By the newest rollout that has one: without truncated= GAE fits either way.
    """

    name = "time limits are bootstrapped in advantages"

    def __init__(self) -> None:
        self._answer = off(_NO_ROLLOUT)
        self._looks = 0

    def take(self, rollout: Rollout, fits: str, rest: float, recorded: bool) -> None:
        """One rollout, the formula that fits it and what that leaves of the advantages."""
        if rollout.truncated is None or not rollout.truncated.any():
            reason = "no episode was cut by a time limit so far"
            if recorded or rollout.truncated is None:
                seen = "episodes were cut by time limits: " * recorded
                reason = f"{seen}hand over truncated= and final_value= to probe.rollout"
            self._answer = self._answer if self._looks else off(reason)
            return
        self._looks += 1
        proof = f"{rest:.1g} of the advantages is left (fault: GAE fits without final_value=)"
        if not rollout.value[rollout.truncated > 0].any():
            self._answer = off("all values are 0 where truncated= is set")
        elif fits == "cut":
            self._answer = CheckAnswer(
                "fault", proof, rest, ROUNDING, self._looks, ADVANTAGE,
                f"the advantages {_FORMULAS['cut']}",
            )  # fmt: skip
        elif fits not in _OF_GAE:
            self._answer = off("the advantages are not those of GAE")
        elif rollout.at_limits < ROUNDING:
            self._answer = off("final_value= is too small beside the advantages to be seen in them")
        else:
            self._answer = CheckAnswer("sound", proof, rest, ROUNDING, self._looks)

    def answer(self, *_: object) -> CheckAnswer:
        return self._answer


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

    @property
    def valued_at_ends(self) -> bool:
        """Are last observations valued at some steps, and at those that ended an episode alone?"""
        valued = None if self.final_value is None else self.final_value != 0
        return valued is not None and bool(valued.any() and (self.ended[valued] > 0).all())

    @property
    def at_limits(self) -> float:
        """Size of what last observations' values add, over that of the advantages."""
        if self.truncated is None or self.final_value is None:
            return 0.0
        added = self.final_value.double() * (self.truncated > 0)
        return self.discount * float(added.norm() / self.advantage.double().norm())

    def residuals(self) -> dict[str, Tensor]:
        """What each formula leaves of the advantages, step by step from the loop's own next one:
        GAE, and the mistakes that have been made in it, by name."""
        e = self.ended.double()
        shifted = torch.cat([torch.zeros_like(e[:1]), e[:-1]])
        found = {
            name: self._left(ended, final=added, on=on)
            for name, (ended, on, added) in self._at_limits().items()
        }
        return found | {
            "late": self._late(e),
            "unended": self._either(torch.zeros_like(e)),
            "inverted": self._either(1 - e),
            "negated": replace(self, advantage=-self.advantage)._left(e, final=self.final_value),
            "shifted": self._either(shifted),
            "exchanged": self._left(e, self.trace, self.discount),
            "unfinished": self._left(e, last=torch.zeros_like(self.last_value)),
        }

    def _either(self, ended: Tensor) -> Tensor:
        """With the last observations' values or without them, whichever leaves less."""
        return min((self._left(ended, final=x) for x in (None, self.final_value)), key=torch.norm)

    def _at_limits(self) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
        """GAE, and mistakes at time limits, of which "cut" is none where nothing is to be added: at
        which steps no value follows, from which ones the next advantage is carried on, and what is
        added."""
        e, final = self.ended.double(), self.final_value
        limit = torch.zeros_like(e) if self.truncated is None else (self.truncated > 0).double()
        e, on = torch.maximum(e, limit), 1 - e * (1 - limit)
        found: dict[str, tuple[Tensor, Tensor, Tensor | None]] = {}
        if final is not None and final.any():
            found[""] = e, 1 - e, final
        found["cut"] = e, 1 - e, None
        # Without final_value= the value after the step may be that of the last observation.
        if final is not None and bool(limit.any() and final.any()):
            found |= {"carried": (e, on, final), "crossed": (1 - on, on, None)}
        return found

    def _late(self, e: Tensor) -> Tensor:
        """Of flags that belong to the state before a step; those of the last one are not known. No
        mistake of the loop's if these were handed over, and where a rollout has no other end not to
        be told from one."""
        goes_on, ends = (
            self._left(torch.cat([e[1:], torch.full_like(e[:1], last)]), final=self.final_value)
            for last in (0.0, 1.0)
        )
        return torch.where(goes_on.abs() < ends.abs(), goes_on, ends)

    def factors(self) -> tuple[tuple[float, float], float]:
        """γ and λ by least squares of the given numbers, and the share of the advantages that they
        leave; NaN where one of them is not to be read."""
        one, valued, carried = (
            self._left(self.ended.double(), gamma, trace, final=self.final_value).reshape(-1)
            for gamma, trace in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
        )
        (gamma, decay), rest = _solved(-one, valued - one, carried - valued)
        size = max(float(self.advantage.double().norm()), 1e-300)
        return (gamma, decay / gamma if gamma else nan), rest / size

    def normalised(self) -> dict[str, float]:
        """The share that GAE and mistakes at time limits leave of advantages of which a mean was
        taken, and the rest divided by a positive number; NaN where it was not positive."""
        found = {}
        for name, (e, on, added) in self._at_limits().items():
            delta = self._left(e, trace=0.0, final=added) + self.advantage.double()
            own = delta - self._left(e, final=added, on=on)
            later = torch.cat([on[:-1], torch.zeros_like(on[:1])])  # none after the last step
            mean = 1 - self.discount * self.trace * later
            (scale, _), rest = _solved(*(x.reshape(-1) for x in (delta, own, mean)))
            size = scale * float(self.advantage.double().norm())
            found[_NORMALISED + name] = rest / size if scale > 0 else nan
        return found

    def _left(
        self, ended: Tensor, discount: float | None = None, trace: float | None = None,
        last: Tensor | None = None, final: Tensor | None = None, on: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """`on`: steps from which the next advantage is carried on; None: all that did not end."""
        gamma = self.discount if discount is None else discount
        decay = gamma * (self.trace if trace is None else trace)
        end = (self.last_value if last is None else last).double()[None]
        value, advantage = self.value.double(), self.advantage.double()
        on = 1 - ended if on is None else on
        following = torch.cat([value[1:], end])
        carried = torch.cat([advantage[1:], torch.zeros_like(advantage[:1])])
        expected = self.reward.double() + (1 - ended) * gamma * following + on * decay * carried
        return expected + (0.0 if final is None else gamma * final.double()) - value - advantage


def _solved(left: Tensor, *columns: Tensor) -> tuple[list[float], float]:
    """Least squares and the norm of what they leave; NaN where columns are nearly one and the
    same, or where so few rows would fit anything."""
    held = torch.stack(columns, 1).cpu().numpy()
    held, y = held / np.maximum(sizes := np.linalg.norm(held, axis=0), 1e-300), left.cpu().numpy()
    found, *_, singular = np.linalg.lstsq(held, y, rcond=None)
    if len(y) < LEAST or not (np.isfinite(found).all() and singular.min() > _APART):
        return [nan] * len(columns), nan
    return (found / sizes).tolist(), float(np.linalg.norm(y - held @ found))


def _factors(gamma: float, trace: float, meant: float, carried: float) -> str:
    """Which factor stands in the place of γ or γλ, by its number."""
    if abs(gamma - meant) > OFF:
        return (
            f"are those of γ = {gamma:.4f} and λ = {trace:.4f}, not of {meant:g} and {carried:g}: "
            f"which numbers does the loop use?"
        )
    named = {"λ²": carried**2, "γ²": meant**2, "λ": carried, "γ": meant}
    found = gamma * trace
    name = next((f", {name}," for name, each in named.items() if abs(found - each) < OFF), "")
    return (
        f"carry the next one on by {found:.4f}{name} where γλ is {meant * carried:.4f}: by which "
        f"factors is it multiplied?"
    )


_NORMALISED = "normalised "
_ORDER = (
    "", _NORMALISED, "cut", f"{_NORMALISED}cut", "late", "carried", "crossed",
    f"{_NORMALISED}carried", f"{_NORMALISED}crossed", "shifted", "unended", "inverted", "negated",
    "exchanged", "unfinished", "factors",
)  # fmt: skip
_OF_GAE = ("", "cut")  # what is no mistake but of time limits
_NO_ROLLOUT = (
    "advantages are not handed over: probe.rollout(reward=…, value=…, ended=…, last_value=…, "
    "advantage=…, discount=…, trace=…)"
)
_FORMULAS = {
    "cut": "treat time limits as ends: is the value of the last observation added where an "
    "episode is truncated? (A reward that holds it already is to be handed over as it was paid.)",
    **dict.fromkeys(
        ("carried", "crossed"),
        "go on beyond time limits, into the next episode: does the sum end where an episode is "
        "truncated, too, with the value of its last observation added?",
    ),
    "late": "use the ends of one step later: do rewards and dones have the same index? (CleanRL's "
    "dones are those of the observations: of these, GAE uses dones[t + 1] at step t.)",
    "shifted": "use the ends of one step earlier: do rewards and dones have the same index?",
    "unended": "go on beyond the ends of episodes: are dones used?",
    "either": "go on beyond the end of an episode in the rollout's last step: are dones used, each "
    "at the index of its reward?",
    "inverted": "go on at the ends of episodes alone: is the mask of dones inverted?",
    "negated": "have the wrong sign: are they values minus returns?",
    "exchanged": "have γ and λ exchanged: in which order are they given?",
    "unfinished": "end with the rollout: is the value after its last step added?",
}


def recorded_steps(ring: Ring, ended: Tensor) -> tuple[NDArray[np.intp], bool] | None:
    """`Ring.newest` of a rollout's rows, flat."""
    return ring.newest((ended.reshape(-1) > 0).cpu().numpy())


def recorded_ends(ring: Ring, ended: Tensor) -> NDArray[np.bool_] | None:
    """Terminated and truncated [n, 2] of the newest recorded steps, if episodes ended at these, as
    they were handed over; False in rows of resets."""
    found = recorded_steps(ring, ended)
    return ring.ends(found[0]) if found is not None and found[1] else None
