"""What the loop's critic says of recorded steps: the reward that it has learnt, and the values
that a rollout takes from it.

    r̂ = Q(s, a) − γ (1 − d) v          b = Σ r̂ r / (s Σ r²),    s = |Σ (y − γ (1 − d) v) r| / Σ r²

v is the target network's value as the loop adds it up, r what the environment paid; s, where
targets are handed over, is the scale that the loop gives to rewards. Q is what the loop itself
computed for these rows; a module that makes Q of the critic is asked, where it gives the critic
what the loop does. A critic lags its returns by thousands of updates, but not this: sound loops
reach .64 to 1.03 by update 100, a flipped reward −1, a lost one 0. Sound ones that are slow are at
.03 then and at .06 by update 800, or at −.05 from update 200 to 400 and at .6 by update 1,000.

    final_value = V(o_T),   last_value = V(o_now)      not V of the next reset, or of o_{T−1}

V is asked where it gives back the handed-over values of the newest recorded steps to rounding.

    dL/dV = c (V − v − A)              what the loss pulls V to, beside a rollout's v and A

Where V is v still, as in one pass over each rollout, c cannot be read, and A may be normalised.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.probe.alarms.evidence import ADVANTAGE, IMPLIED
from gradlab.probe.critics import by_row, pairwise
from gradlab.probe.isolation import undisturbed
from gradlab.probe.parts.advantages import recorded_steps
from gradlab.probe.parts.matched import Matched
from gradlab.probe.parts.objectives import CHANGING, UNROWED
from gradlab.probe.parts.passes import Heard, Pass, Twin, outputs_by_row, several
from gradlab.probe.parts.recorder import CheckAnswer, off
from gradlab.probe.parts.rows import ENDS, UNRECORDED

if TYPE_CHECKING:
    from gradlab.probe.parts.advantages import Rollout
    from gradlab.probe.parts.loss_weights import LossWeights
    from gradlab.probe.parts.recorder import Ring

FIRST, APART, TIMES = 200, 100, 3  # updates: before the first verdict, and between two; in a row
_Array = NDArray[np.float64]
_DIVERGED = "the critic's values have diverged: does another alarm say why?"
LOW, HIGH = 0.3, 2.0  # b, below and above which nothing is sound
RISES = 0.05  # of b, from the first to the last
_NOTHING = 0.02  # b, above which a critic has learnt something of it
_SLOW = 1000  # updates by which a critic, however slow, is above it
_SCALED = 0.05  # s, from which it is one
_HALF, _ALIGNED = 0.5, 0.7  # of a critic's variance; correlation with its targets
_UNREAD = (
    "the critic's mean output is no value on the scale of its targets, as where it gives logits or "
    "normalised values: probe.networks(critic=…, target=…), the critic as a module that gives "
    "Q(s, a), [B]"
)
_UNHEARD = (
    "no call of the critic, as a module and at tensors, is seen between probe.batch and its step"
)
_ELSEWHERE = (
    "the critic is called at other rows than those handed over, or at observations and actions "
    "that are both transformed: hand over action= as the critic gets it"
)
_FOREIGN = (
    "the values that targets add are not those of what comes next: do the target networks get "
    "observations as the critic gets them, normalised or not?"
)
_ROWS, _ALIKE, _VARIED = 16, 2e-5, 50  # steps; of the largest value: rounding; times as far apart
_MOST = 0.9  # of the newest ends
RESET, BEFORE = "next episode's first observation", "observation before the last step"
_NEITHER = "neither"
_LOOK = {
    "final_value": 'is info["final_obs"] what it is asked for where an episode is truncated?',
    "last_value": "is it asked for the observation after the last step?",
}
_LINE, _ABOUT, _MOVED = 1e-3, 0.02, 1e-3  # of g that is left; of a factor; V − v in deviations of A
_OWN = 0.5  # of the spread of values, from which an output of the policy may be apart
_NORMALISED = "normalised advantages plus values"
_ALONE = "advantages without the values"
_PAIRS = "the targets of all rows at once, [B, B]"
_OTHER = (
    "the loss does not pull V to v + A of the rollout: other targets, or another loss than a square"
)
_AT_REST = (
    "V is still that of the rollout where its loss is seen, as in one pass over each (A2C): values "
    "are in what it is fitted to; whether advantages are normalised in it cannot be read"
)
_FEW = (
    f"fewer than {_ROWS} rows that a critic is fitted on are found in the rollout, or V, value and "
    f"advantages vary too little in them"
)
_PART = 1e-3  # of a critic's largest input: by what a normaliser moves meanwhile
_BATCHES, _EARLIER = 10, 100  # of a verdict, looks; updates before the first one


@dataclass(frozen=True)
class _Batch:
    """Rows that were handed over, [B, …], and of those `at` places that are recorded numbers, [K].

    Attributes:
        state, action: one line each; paid, used: rewards, and those in the targets.
        follows: γ (1 − d) v.
    """

    observation: Tensor
    state: Tensor
    action: Tensor
    at: NDArray[np.intp]
    paid: _Array
    used: _Array
    follows: _Array
    update: int

    def place(self, args: Sequence[Tensor]) -> tuple[int, int] | None:
        """How surely they are in this call, and where they begin: by observation and action, by
        actions that tell them apart, or by observation beside scaled actions."""
        head, last = _wide(args[0]), _wide(args[-1])
        rows, found = len(self.action), list[tuple[int, int]]()
        several = len(torch.unique(self.action, dim=0)) >= min(_ROWS, rows)
        for begin in range(0, min(len(head), len(last)) - rows + 1, rows):
            state = head[begin : begin + rows, : self.state.shape[1]]
            action = last[begin : begin + rows, -self.action.shape[1] :]
            seen, sent = (_same(*two) for two in ((state, self.state), (action, self.action)))
            if (sent and (seen or several)) or (seen and _on_lines(action, self.action)):
                found.append((sent + (sent and seen), begin))
        return max(found, default=None)


@final
class Implied:
    """Has the critic learnt the reward that the environment pays?"""

    name = "the critic's implied reward is the paid one"

    def __init__(self) -> None:
        self._twins: dict[nn.Module, Twin] = {}
        self._batch: _Batch | None = None
        self._calls: Sequence[Heard] = ()  # of critics, since the window began
        self._sums: list[tuple[float, float, float]] = []  # r̂ r, r², r_used r of batches
        self._verdicts: list[float] = []
        self._next, self._looks = FIRST, 0
        self._reason = UNRECORDED

    def begin(self) -> None:
        """A window; what belongs to the last one is let go."""
        self._batch, self._calls = None, ()

    def take(
        self, rows: Matched, given: Mapping[str, Tensor], discount: float | None,
        critics: Sequence[nn.Module], update: int,
    ) -> None:  # fmt: skip
        """One batch before the critic's step."""
        needed = ("action", "terminated", "next_value")
        lacking = [name for name in needed if name not in given]
        lacking += ["discount"] if discount is None else []
        if lacking:
            self._reason = f"probe.batch does not hand over {', '.join(lacking)}"
            return
        if not critics:
            self._reason = "the critic is not known: probe.networks(critic=…, target=…)"
            return
        paid = rows.paid()
        if not paid.any():
            self._reason = "no recorded row is found in the batch, or none has a reward"
            return
        if given["next_value"].numel() != len(given["observation"]):
            self._reason = "next_value has not one number of each row: hand over what is added up"
            return
        assert discount is not None
        if update < FIRST - _EARLIER:
            return
        d, v = (_flat(given[name])[rows.at] for name in ("terminated", "next_value"))
        follows, used = discount * (1 - d) * v, paid
        if "target" in given and given["target"].numel() == given["next_value"].numel():
            used = _flat(given["target"])[rows.at] - follows
        state, action = (_wide(given[name]) for name in ("observation", "action"))
        self._reason = _UNHEARD
        self._batch = _Batch(
            given["observation"], state, action, rows.at, paid, used, follows, update
        )
        self.hear(self._calls, critics)

    def hear(self, calls: Sequence[Heard], critics: Sequence[nn.Module]) -> None:
        """Calls of critics with gradients, before the step of an optimiser."""
        batch = self._batch
        self._calls = calls or self._calls
        if batch is None or not calls:
            return
        with undisturbed(), torch.no_grad():
            values = [each for one in critics if (each := self._value(one, batch)) is not None]
        if not values:
            return
        self._batch = None
        paid, used, follows = batch.paid, batch.used, batch.follows
        value = np.mean([_flat(each.mean(1))[batch.at] for each in values], axis=0)
        single = all(each.shape[1] == 1 for each in values)
        fixed = not any(isinstance(m, CHANGING) for each in critics for m in each.modules())
        if not _read(value, paid, used, follows, single and fixed):
            self._reason = _UNREAD
            return
        sums = float((value - follows) @ paid), float(paid @ paid), float(used @ paid)
        if not np.isfinite(sums).all():
            self._reason = "values of the critic, or its targets, are not finite"
            return
        self._sums.append(sums)
        self._sums, self._looks = self._sums[-_BATCHES:], self._looks + 1
        if batch.update >= self._next and len(self._sums) == _BATCHES:
            self._next = batch.update + APART
            self._verdicts = [*self._verdicts, self._share][-TIMES:]

    def _value(self, critic: nn.Module, batch: _Batch) -> Tensor | None:
        """All that it gives for the handed rows, [B, K]; None: the loop does not call it at these,
        or which rows they are is not known."""
        of = {*critic.modules()}
        called = [
            (place, call) for call in self._calls
            if call.module in of and (place := batch.place(call.args))
        ]  # fmt: skip
        if not called:
            self._reason = _ELSEWHERE
            return None
        (_, begin), call = max(called, key=lambda each: (each[1].module is critic, each[0]))
        rows = slice(begin, begin + len(batch.action))
        if call.module is critic:
            found = [by_row(x, len(call.args[-1])) for x in call.outputs]
            known: list[Tensor] | None = [x for x in found if x is not None]
            if len(known or ()) < len(found):
                known = outputs_by_row(self._fresh(critic).copy, *call.args)
            self._reason = UNROWED
            return None if known is None else torch.cat(known, 1)[rows]
        return self._asked(critic, call.module, [x[rows] for x in call.args], batch)

    def _asked(
        self, critic: nn.Module, part: nn.Module, args: Sequence[Tensor], batch: _Batch
    ) -> Tensor | None:
        """What a module gives that makes Q of the loop's critic, its `part`; None: it gives this
        something else than the loop does."""
        twin, given, several = self._fresh(critic), list[Any](), None
        kind = next(twin.copy.parameters())
        state, action = batch.observation.to(kind), batch.action.to(kind)
        copy = twin.parts[part]
        handle = copy.register_forward_hook(lambda _, its, output: given.append(its))
        for each in ((state, action), (torch.cat([batch.state.to(kind), action], 1),)):
            with suppress(TypeError, RuntimeError):  # of one argument
                several = outputs_by_row(twin.copy, *each)
                break
        handle.remove()
        alike = [
            all(_near_by(*two) for two in zip(args, its, strict=True))
            for its in given if len(its) == len(args)
        ]  # fmt: skip
        self._reason = UNROWED if any(alike) else _ELSEWHERE
        return torch.cat(several, 1) if several is not None and any(alike) else None

    def _fresh(self, module: nn.Module) -> Twin:
        if module not in self._twins:
            self._twins[module] = Twin(module)
        return self._twins[module].now()

    @property
    def _scale(self) -> float:
        """s, 1 where the targets hold nothing of the reward."""
        _, paid, used = np.sum(self._sums, axis=0).tolist()
        return float(abs(used) / paid) if abs(used) / paid > _SCALED else 1.0

    @property
    def _share(self) -> float:
        implied, paid, _ = np.sum(self._sums, axis=0).tolist()
        return float(implied / paid / self._scale)

    def answer(self, *_: object) -> CheckAnswer:
        if not self._looks:
            return off(self._reason)
        share = self._share
        scaled = abs(self._scale - 1) > _SCALED
        of = f" of {self._scale:.2g} r, as in its targets" if scaled else ""
        proof = (
            f"b = {share:.2f}{of} (fault in {TIMES} looks: under −{LOW}, or from update {_SLOW:,} "
            f"on under {_NOTHING} and not rising)"
        )
        if not self._verdicts:
            return CheckAnswer("waiting", f"{proof}; asked from update {FIRST} on", share, _NOTHING)
        first, last = self._verdicts[0], self._verdicts[-1]
        late = self._next >= _SLOW + APART
        far = min(self._verdicts) < -HIGH
        rests = (late and last < first + RISES) or max(self._verdicts) < -LOW
        if len(self._verdicts) == TIMES and max(self._verdicts) < _NOTHING and rests and not far:
            words = "the opposite of" if share < -LOW else "next to nothing of"
            return CheckAnswer(
                "fault", proof, share, _NOTHING, self._looks, IMPLIED,
                f"the critic has learnt {words} the reward that the environment pays: which reward "
                f"is in its targets, and does its loss have the right sign?",
            )  # fmt: skip
        if far and len(self._verdicts) == TIMES:
            return CheckAnswer("open", f"{proof}; {_DIVERGED}", share, _NOTHING, self._looks)
        if last < LOW:
            return CheckAnswer("waiting", proof, share, _NOTHING, self._looks)
        if min(self._verdicts) > HIGH:
            proof += f"; {_FOREIGN}"
            return CheckAnswer("open", proof, share, _NOTHING, self._looks)
        return CheckAnswer("sound", proof, share, _NOTHING, self._looks)


@final
class Bootstraps:
    """Are the values that a rollout adds at its ends those of the observations there?"""

    name = "values at ends are of their observations"

    def __init__(self) -> None:
        self._twins: dict[nn.Module, Twin] = {}
        self._seen: dict[str, deque[tuple[str, float]]] = {
            name: deque(maxlen=4 * ENDS) for name in ("final_value", "last_value")
        }
        self._looks = self._rollouts = 0
        self._reason = (
            "no rollout of recorded steps, their rewards as paid, was handed over: "
            "env = probe.record(env), then probe.rollout(…)"
        )

    def take(
        self, rollout: Rollout, ring: Ring, critics: Sequence[nn.Module], policy: nn.Module
    ) -> None:
        """A rollout whose rows are the newest recorded steps, before the critic's next step;
        `policy`: one of whose outputs may be the value."""
        self._rollouts += 1
        if self._looks > 4 * ENDS and self._rollouts % ENDS:
            return
        values, cut = _flat(rollout.value), rollout.truncated
        recorded = recorded_steps(ring, rollout.ended)
        if recorded is None:
            return
        row = {number: k for k, number in enumerate(recorded[0].tolist()) if number >= 0}
        acted = [
            (row[number + n], each)
            for number, observations in ring.acted
            for n, each in enumerate(observations)
            if number + n in row
        ]
        if not acted:
            return
        places, states = zip(*acted[-_ROWS:], strict=True)
        resets = []
        final = rollout.final_value
        if final is not None and cut is not None and final.any():  # else `TimeLimits` judges it
            known = [(row[number], *two) for number, *two in ring.resets if number in row]
            resets = [each for each in known if _flat(cut)[each[0]]]
        (newest, *more) = ring.latest.values()
        if more or len(newest) != rollout.last_value.numel():
            newest = newest[:0]
        own = values[list(places)]
        size = _ALIKE * float(np.abs(values).max())
        asked = [*states, *newest, *(x for _, *two in resets for x in two)]
        answers = (each for module in (*critics, policy) for each in self._valued(module, asked))
        alike = (each for each in answers if np.abs(each[: len(own)] - own).max() <= size)
        found = next(alike, None) if np.ptp(own) > _VARIED * size else None
        if found is None and not critics:
            self._reason = "the loop calls no critic that is a module of its own"
            return
        if found is None:
            self._reason = (
                "no critic that the loop calls gives back value= at the newest observations: it "
                "has other arguments, as a hidden state, or observations or values are transformed"
            )
            return
        self._looks += 1
        now, ends = np.split(found[len(own) :], [len(newest)])
        for (k, *_), (last, first) in zip(resets, ends.reshape(-1, 2), strict=True):
            given = _flat(final)[k]
            self._judge("final_value", given, last, {RESET: first, BEFORE: values[k]}, size)
        rows = zip(
            *(x[-len(now) :] for x in (_flat(rollout.last_value), values, _flat(rollout.ended))),
            now, strict=False,
        )  # fmt: skip
        for given, before, end, right in rows:
            if not end:
                self._judge("last_value", given, right, {BEFORE: before}, size)

    def _valued(self, critic: nn.Module, observations: Sequence[Any]) -> list[_Array]:
        """Its outputs of one number for each of these; none where it takes other arguments, or
        cannot be copied."""
        try:
            if critic not in self._twins:
                self._twins[critic] = Twin(critic)
            twin = self._twins[critic].now().copy
            asked = torch.as_tensor(np.array(observations)).to(next(twin.parameters()))
            with undisturbed(), torch.no_grad():
                found = [_flat(each) for each in several(twin(asked))]
        except (TypeError, ValueError, RuntimeError, AttributeError):
            return []
        return [each for each in found if len(each) == len(observations)]

    def _judge(
        self, name: str, given: float, right: float, others: Mapping[str, float], size: float
    ) -> None:
        """`right` and what it is mistaken for; where these are the same, nothing is seen."""
        near = {"": right} | dict(others)
        apart = min(abs(each - right) for each in others.values())
        if not np.isfinite(given) or apart <= _VARIED * size:
            return
        found = next((which for which, v in near.items() if abs(given - v) <= size), _NEITHER)
        self._seen[name].append((found, abs(given - right)))

    def answer(self, *_: object) -> CheckAnswer:
        if not self._looks:
            return off(self._reason)
        proofs, wrong = [], 0.0
        for name, seen in self._seen.items():
            if not seen:
                continue
            whose = [each for each, _ in seen]
            which = max(set(whose), key=whose.count)
            share = 1 - whose.count("") / len(whose)
            proofs.append(
                f"{name} is not V of its observation at {len(whose) - whose.count('')} of the "
                f"newest {len(seen)} ends (fault: {_MOST:.0%}), by up to "
                f"{max(gap for _, gap in seen):.1g}"
            )
            wrong = max(wrong, share)
            if which not in ("", _NEITHER) and whose.count(which) >= max(ENDS, _MOST * len(seen)):
                return CheckAnswer(
                    "fault", proofs[-1], share, 1 - _MOST, self._looks, ADVANTAGE,
                    f"{name} is the critic's value of the {which}: {_LOOK[name]}",
                )  # fmt: skip
        if not proofs:
            return CheckAnswer("waiting", "no end of an episode or rollout was seen so far")
        proof = "; ".join(proofs)
        if wrong > 1 - _MOST:
            return CheckAnswer("open", proof, wrong, 1 - _MOST, self._looks)
        return CheckAnswer("sound", proof, wrong, 1 - _MOST, self._looks)


@final
class ValueTargets:
    """Is the critic of a rollout fitted to advantage plus value, both as they are?

    dL/dV = c (V − b v − a A − o)      a = b = 1; of normalised advantages a = 1/σ, of A alone b = 0

    Where V = v, (1 − b)/a alone is read: 1 of A alone, 0 of any a. Where a loss has
    shape [B, B], dL/dV rises with V alone.
    """

    name = "values are fitted to advantages plus values"

    def __init__(self) -> None:
        self._seen: deque[str] = deque(maxlen=_BATCHES)
        self._looks, self._scale = 0, 1.0
        self._rests = False  # V is v where values are added: c is not known
        self._reason = (
            "no rollout of recorded steps was handed over, or no critic of these is known"
        )

    def beside(self, made: Pass | None, weights: LossWeights) -> None:
        """The policy's pass, one of whose outputs may be the value: that of the rollout at most
        half its spread away."""
        if made is None or not weights.ready:
            return
        states = made.states
        passes = [
            (states, made.outputs[k], sent) for k, sent in made.arrived.items()
            if sent.numel() == len(states)
        ]  # fmt: skip
        value = weights.beside(states)[0][:, 1] if passes else np.zeros(0)
        if (known := np.isfinite(value)).any():
            spread = _OWN * np.std(value[known])
            apart = [np.std(_flat(output)[known] - value[known]) for _, output, _ in passes]
            near = [each for each, gap in zip(passes, apart, strict=True) if gap < spread]
            self.take(near, weights)

    def take(self, passes: Sequence[tuple[Tensor, Tensor, Tensor]], weights: LossWeights) -> None:
        """Passes to which a loss has sent its gradient, before the next rollout."""
        for states, output, gradient in passes:
            states = states.flatten(0, -2) if gradient.numel() > len(states) else states
            if gradient.numel() != len(states):
                continue
            beside, spread = weights.beside(states)
            g = _flat(gradient)
            known = np.isfinite(beside).all(1) & (g != 0)  # clipped ones are 0
            A, v = beside[known, 0], beside[known, 1]
            V, g = _flat(output)[known], g[known]
            self._reason = _FEW
            if len(g) < _ROWS:
                continue
            if pairwise(*(torch.as_tensor(x) for x in (V, g, A + v))):
                self._looks += 1
                self._seen.append(_PAIRS)
                continue
            rests = np.std(V - v) <= min(_MOVED * np.std(A), _ABOUT / 4 * np.std(v))
            if not min(np.inf if rests else np.std(V - v), np.std(v)) > _MOVED * np.std(A) > 0:
                continue
            columns = np.stack([*([] if rests else [V - v]), v, A, np.ones(len(g))], 1)
            found, _, rank, _ = np.linalg.lstsq(columns, g)
            left = np.linalg.norm(g - columns @ found)
            line = bool(left < _LINE * np.linalg.norm(g - g.mean()))
            errors = left * np.sqrt(np.diag(np.linalg.pinv(columns.T @ columns)) / len(g))
            c = -found[1] if rests else found[0]  # a of A alone is 1
            if line and (rank < len(found) or errors[:-1].max() > _ABOUT / 4 * abs(c)):
                continue  # V has hardly moved since the rollout, or values are like advantages
            self._looks += 1
            scale, b = -float(found[-2] / c), 1 - float(found[-3] / c)
            deviations = np.std(beside[np.isfinite(beside[:, 0]), 0], ddof=1), spread
            if rests and line and abs(1 - b) < _ABOUT * min(1, *deviations):
                self._rests = True
                continue
            forms = {
                "": _near(b, 1) and _near(scale, 1),
                _NORMALISED: _near(b, 1) and any(_near(scale * each, 1) for each in deviations),
                _ALONE: _near(b, 0) and _near(scale, 1),
            }
            form = next((form for form, found in forms.items() if line and found), None)
            if form is not None:  # not another value's, as of costs beside the return
                self._seen.append(form)
                self._scale = scale

    def answer(self, *_: object) -> CheckAnswer:
        if not self._seen:
            return off(_AT_REST if self._rests else _OTHER if self._looks else self._reason)
        most = max(set(self._seen), key=self._seen.count)
        times, of = self._seen.count(most), len(self._seen)
        form = {_ALONE: "A", _PAIRS: _PAIRS}.get(most, f"v + {self._scale:.3g} A")
        proof = (
            f"V is pulled to {form} in {times} of the newest {of} minibatches (fault: another form "
            f"than v + A in {_MOST:.0%} of {_BATCHES})"
        )
        if of < _BATCHES:
            return CheckAnswer("waiting", proof, looks=self._looks)
        if most and times >= _MOST * of:
            look = "is the value added to the advantages before they are normalised?"
            if most == _PAIRS:
                look = "do values and targets have shapes [B] and [B, 1] in its loss?"
            return CheckAnswer(
                "fault", proof, times / of, _MOST, self._looks, ADVANTAGE,
                f"the critic is fitted to {most}: {look}",
            )  # fmt: skip
        return CheckAnswer("sound" if not most else "open", proof, times / of, _MOST, self._looks)


def _read(value: _Array, paid: _Array, used: _Array, follows: _Array, single: bool) -> bool:
    """Whether the critic's numbers are b r + γ (1 − d) v for some b, values on the scale of v:
    logits are none, nor normalised ones. A `single` number that has nothing in common with the
    targets may be a fault."""
    implied = value - follows
    rest = implied - paid * (implied @ paid) / (paid @ paid)
    if np.mean(rest**2) < _HALF * np.var(value):
        return True
    if len(value) < 2:
        return single  # one row is correlated with nothing
    with np.errstate(all="ignore"):
        return single and not np.corrcoef(value, used + follows)[0, 1] > _ALIGNED


def _wide(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1) if values.ndim else values.reshape(1, 1)


def _same(called: Tensor, given: Tensor) -> bool:
    return called.shape == given.shape and torch.equal(called, given.to(called))


def _near_by(called: Tensor, given: Tensor) -> bool:
    size = _PART * float(called.abs().max())
    return called.shape == given.shape and float((called - given.to(called)).abs().max()) <= size


def _on_lines(called: Tensor, given: Tensor) -> bool:
    """Whether every action is scaled and moved alone."""
    if called.shape != given.shape or len(given) < _ROWS:
        return False
    x, y = (each.double().cpu() - each.double().cpu().mean(0) for each in (given, called))
    slope = (x * y).sum(0) / (x * x).sum(0).clamp_min(1e-300)
    return bool(((y - slope * x).norm(dim=0) <= _LINE * y.norm(dim=0)).all())


def _near(one: float, other: float) -> bool:
    return abs(one - other) < _ABOUT


def _flat(values: Any) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.detach().cpu().double().reshape(-1).numpy()
    return found
