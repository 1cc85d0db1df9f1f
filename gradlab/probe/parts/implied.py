"""The reward that the critic has learnt, against the recorded one.

    r̂ = Q(s, a) − γ (1 − d) v          b = Σ r̂ r / (s Σ r²),    s = |Σ (y − γ (1 − d) v) r| / Σ r²

v is the target network's value as the loop adds it up, r what the environment paid; s, where
targets are handed over, is the scale that the loop gives to rewards. A critic lags its returns by
thousands of updates, but not this: sound loops reach .64 to 1.03 by update 100, a flipped reward
−1, a lost one 0. A sound one at a rate of 1e-4 is at .03 then and at .06 by update 800.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.probe.alarms.evidence import IMPLIED
from gradlab.probe.isolation import undisturbed
from gradlab.probe.parts.objectives import Twin
from gradlab.probe.parts.recorder import CheckAnswer, off
from gradlab.probe.parts.rows import UNRECORDED, Matched

FIRST, APART, TIMES = 200, 100, 3  # updates: before the first verdict, and between two; in a row
LOW, RISES = 0.3, 0.05  # b, below which nothing is sound; rise from the first to the last
_NOTHING = 0.02  # b, above which a critic, however slow, has learnt something of it
_SCALED = 0.05  # s, from which it is one
_BATCHES, _EARLIER = 10, 100  # of a verdict, looks; updates before the first one


@final
class Implied:
    """Has the critic learnt the reward that the environment pays?"""

    name = "the critic's implied reward is the paid one"

    def __init__(self) -> None:
        self._twins: dict[nn.Module, Twin] = {}
        self._sums: list[tuple[float, float, float]] = []  # r̂ r, r², r_used r of batches
        self._verdicts: list[float] = []
        self._next, self._looks = FIRST, 0
        self._reason = UNRECORDED

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
        if not len(rows.at) or not rows.found.reward.any():
            self._reason = "no recorded row is found in the batch, or none has a reward"
            return
        assert discount is not None
        if update < FIRST - _EARLIER:
            return
        at = torch.as_tensor(rows.at)
        with undisturbed(), torch.no_grad():
            values = [self._value(each, *(given[n][at] for n in ("observation", "action")))
                      for each in critics]  # fmt: skip
        d, v = (_flat(given[name])[rows.at] for name in ("terminated", "next_value"))
        paid = rows.found.reward
        implied = np.mean(values, axis=0) - discount * (1 - d) * v
        used = paid
        if "target" in given and given["target"].numel() == given["next_value"].numel():
            used = _flat(given["target"])[rows.at] - discount * (1 - d) * v
        sums = float(implied @ paid), float(paid @ paid), float(used @ paid)
        if not np.isfinite(sums).all():
            self._reason = "values of the critic, or its targets, are not finite"
            return
        self._sums.append(sums)
        self._sums, self._looks = self._sums[-_BATCHES:], self._looks + 1
        if update >= self._next and len(self._sums) == _BATCHES:
            self._next = update + APART
            self._verdicts = [*self._verdicts, self._share][-TIMES:]

    def _value(self, critic: nn.Module, state: Tensor, action: Tensor) -> NDArray[np.float64]:
        if critic not in self._twins:
            self._twins[critic] = Twin(critic)
        twin = self._twins[critic].now().copy
        kind = next(twin.parameters())
        state, action = state.to(kind), action.to(kind).reshape(len(state), -1)
        try:
            found = twin(state, action)
        except (TypeError, RuntimeError):  # of one argument
            found = twin(torch.cat([state, action], 1))
        several = found if isinstance(found, tuple) else (found,)
        mean = torch.stack([x.reshape(len(state), -1).mean(1) for x in several]).mean(0)
        return _flat(mean)

    @property
    def _share(self) -> float:
        implied, paid, used = np.sum(self._sums, axis=0).tolist()
        scale = abs(used) / paid
        return float(implied / paid / (scale if scale > _SCALED else 1.0))

    def answer(self, *_: object) -> CheckAnswer:
        if not self._looks:
            return off(self._reason)
        share = self._share
        proof = f"b = {share:.2f} (fault: under {_NOTHING} in {TIMES} looks, not rising)"
        if not self._verdicts:
            return CheckAnswer("waiting", f"{proof}; asked from update {FIRST} on", share, _NOTHING)
        first, last = self._verdicts[0], self._verdicts[-1]
        rests = last < first + RISES or max(self._verdicts) < -LOW
        if len(self._verdicts) == TIMES and max(self._verdicts) < _NOTHING and rests:
            words = "the opposite of" if share < -LOW else "next to nothing of"
            return CheckAnswer(
                "fault", proof, share, _NOTHING, self._looks, IMPLIED,
                f"the critic has learnt {words} the reward that the environment pays: which reward "
                f"is in its targets, and does its loss have the right sign?",
            )  # fmt: skip
        if last < LOW:
            return CheckAnswer("waiting", proof, share, _NOTHING, self._looks)
        return CheckAnswer("sound", proof, share, _NOTHING, self._looks)


def _flat(values: Any) -> NDArray[np.float64]:
    found: NDArray[np.float64] = values.detach().cpu().double().reshape(-1).numpy()
    return found
