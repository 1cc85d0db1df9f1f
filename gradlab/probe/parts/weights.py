"""What PPO's loss multiplies log π(a|s) by, against the advantages that were handed over.

    dL/dμ = −w (a − μ)/σ²,   dL/dlogits = −w (1_a − π)        w = −dL/dlog π, up to a constant

a is the action that was recorded where the actor's input was observed, and w that of its row:
w = b A + c V + d with the advantage A and the value V, b > 0 and c = 0; with returns in A's place
c = b. The recorded rewards must be those of the rollout, in its order, which says whose advantage
is whose.
"""

from __future__ import annotations

from collections import deque
from math import nan
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.probe.alarms.parts import ADVANTAGE, DESCENT
from gradlab.probe.parts.answers import Answer, off
from gradlab.probe.parts.rows import TRANSFORMED

if TYPE_CHECKING:
    from gradlab.probe.parts.objectives import Pass
    from gradlab.probe.parts.recorder import Ring
    from gradlab.probe.parts.targets import Rollout

LOOKS, ROWS, LEAST = 10, 256, 16  # minibatches; rows of one, and the fewest
WRONG, SOUND = -0.5, 0.2  # correlation: sound loops .35 and more (one −.27), a wrong sign under −.7
VALUED, SEEN = 0.5, 0.2  # c/b, and the spread of V over that of A from which it can be seen
EQUAL, SAME = 0.95, 1e-4  # of the rollout's rewards; relative
Array = NDArray[np.float64]


@final
class Weights:
    """Does the policy's loss weigh actions by their advantages?"""

    name = "actions are weighed by their advantages"

    def __init__(self) -> None:
        self._ring: Ring | None = None
        self._columns: Array = np.zeros((0, 2))  # A and V, by place in the ring
        self._seen: deque[tuple[float, float]] = deque(maxlen=LOOKS)
        self._looks = 0
        self._reason = (
            "the environment is not recorded, or advantages not handed over: "
            "env = probe.record(env), probe.rollout(…)"
        )

    @property
    def ready(self) -> bool:
        return self._ring is not None

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
                "record outside of what scales rewards, env = probe.record(Normalise(env)), with "
                "resets in the step that ends an episode"
            )
            return
        self._ring, self._columns = ring, np.full((ring.size, 2), nan)
        columns = torch.stack([rollout.advantage.reshape(-1), rollout.value.reshape(-1)], 1)
        self._columns[places] = columns.double().cpu().numpy()

    def after(self, made: Pass | None) -> None:
        """The actor has stepped by the gradient that has arrived at the pass."""
        if self._ring is None or made is None:
            return
        rows = made.calls[0].args[0][:ROWS].cpu().numpy()
        places = self._ring.places(rows)
        found = np.flatnonzero(places >= 0)
        found = found[np.isfinite(self._columns[places[found], 0])]
        if len(found) < LEAST:
            self._reason = TRANSFORMED
            return
        weights = _weights(made, found, self._ring.actions(places[found]))
        if weights is None:
            self._reason = "no output of the policy is a mean of its actions, or their logits"
            return
        columns = self._columns[places[found]]
        spread = columns.std(0)
        if not (np.ptp(weights) > 0 and spread[0] > 0):
            return
        self._looks += 1
        correlation = float(np.corrcoef(weights, columns[:, 0])[0, 1])
        valued = nan
        if spread[1] > SEEN * spread[0]:
            free = weights != 0  # those that are clipped are 0
            both = np.column_stack([columns, np.ones(len(columns))])[free]
            slope, own, _ = np.linalg.lstsq(both, weights[free], rcond=None)[0]
            valued = float(own / slope) if slope > 0 else nan
        self._seen.append((correlation, valued))

    def answer(self, *_: object) -> Answer:
        if not self._seen:
            return off(self._reason)
        seen = np.array(self._seen)
        correlation, known = float(seen[:, 0].mean()), seen[np.isfinite(seen[:, 1]), 1]
        valued = float(np.median(known)) if 2 * len(known) > LOOKS else nan
        proof = (
            f"correlation {correlation:.2f} (fault: under {WRONG}), share of the value "
            f"{valued:.2f} (fault: above {VALUED}), {len(seen)} minibatches of {LOOKS}"
        )
        if len(seen) < LOOKS:
            return Answer("waiting", proof, correlation, WRONG, self._looks)
        if correlation < WRONG:
            return Answer(
                "fault", proof, correlation, WRONG, self._looks, DESCENT,
                "the policy's loss makes actions of larger advantage less likely: is its sign "
                "right, and is the ratio the new probability over the old?",
            )  # fmt: skip
        if valued > VALUED:
            return Answer(
                "fault", proof, valued, VALUED, self._looks, ADVANTAGE,
                "the policy's loss weighs actions by their returns, not by their advantages: is "
                "the value subtracted?",
            )  # fmt: skip
        if correlation < SOUND:
            return off(f"its weights are not read: {proof}")
        return Answer("sound", proof, correlation, WRONG, self._looks)


def _weights(made: Pass, rows: NDArray[Any], actions: Array) -> Array | None:
    """w of these rows, by the output that is nearest to a mean of the actions."""
    found: list[tuple[float, Array]] = []
    for k, output in enumerate(made.outputs):
        gradient = made.arrived.get(k)
        if gradient is None or output.ndim != 2:
            continue
        mean, g = (x[:ROWS][rows].detach().double().cpu() for x in (output, gradient))
        if mean.shape == actions.shape:
            gap = torch.as_tensor(actions) - mean
            score = gap / (gap**2).mean(0).clamp_min(1e-12)
            found.append((float((gap**2).mean()), _slope(g, score)))
        elif actions.shape[1] == 1 and mean.shape[1] > 1 and _places(actions, mean.shape[1]):
            chosen = torch.nn.functional.one_hot(torch.as_tensor(actions[:, 0]).long(), len(g[0]))
            found.append((0.0, _slope(g, chosen - mean.softmax(1))))
    return min(found, key=lambda each: each[0])[1] if found else None


def _places(actions: Array, width: int) -> bool:
    """Are these numbers of discrete actions?"""
    whole = np.array_equal(actions, np.round(actions))
    return whole and bool((actions >= 0).all() and (actions < width).all())


def _slope(gradient: Tensor, score: Tensor) -> Array:
    """−dL/dlog π of every row, by least squares of its gradient on that of log π."""
    size = (score**2).sum(1).clamp_min(1e-12)
    slope: Array = (-(gradient * score).sum(1) / size).numpy()
    return slope
