"""The algebra of a critic's targets and of advantages, from the loop's own tensors.

    y = r + γ (1 − d) v                                 γ̂ by least squares of y − r on (1 − d) v
    A_t = r_t + γ (1 − e_t) v_{t+1} − v_t + γ λ (1 − e_t) A_{t+1}      (GAE, arXiv:1506.02438)
    dL/dμ = −w (a − μ)/σ²,   dL/dlogits = −w (1_a − π)        w = −dL/dlog π, up to a constant

The first two hold to rounding, or a mistake with a name does. w = b A + c V + d of the advantage A
and the value V: b > 0 and c = 0 in a sound PPO, c = b with returns in A's place.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from math import isfinite, isnan, nan
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.errors import InputError
from gradlab.probe.alarms.evidence import ADVANTAGE, DISCOUNT, WEIGHTED
from gradlab.probe.parts.recorder import CheckAnswer, off
from gradlab.probe.parts.rows import TRANSFORMED

if TYPE_CHECKING:
    from gradlab.probe.parts.objectives import Pass
    from gradlab.probe.parts.recorder import Ring


_ROUNDING = 1e-3  # of the size of the advantages: float32 leaves 1e-6
_ROUNDINGS = 32  # of float32, of the size of all that a target is made of
_APART = 1e-3  # least singular value of columns of length 1, from which both slopes are read
_OFF = 1e-3  # of γ: (1 − .99²) is ten times as much
ADDED = ("reward", "terminated", "next_value", "target")
_UNDISCOUNTED = 0.99995


@dataclass(frozen=True)
class _Fit:
    """What one batch of targets says.

    Attributes:
        discount: γ̂; rest: what the identity leaves of y − r, as a share of its size.
        mistake: what fits instead, "unread": nothing does; "": nothing is wrong.
    """

    discount: float
    rest: float
    mistake: str = ""


@final
class Algebra:
    """Targets of one-step (or n-step, with γⁿ and summed rewards) fits: what the gravest of all
    looks says, of equal ones the newest."""

    name = "targets are r + γ (1 − d) v"

    def __init__(self) -> None:
        self._found: CheckAnswer | None = None
        self._seen = dict.fromkeys(_GRAVE, 0)

    def take(
        self, reward: Tensor, terminated: Tensor, value: Tensor, target: Tensor,
        discount: float | None,
    ) -> None:  # fmt: skip
        """One batch, as the loop has it."""
        if target.numel() == reward.numel() ** 2 > 1:
            found = _judged(_Fit(nan, nan, "shape"), discount)
        else:
            found = _judged(_of_batch(reward, terminated, value, target), discount)
        self._seen[found.state] += 1
        if self._found is None or _GRAVE[found.state] >= _GRAVE[self._found.state]:
            self._found = found

    def answer(self, *_: object) -> CheckAnswer:
        found, looks = self._found, sum(self._seen.values()) - self._seen["off"]
        if found is None:
            return off(
                "targets are not handed over: probe.batch(reward=…, terminated=…, next_value=…, "
                "target=…, discount=…)"
            )
        some = f"in {self._seen[found.state]} of {looks} looks"
        return replace(found, proof=found.proof.replace(_SOME, some), looks=looks)


def _of_batch(reward: Tensor, terminated: Tensor, value: Tensor, target: Tensor) -> _Fit:
    r, d, v, y = (x.detach().double().reshape(-1) for x in (reward, terminated, value, target))
    sure = _fit(y - r, (1 - d) * v)
    error = _rounding(value, target) * float(y.norm() + r.norm() + v.norm())
    if not error < _OFF * float(((1 - d) * v).norm()) * len(r) ** 0.5:
        return _Fit(nan, nan)  # γ̂ is not read
    limit = error / max(float((y - r).norm()), 1e-300)
    if not sure.rest > limit:
        return sure
    others = {"kept": (y - r, v), "swapped": (y - r, d * v)} if bool((d * v).any()) else {}
    if bool((d * r).any()):
        others["dropped"] = y - (1 - d) * r, (1 - d) * v
    for mistake, each in others.items():
        if (found := _fit(*each)).rest < limit:
            return _Fit(found.discount, found.rest, mistake)
    return replace(sure, mistake="unread")


def _rounding(*given: Tensor) -> float:
    """Of numbers of half precision, by what they are, its root mean square; else several of
    float32's."""
    half = [
        torch.finfo(kind).eps / 12**0.5
        for kind in (torch.float16, torch.bfloat16)
        if any(torch.equal(x, x.to(kind).to(x)) for x in given)
    ]
    return max([_ROUNDINGS * torch.finfo(torch.float32).eps, *half])


def _judged(fit: _Fit, declared: float | None) -> CheckAnswer:
    """What one look says; its number of looks stands for `_SOME`."""
    if fit.mistake == "unread":
        return CheckAnswer(
            "open", f"the given values do not add up to y {_SOME} ({fit.rest:.2g} of y − r is "
            f"left): does the loop add anything outside of γ (1 − d)? Else hand over what it adds "
            f"up, the entropy in next_value", fit.discount, declared or 1.0,
        )  # fmt: skip
    if fit.mistake:
        left = "one target per pair of rows"
        if fit.mistake != "shape":
            left = f"of y − r is left {fit.rest:.1g} {_SOME}"
        return _fault(fit, declared, left, _MISTAKES[fit.mistake])
    if isnan(fit.rest):
        return off("y − r or (1 − d) v is 0 up to rounding in all rows, or a number is not finite")
    meant = None if declared is None else round(declared, 5)
    proof = f"γ̂ = {fit.discount:.5f}, declared {meant}; {fit.rest:.1g} of y − r is left"
    if declared is not None and abs(fit.discount - declared) > _OFF:
        words = f"use γ = {fit.discount:.4f}, not {declared:g}: is γ squared, left out, or γ "
        return _fault(fit, declared, proof, f"{words}in the place of γⁿ?")
    if fit.discount > _UNDISCOUNTED and declared is None:
        return _fault(fit, declared, proof, "use γ = 1: is the discount left out?")
    return CheckAnswer("sound", proof, fit.discount, declared or 1.0)


def _fault(fit: _Fit, declared: float | None, proof: str, words: str) -> CheckAnswer:
    limit = 1.0 if declared is None else declared
    message = f"the critic's targets {words}"
    return CheckAnswer("fault", proof, fit.discount, limit, 0, DISCOUNT, message)


_GRAVE = {"off": 0, "sound": 1, "open": 2, "fault": 3}
_SOME = "in … looks"
_MISTAKES = {
    "shape": "have one number per pair of rows, [B, B]: do reward and value have shapes [B] and "
    "[B, 1]?",
    "kept": "go on beyond terminal states, r + γ v without (1 − d): are terminations stored and "
    "used?",
    "swapped": "go on at terminal states alone, r + γ d v: is the mask of terminations inverted?",
    "dropped": "drop the reward of terminal steps, (r + γ v)(1 − d): is r under the mask, too?",
}


def _fit(left: Tensor, right: Tensor) -> _Fit:
    square = float(right @ right)
    slope = float(left @ right) / square if square > 0 else nan
    size = float(left.norm())
    return _Fit(slope, float((left - slope * right).norm()) / size if size > 0 else nan)


@final
class Advantages:
    """Generalised advantages of a rollout, recomputed."""

    name = "advantages are those of GAE"

    def __init__(self) -> None:
        self._found, self._rest, self.looks = "", nan, 0
        self._factors, self._meant = (nan, nan), (nan, nan)  # γ and λ, of the fit and declared
        self._bare = False  # episodes end, and no value of a last observation was handed over
        self.limits = TimeLimits()

    def take(self, rollout: Rollout, recorded: bool = False) -> None:
        """One rollout, as the loop has it; `recorded`: time limits were seen by `record`."""
        self.looks += 1
        self._meant = rollout.discount, rollout.trace
        self._bare = rollout.final_value is None and bool(rollout.ended.any())
        size = float(rollout.advantage.double().norm())
        rests = {name: float(each.norm()) for name, each in rollout.residuals().items()}
        self._found, self._rest = "", nan
        if size > 0 and all(map(isfinite, (size, *rests.values()))):
            rests = {name: each / size for name, each in rests.items()}
            if not min(rests.values()) < _ROUNDING:
                rests |= rollout.normalised()
                self._factors, rests["factors"] = rollout.factors()
            order = {name: (not rests[name] < _ROUNDING, _ORDER.index(name)) for name in rests}
            self._found = min(rests, key=order.__getitem__)
            self._rest = rests[self._found]
        self._found = self._found.removeprefix(_NORMALISED)
        fits = self._found if self._rest < _ROUNDING else "nothing"
        self.limits.take(rollout, fits, self._rest, recorded)

    def answer(self, *_: object) -> CheckAnswer:
        if not self.looks:
            return off(_NO_ROLLOUT)
        if isnan(self._rest):
            return off("all advantages are 0, or a number that was handed over is not finite")
        if not self._rest < _ROUNDING:
            gamma, trace = self._meant
            also = " Bootstrapped at time limits: hand over truncated= and final_value=, too."
            return CheckAnswer(
                "open", f"{self._rest:.2g} of the advantages is left by GAE of γ = {gamma:g}, "
                f"λ = {trace:g}: changed before they were handed over, or of another formula?"
                f"{also * self._bare}", self._rest, _ROUNDING, self.looks,
            )  # fmt: skip
        if self._found == "late":
            return off(
                "they fit ended of the next step, and at the last one either: hand over whether "
                "step t itself ended an episode, of CleanRL's dones "
                "torch.cat([dones[1:], next_done[None]])"
            )
        proof = f"{self._rest:.1g} of the advantages is left (fault: another formula fits)"
        if self._found in _OF_GAE:
            return CheckAnswer("sound", proof, self._rest, _ROUNDING, self.looks)
        words = _FORMULAS.get(self._found) or _factors(*self._factors, *self._meant)
        return CheckAnswer(
            "fault", proof, self._rest, _ROUNDING, self.looks, ADVANTAGE,
            f"the advantages {words}",
        )  # fmt: skip


@final
class TimeLimits:
    """Is the last observation's value added where a time limit ends an episode?

    By the newest rollout that has one: without truncated= and final_value= GAE fits either way.
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
        added = 0.0
        if rollout.final_value is not None:
            values = rollout.final_value.double() * rollout.truncated.double()
            added = rollout.discount * float(values.norm() / rollout.advantage.double().norm())
        proof = f"{rest:.1g} of the advantages is left (fault: GAE fits without final_value=)"
        if fits == "cut":
            self._answer = CheckAnswer(
                "fault", proof, rest, _ROUNDING, self._looks, ADVANTAGE,
                f"the advantages {_FORMULAS['cut']}",
            )  # fmt: skip
        elif fits not in _OF_GAE:
            self._answer = off("the advantages are not those of GAE")
        elif not added > _ROUNDING:
            self._answer = off(
                "final_value= is missing, or 0 where truncated= is set: hand over the critic's "
                "value of the last observation"
            )
        else:
            self._answer = CheckAnswer("sound", proof, rest, _ROUNDING, self._looks)

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
            "unended": self._left(torch.zeros_like(e)),
            "inverted": self._left(1 - e),
            "negated": replace(self, advantage=-self.advantage)._left(e, final=self.final_value),
            "shifted": self._left(shifted),
            "exchanged": self._left(e, self.trace, self.discount),
            "unfinished": self._left(e, last=torch.zeros_like(self.last_value)),
        }

    def _at_limits(self) -> dict[str, tuple[Tensor, Tensor, Tensor | None]]:
        """GAE, and mistakes at time limits, of which "cut" is none where nothing is to be added: at
        which steps no value follows, from which ones the next advantage is carried on, and what is
        added."""
        e, final = self.ended.double(), self.final_value
        limit = torch.zeros_like(e) if self.truncated is None else (self.truncated > 0).double()
        e, on = torch.maximum(e, limit), 1 - e * (1 - limit)
        found: dict[str, tuple[Tensor, Tensor, Tensor | None]] = {}
        if final is not None:
            found[""] = e, 1 - e, final
        found["cut"] = e, 1 - e, None
        # Without final_value= the value after the step may be that of the last observation.
        if final is not None and bool(limit.any() and final.any()):
            found |= {"carried": (e, on, final), "crossed": (1 - on, on, None)}
        return found

    def _late(self, e: Tensor) -> Tensor:
        """Of flags that belong to the state before a step; those of the last one are not known. No
        mistake of the loop's, and where a rollout has no other end not to be told from one."""
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
    if abs(gamma - meant) > _OFF:
        return (
            f"are those of γ = {gamma:.4f} and λ = {trace:.4f}, not of {meant:g} and {carried:g}: "
            f"which numbers does the loop use?"
        )
    named = {"λ²": carried**2, "γ²": meant**2, "λ": carried, "γ": meant}
    found = gamma * trace
    name = next((f", {name}," for name, each in named.items() if abs(found - each) < _OFF), "")
    return (
        f"carry the next one on by {found:.4f}{name} where γλ is {meant * carried:.4f}: by which "
        f"factors is it multiplied?"
    )


_NORMALISED = "normalised "
_ORDER = (
    "", _NORMALISED, "cut", f"{_NORMALISED}cut", "late", "shifted", "carried", "crossed",
    f"{_NORMALISED}carried", f"{_NORMALISED}crossed", "unended", "inverted", "negated", "exchanged",
    "unfinished", "factors",
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
    "shifted": "use the ends of one step earlier: do rewards and dones have the same index?",
    "unended": "go on beyond the ends of episodes: are dones used?",
    "inverted": "go on at the ends of episodes alone: is the mask of dones inverted?",
    "negated": "have the wrong sign: are they values minus returns?",
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
            made = torch.as_tensor(each).detach()
            found[name] = made.float() if made.dtype == torch.bfloat16 else made  # NumPy has none
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
                f"{tuple(reward.shape)}; of quantiles, their mean"
            )


LOOKS, ROWS, LEAST = 10, 256, 16  # minibatches; rows of one, and the fewest
WRONG, SOUND = -0.5, 0.35  # correlation: sound loops .35 and more, a wrong sign under −.7
_UNREAD = (
    "are they in the order of the observations, and does the loop scale actions by itself? Move "
    "such a scale into a wrapper inside of record"
)
BESIDE = 2.0  # of what a neighbour's advantage leaves of the weights: the own leaves less in theory
VALUED, SEEN = 0.5, 0.2  # c/b, and the spread of V over that of A from which it can be seen
EQUAL, SAME = 0.95, 1e-4  # of the rollout's rewards; relative
_Array = NDArray[np.float64]


@final
class LossWeights:
    """Does the policy's loss weigh actions by their advantages?"""

    name = "actions are weighed by their advantages"

    def __init__(self) -> None:
        self._ring: Ring | None = None
        self._columns: _Array = np.zeros((0, 4))  # A_t, V_t, A_{t−1}, A_{t+1}, by place in the ring
        self._held: NDArray[np.intp] = np.zeros(0, np.intp)  # places of the newest rollout
        self._limits: _Array = np.full((2, 0), nan)  # of actions that are cut off, [2, d_a]
        self._seen: deque[tuple[float, ...]] = deque(maxlen=LOOKS)
        self._looks = 0
        self._still: deque[int] = deque(maxlen=LOOKS)  # actions without a gradient; −1: none
        self._reason = (
            "no rollout was handed over in a recorded environment: probe.rollout(…), in loops with "
            "advantages"
        )

    @property
    def ready(self) -> bool:
        return self._ring is not None

    def beside(self, observations: Tensor) -> tuple[_Array, float]:
        """A and V of these rows, [K, 2], NaN where unknown; and the deviation of all A."""
        assert self._ring is not None
        places = self._ring.places(observations.cpu().numpy())
        found = np.where(places[:, None] >= 0, self._columns[places, :2], nan)
        return found, float(np.nanstd(self._columns[self._held, 0], ddof=1))

    def take(self, rollout: Rollout, ring: Ring) -> None:
        """The advantages of the newest steps."""
        count = rollout.reward.numel()
        places = np.arange(ring.count - count, ring.count) % ring.size
        paid, stored = ring.rewards(places), rollout.reward.reshape(-1).cpu().numpy()
        scale = max(float(np.abs(paid).max(initial=0.0)), 1e-12)
        if count > ring.count or np.mean(np.abs(paid - stored) <= SAME * scale) < EQUAL:
            self._ring = None
            self._reason = (
                "the rollout's rewards are not those of the newest recorded steps, in their order: "
                "record outside of wrappers that scale, env = probe.record(Normalise(env)), move a "
                "scale of the loop's own into one, and reset in the step that ends an episode"
            )
            return
        if len(self._columns) != ring.size:
            self._columns = np.full((ring.size, 4), nan)
        self._columns[self._held], self._held = nan, places
        self._ring = ring
        advantage, value = (x.double().cpu().numpy() for x in (rollout.advantage, rollout.value))
        beside = [_shifted(advantage, by) for by in (1, -1)]
        late = [_shifted(stored.reshape(advantage.shape), by).reshape(-1) for by in (1, -1)]
        if any(np.mean(np.abs(paid - each) <= SAME * scale) >= EQUAL for each in late):
            beside = [nan * each for each in beside]  # rewards do not say which step is which
        self._columns[places] = np.stack([advantage, value, *beside], -1).reshape(-1, 4)
        self._limits = _limits(ring.actions(places))

    def after(self, made: Pass | None) -> None:
        """The actor has stepped by the gradient that has arrived at the pass."""
        if self._ring is None or made is None:
            return
        rows = made.calls[0].args[0][:ROWS].cpu().numpy()
        places = self._ring.places(rows)
        found = np.flatnonzero(places >= 0)
        found = found[np.isfinite(self._columns[places[found], 0])]
        if len(found) < LEAST:
            sequences = "the policy is called at sequences of observations, not at one of each row"
            self._reason = TRANSFORMED if self._ring.fits(rows) else sequences
            return
        actions, columns = self._ring.actions(places[found]), self._columns[places[found]]
        # A loop may scale actions to their limits by itself: the reading that explains more counts.
        ends = np.abs(self._limits).max(0)
        scales = (np.ones_like(ends), ends) if (ends > 0).all() else (np.ones_like(ends),)
        readings = [
            _weights(made, found, actions / scale, self._limits / scale) for scale in scales
        ]
        kept = [each for each in readings if each is not None]
        if not kept:
            self._reason = "no output of the policy is a mean of its actions, or their logits"
            return
        self._still.append(_still(made, actions))
        weights, read = max(kept, key=lambda each: _explained(each[0], each[1], columns))
        if read.sum() < LEAST:
            self._reason = "nearly all actions are cut to their limits: those drawn are not known"
            return
        weights, columns = weights[read], columns[read]
        spread = columns.std(0)
        if not (np.ptp(weights) > 0 and spread[0] > 0):
            return
        self._looks += 1
        correlation = float(np.corrcoef(weights, columns[:, 0])[0, 1])
        beside = [_left_over(weights, columns[:, 0], each) for each in columns[:, 2:].T]
        valued = nan
        if spread[1] > SEEN * spread[0]:
            free = weights != 0  # those that are clipped are 0
            both = np.column_stack([columns[:, :2], np.ones(len(columns))])[free]
            (slope, own, level), *_ = np.linalg.lstsq(both, weights[free], rcond=None)
            left = weights[free] - both @ (slope, own, level)
            explained = left.var() < weights[free].var() / 2  # else the weights are other rows'
            valued = float(own / slope) if slope > 0 and explained else nan
        self._seen.append((correlation, valued, *beside))

    def answer(self, *_: object) -> CheckAnswer:
        if not self._seen:
            return off(self._reason)
        seen = np.array(self._seen)
        correlation, known = float(seen[:, 0].mean()), seen[np.isfinite(seen[:, 1]), 1]
        valued, least = nan, LOOKS // 2 + 1
        share = (
            f"not read: {len(known)} minibatches of {least} in which values vary, and weights rise "
            f"with the advantages"
        )
        if len(known) >= least:
            valued = float(np.median(known))
            share = f"{valued:.2f} (fault: above {VALUED})"
        proof = (
            f"correlation {correlation:.2f} (fault: under {WRONG}), share of the value {share}, "
            f"{len(seen)} minibatches of {LOOKS}"
        )
        if len(self._still) == LOOKS and min(self._still) == max(self._still) >= 0:
            proof = f"of no row in {LOOKS} minibatches; {proof}"
            return CheckAnswer(
                "fault", proof, correlation, WRONG, self._looks, WEIGHTED,
                f"the policy's loss sends nothing to the mean of action {self._still[0] + 1}, of "
                f"which there are {self._limits.shape[1]}: is log π summed over all of them, and "
                f"does a clip of the mean let its gradient through?",
            )  # fmt: skip
        if len(seen) < LOOKS:
            return CheckAnswer("waiting", proof, correlation, WRONG, self._looks)
        if correlation < WRONG:
            return CheckAnswer(
                "fault", proof, correlation, WRONG, self._looks, WEIGHTED,
                "the policy's loss makes actions of larger advantage less likely: is its sign "
                "right, and is the ratio the new probability over the old?",
            )  # fmt: skip
        before, after = np.exp(np.log(seen[:, 2:]).mean(0))
        if max(before, after) > BESIDE:
            where = "before" if before > after else "after"
            return CheckAnswer(
                "fault", proof, max(before, after), BESIDE, self._looks, WEIGHTED,
                f"the policy's loss weighs actions by the advantages of the step {where}: where "
                f"do rows move between the rollout and the loss?",
            )  # fmt: skip
        if valued > VALUED:
            return CheckAnswer(
                "fault", proof, valued, VALUED, self._looks, WEIGHTED,
                "the policy's loss weighs actions by raw returns, not by advantages: is the value "
                "subtracted as a baseline?",
            )  # fmt: skip
        if correlation < SOUND:
            proof += f"; the loss weighs actions by something else: {_UNREAD}"
            return CheckAnswer("open", proof, correlation, WRONG, self._looks)
        return CheckAnswer("sound", proof, correlation, WRONG, self._looks)


def _still(made: Pass, actions: _Array) -> int:
    """The first action, of several that vary, to whose mean no row of a loss sends anything."""
    shapes = {k: each.shape for k, each in enumerate(made.outputs)}
    sent = [g for k, g in made.arrived.items() if shapes[k][1:] == actions.shape[1:]]
    if len(sent) != 1:  # σ of every state is an output, too: which of both is the mean?
        return -1
    nothing = (sent[0] == 0).all(0).cpu().numpy()
    found = np.flatnonzero(nothing & (np.ptp(actions, axis=0) > 0))
    return int(found[0]) if len(found) and not nothing.all() else -1


def _explained(weights: _Array, read: NDArray[np.bool_], columns: _Array) -> float:
    """The largest |correlation| of the weights with the advantages, own or a neighbour's."""
    left = [_correlation(weights[read], each) for each in columns[read][:, [0, 2, 3]].T]
    return float(np.nanmax(np.abs([0.0, *left])))


def _shifted(values: _Array, by: int) -> _Array:
    """Of every step the value of the one before (1) or after (−1); NaN where there is none."""
    moved = np.roll(values.astype(float), by, 0)
    moved[0 if by > 0 else -1] = nan
    return moved


def _correlation(weights: _Array, others: _Array) -> float:
    """NaN: fewer than `LEAST` are known, or they do not vary."""
    known = np.isfinite(others)
    varied = known.sum() >= LEAST and min(np.ptp(x[known]) for x in (weights, others)) > 0
    return float(np.corrcoef(weights[known], others[known])[0, 1]) if varied else nan


def _left_over(weights: _Array, own: _Array, others: _Array) -> float:
    """1 − r² of the weights with their own advantages over that with others'; NaN: not known."""
    known = np.isfinite(others)
    r = np.array([_correlation(weights[known], each[known]) for each in (own, others)])
    mine, its = np.maximum(1 - r * np.abs(r), _ROUNDING)  # of a wrong sign nothing is explained
    return float(mine / its)


def _limits(actions: _Array) -> _Array:
    """Least and largest number of each column that comes twice, [2, d_a]; NaN: drawn freely."""
    ends = np.stack([actions.min(0), actions.max(0)])
    whole = (actions == np.round(actions)).all(0)  # of discrete actions there is none
    return np.where(((actions == ends[:, None]).sum(1) > 1) & ~whole, ends, nan)


def _weights(
    made: Pass, rows: NDArray[Any], actions: _Array, limits: _Array
) -> tuple[_Array, NDArray[np.bool_]] | None:
    """w of these rows, and where it is read: some column of the action is not cut to a limit.

    The mean of the actions is the output that is nearest to them when it is cut, too; a scale that
    is the same in all states may be as near, and is none.
    """
    found: list[tuple[tuple[bool, float], Tensor, Tensor]] = []
    read = ~(actions[:, None] == limits).any(1)
    whole = np.array_equal(actions, np.round(actions)) and bool((actions >= 0).all())
    discrete = whole and actions.shape[1] == 1
    for k, output in enumerate(made.outputs):
        gradient = made.arrived.get(k)
        if gradient is None or output.ndim != 2:
            continue
        mean, g = (x[:ROWS][rows].detach().double().cpu() for x in (output, gradient))
        if mean.shape == actions.shape:
            gap = (torch.as_tensor(actions) - mean) * torch.as_tensor(read)
            score = gap / (gap**2).mean(0).clamp_min(1e-12)
            near = actions - np.fmin(np.fmax(mean.numpy(), limits[0]), limits[1])
            same = bool((mean == mean[0]).all())
            found.append(((same, float((near**2).mean())), g, score))
        elif discrete and mean.shape[1] > 1 and bool((actions < mean.shape[1]).all()):
            chosen = torch.nn.functional.one_hot(torch.as_tensor(actions[:, 0]).long(), len(g[0]))
            found.append(((False, 0.0), g, chosen - mean.softmax(1)))
    if not found:
        return None
    _, g, score = min(found, key=lambda each: each[0])
    # −dL/dlog π of every row, by least squares of its gradient on that of log π.
    slope = -(g * score).sum(1) / (score**2).sum(1).clamp_min(1e-12)
    return slope.numpy(), read.any(1)
