"""The algebra of a critic's targets, from the loop's own tensors.

    y = r + γ (1 − d) v                                 γ̂ by least squares of y − r on (1 − d) v

It holds to rounding, or a mistake with a name does. dL/dQ_i rises with Q_i − y_i; where a loss has
shape [B, B] it rises with Q_i alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.probe.alarms.evidence import DISCOUNT
from gradlab.probe.critics import by_row, pairwise
from gradlab.probe.parts.recorder import CheckAnswer, off

if TYPE_CHECKING:
    from gradlab.probe.parts.passes import Heard

_ROUNDINGS = 32  # of float32, of the size of all that a target is made of
OFF = 1e-3  # of γ: (1 − .99²) is ten times as much
ADDED = ("reward", "terminated", "next_value", "target")
_UNDISCOUNTED = 0.99995


@dataclass(frozen=True)
class _Fit:
    """What one batch of targets says.

    Attributes:
        discount: γ̂; rest: what the identity leaves of y − r, as a share of its size.
        mistake: what fits instead, "alike": one discount where rows have several, "scaled": another
            reward, "unread": nothing does; "": nothing is wrong.
        scale: of r, where it is scaled.
    """

    discount: float
    rest: float
    mistake: str = ""
    scale: float = 1.0


@final
class Algebra:
    """Targets of one-step (or n-step, with γⁿ and summed rewards) fits: what the gravest of all
    looks says, of equal ones the newest."""

    name = "targets are r + γ (1 − d) v"

    def __init__(self) -> None:
        self._found: CheckAnswer | None = None
        self._seen = dict.fromkeys(_GRAVE, 0)
        self._target: Tensor | None = None  # of the newest batch, [B], until the critic steps
        self._paired: deque[bool] = deque(maxlen=_PAIRS)  # whether a loss pairs all rows with all
        self._levels: deque[float] = deque(maxlen=_PAIRS)  # what all rows are pulled to, or NaN
        self.stored: tuple[Tensor, Tensor] | None = None  # observations that were handed over
        # Observations of a target network's last calls, and what it gave where that is a tensor.
        self._said: deque[tuple[Tensor, Tensor | None]] = deque(maxlen=4)
        self._value: Tensor | None = None  # of the newest batch, until the critic steps
        # Correlation of the values with what the targets say of their rows; NaN: all are the same.
        self._alike: deque[float] = deque(maxlen=_PAIRS)
        # Which of critic and target got what was stored, where it is one of both alone.
        self._forms: deque[str] = deque(maxlen=_PAIRS)
        self._spreads: deque[float] = deque(maxlen=_PAIRS)  # of rewards around 0; NaN: of others

    def take(
        self, reward: Tensor, terminated: Tensor, value: Tensor, target: Tensor,
        discount: float | None, one: Tensor | None = None,
    ) -> None:  # fmt: skip
        """One batch, as the loop has it; `one`: the values, where those of every row are in
        `value` times its discount over that of most."""
        fit = _Fit(nan, nan, "shape")
        if target.numel() != reward.numel() ** 2 or target.numel() == 1:
            fit = _of_batch(reward, terminated, value, target)
            if fit.mistake == "unread" and one is not None and one is not value:
                again = _of_batch(reward, terminated, one, target)
                fit = fit if again.mistake else replace(again, mistake="alike")
        found = _judged(fit, discount)
        self._seen[found.state] += 1
        self._spreads.append(_spread_around_0(reward))
        self._value = value.reshape(-1)
        self._target = target.reshape(-1) if target.numel() == reward.numel() else None
        if self._found is None or _GRAVE[found.state] >= _GRAVE[self._found.state]:
            self._found = found

    def hear(self, calls: Sequence[Heard]) -> None:
        """Calls of critics with gradients, before the step of an optimiser."""
        self._compare(calls)
        seen = [] if self._target is None else _paired(calls, self._target)
        if seen:
            self._target = None
            self._paired.append(any(seen))
        else:
            self._level(calls)

    def hear_target(self, module: nn.Module, args: Any, output: Any) -> None:
        """A critic's target has been called."""
        if args and isinstance(args[0], Tensor) and args[0].ndim == 2:
            given = output.detach() if isinstance(output, Tensor) else None
            self._said.append((args[0].detach(), given))

    def _compare(self, calls: Sequence[Heard]) -> None:
        """Whether critic and target are called at observations as they were stored, or none is; and
        whether the values rise with what the target says there."""
        stored, value, said = self.stored, self._value, [*self._said]
        self.stored = self._value = None
        self._said.clear()
        if stored is None or not said:
            return
        if value is not None:
            heads = [
                by_row(x, len(value)) for s, x in said
                if x is not None and _as_stored(s, stored[1]) == 1.0
            ]  # fmt: skip
            few = [each for each in heads if each is not None and each.shape[1] <= _HEADS]
            self._alike.extend(_correlated(value, torch.cat(few, 1)) if few else ())
        fitted = [_as_stored(call.args[0], stored[0]) for call in calls if not call.own]
        own = max((each for each in fitted if not isnan(each)), default=nan)
        its = _as_stored(said[-1][0], stored[1])
        if not isnan(own + its):
            apart = {(1.0, 0.0): "critic", (0.0, 1.0): "target"}
            self._forms.append(apart.get((own, its), ""))

    def _level(self, calls: Sequence[Heard]) -> None:
        """Where no target of these rows is handed over: a loss of all pairs pulls all values to one
        number."""
        for call in calls:
            for k, sent in ({} if call.own else call.arrived).items():
                values, gradient = (by_row(x, len(call.args[-1])) for x in (call.outputs[k], sent))
                if values is not None and gradient is not None and values.shape[1] == 1:
                    self._levels.append(pulled_to(values[:, 0], gradient[:, 0]))

    def answer(self, *_: object) -> CheckAnswer:
        for form, other in (("critic", "target networks"), ("target", "critic")):
            if (times := self._forms.count(form)) > _PAIRS // 2:
                given = "observations" if form == "critic" else "next observations"
                return CheckAnswer(
                    "open", f"the {form} gets stored {given} as they are, the {other} other "
                    f"numbers, in {times} of {len(self._forms)} looks: are both normalised, or "
                    "none?", looks=len(self._forms),
                )  # fmt: skip
        levels = torch.tensor(self._levels if len(self._levels) == _PAIRS else [nan])
        varied = float(levels.max() - levels.min()) > _VARIED * float(levels.abs().max())
        good = self._found is None or self._found.state == "sound"
        if good and varied:  # of a NaN, of several targets, nothing is larger
            return CheckAnswer(
                "open", f"its loss pulls all values of a batch to one number, in {_PAIRS} of "
                f"{_PAIRS} looks: do values and targets have shapes [B] and [B, 1] in it?",
                looks=_PAIRS,
            )  # fmt: skip
        spreads = torch.tensor(self._spreads if len(self._spreads) == _PAIRS else [nan])
        if good and float(spreads.max() - spreads.min()) < _VARIED * float(spreads.max()):
            return CheckAnswer(
                "open", f"rewards have mean 0 and deviation {spreads.max():.2g} in every batch, in "
                f"{_PAIRS} of {_PAIRS} looks: standardised by batch, what a step is worth depends "
                "on the other rows. Standardise by running statistics?", looks=_PAIRS,
            )  # fmt: skip
        alike = torch.tensor(self._alike).nan_to_num()
        if good and len(alike) == _PAIRS and not float(alike.mean()) > _RISES:
            if all(map(isnan, self._alike)):
                proof = f"all rows of a batch have one value, in {_PAIRS} of {_PAIRS} looks"
                return _fault(_Fit(nan, nan), None, proof, _MISTAKES["one"])
            return CheckAnswer(
                "open", f"values do not rise with what the targets say of their rows, in {_PAIRS} "
                f"of {_PAIRS} looks: is the minimum over critics taken over the batch, too?",
                looks=_PAIRS,
            )  # fmt: skip
        if len(self._paired) == _PAIRS and 2 * sum(self._paired) > _PAIRS:
            proof = (
                f"dL/dQ rises with Q whatever a row's target is, in {sum(self._paired)} of "
                f"{_PAIRS} looks (fault: half)"
            )
            fit = _Fit(nan, nan)
            return _fault(fit, None, proof, _MISTAKES["pairs"])
        found, looks = self._found, sum(self._seen.values()) - self._seen["off"]
        if found is None:
            return off(
                "targets are not handed over: probe.batch(reward=…, terminated=…, next_value=…, "
                "target=…, discount=…)"
            )
        some = f"in {self._seen[found.state]} of {looks} looks"
        return replace(found, proof=found.proof.replace(_SOME, some), looks=looks)


def _spread_around_0(reward: Tensor) -> float:
    """Deviation of rewards whose mean is 0 up to rounding; NaN of others, and of few."""
    r = reward.detach().double().reshape(-1)
    spread = float(r.std()) if len(r) >= _ROWS else nan
    return spread if abs(float(r.mean())) < _FREE * spread else nan


def _correlated(value: Tensor, heads: Tensor) -> tuple[float, ...]:
    """The largest correlation of values [B] with columns [B, K] that vary, or their mean; NaN where
    the values are one number, other than 0; () where nothing can be said."""
    v, said = value.double().cpu(), heads.double().cpu()
    said = torch.cat([said, said.mean(1, keepdim=True)], 1)
    apart, spread = v - v.mean(), said - said.mean(0)
    free = spread.abs().amax(0) > _FREE * said.abs().amax(0)
    if len(v) < _ROWS or not free.any() or not bool(v.isfinite().all() and said.isfinite().all()):
        return ()
    if bool((v == v[0]).all()):
        return (nan,) if bool(v.any()) else ()
    spread = spread[:, free] / spread[:, free].norm(dim=0)
    return (float((apart @ spread).max() / apart.norm()),)


def _as_stored(given: Tensor, stored: Tensor) -> float:
    """1: rows begin with the numbers of the stored ones; 0: none does; NaN: some, or they are not
    as many."""
    if given.ndim != 2 or stored.ndim != 2 or len(given) != len(stored):
        return nan
    width = stored.shape[1]
    if given.shape[1] < width:
        return nan
    same = (given[:, :width] == stored.to(given)).all(1).double().mean()
    return 1.0 if same > _MOST else nan if same > 0 else 0.0


def _paired(calls: Sequence[Heard], target: Tensor) -> list[bool]:
    """Whether a loss compares values with the targets of all rows, by outputs of these rows."""
    seen = []
    for call in calls:
        for k, sent in ({} if call.own else call.arrived).items():
            values, gradient = (by_row(x, len(target)) for x in (call.outputs[k], sent))
            if values is not None and gradient is not None:
                columns = zip(values.T, gradient.T, strict=True)
                paired = [pairwise(q, g, target) for q, g in columns]
                known = [each for each in paired if each is not None]
                seen += [all(known)] if known else []  # of logits some rise with themselves
    return seen


def pulled_to(values: Tensor, gradient: Tensor) -> float:
    """m of a gradient c (V − m), c > 0, in all rows; NaN where it is another one, or V is one."""
    V, g = (x.detach().double().cpu() for x in (values, gradient))
    apart, sent = V - V.mean(), g - g.mean()
    if len(V) < _ROWS or not float(apart.norm()) > _VARIED * float(V.norm()):
        return nan
    slope = float(apart @ sent / (apart @ apart))
    left = float((sent - slope * apart).norm())
    known = slope > 0 and left < _SAME * float(sent.norm())
    return float(V.mean() - g.mean() / slope) if known else nan


def _of_batch(reward: Tensor, terminated: Tensor, value: Tensor, target: Tensor) -> _Fit:
    r, d, v, y = (x.detach().double().reshape(-1) for x in (reward, terminated, value, target))
    sure = _fit(y - r, (1 - d) * v)
    error = _rounding(value, target) * float(y.norm() + r.norm() + v.norm())
    if not error < OFF * float(((1 - d) * v).norm()) * len(r) ** 0.5:
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
    both = torch.stack([r, (1 - d) * v], 1)
    scale, discount = torch.linalg.lstsq(both, y[:, None]).solution[:, 0].tolist()
    left = float((y - both @ both.new_tensor([scale, discount])).norm())
    if left < error and len(r) > 2:
        return _Fit(discount, left / float((y - r).norm()), "scaled", scale)
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
    if fit.mistake == "scaled":
        return CheckAnswer(
            "open", f"y = {fit.scale:.3g} r + {fit.discount:.4g} (1 − d) v {_SOME}: is the reward "
            f"scaled where targets are made? Where that is meant, hand over the scaled one",
            fit.discount, declared or 1.0,
        )  # fmt: skip
    if fit.mistake:
        left = "one target per pair of rows"
        if fit.mistake != "shape":
            left = f"of y − r is left {fit.rest:.1g} {_SOME}"
        return _fault(fit, declared, left, _MISTAKES[fit.mistake].format(fit.discount))
    if isnan(fit.rest):
        return off("y − r or (1 − d) v is 0 up to rounding in all rows, or a number is not finite")
    meant = None if declared is None else round(declared, 5)
    proof = f"γ̂ = {fit.discount:.5f}, declared {meant}; {fit.rest:.1g} of y − r is left"
    if declared is not None and abs(fit.discount - declared) > OFF:
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
_PAIRS, _MOST = 10, 0.9  # looks; of a batch, rows that are as stored
_FREE = 1e-5  # of a size: many times what rounding leaves
_HEADS, _RISES = 16, 0.25  # outputs of a value, of more it is a distribution; mean correlation
_ROWS, _SAME, _VARIED = 16, 1e-3, 1e-3  # of a batch; of a gradient, rounding; of a size
_MISTAKES = {
    "pairs": "are compared with the values of all rows, [B, B]: do values and targets have shapes "
    "[B] and [B, 1] in the critic's loss?",
    "one": "take one value for all rows of a batch: is the minimum over critics taken over the "
    "batch, too, q.min() in the place of q.min(0)?",
    "shape": "have one number per pair of rows, [B, B]: do reward and value have shapes [B] and "
    "[B, 1]?",
    "alike": "use γ = {:.4f} in every row, where those handed over differ: is γ in the place of "
    "γⁿ, or γⁿ where an episode ended sooner?",
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
