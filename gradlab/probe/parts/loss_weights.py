"""Whether the policy's loss weighs actions by their advantages.

    dL/dμ = −w (a − μ)/σ²,   dL/dlogits = −w (1_a − π)        w = −dL/dlog π, up to a constant

w = b A + c V + d of the advantage A and the value V: b > 0 and c = 0 in a sound PPO, c = b with
returns in A's place.
"""

from __future__ import annotations

from collections import deque
from math import isnan, nan
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.probe.alarms.evidence import WEIGHTED, excluded
from gradlab.probe.parts.advantages import (
    LEAST,
    ROUNDING,
    Rollout,
    recorded_ends,
    recorded_steps,
)
from gradlab.probe.parts.passes import squashes
from gradlab.probe.parts.recorder import CheckAnswer, off
from gradlab.probe.parts.rows import CALLED

if TYPE_CHECKING:
    from gradlab.probe.parts.passes import Pass
    from gradlab.probe.parts.recorder import Ring

LOOKS, ROWS = 10, 256  # minibatches; rows of one, of which there are at least `LEAST`
_KEPT = 128  # minibatches by which a correlation is known
WRONG, SOUND = -0.5, 0.35  # correlation: sound loops .35 and more, a wrong sign under −.7
_ORDER = "are they in the order of the observations"
_SCALED = (
    ", and does the loop scale actions by itself? Move such a scale into a wrapper inside of record"
)
BESIDE = 2.0  # of what a neighbour's advantage leaves of the weights: the own leaves less in theory
VALUED, SEEN = 0.5, 0.2  # c/b, and the spread of V over that of A from which it can be seen
LEVEL = 2.0  # spreads of A by which values lie apart from a level of 0, to be read by it
EQUAL, SAME = 0.95, 1e-4  # of the rollout's rewards; relative
_SEEN, _LIKE = 2.5, 1e-2  # |u| whose tanh is not flat; of a gradient, what rounding leaves of it
_Array = NDArray[np.float64]
_Reading = tuple[_Array, NDArray[np.bool_]] | None  # weights, and rows that have one


@final
class LossWeights:
    """Does the policy's loss weigh actions by their advantages?"""

    name = "actions are weighed by their advantages"

    def __init__(self) -> None:
        self._ring: Ring | None = None
        self.handed: Tensor | None = None  # observations of this update's minibatch, as stored
        self._columns: _Array = np.zeros((0, 4))  # A_t, V_t, A_{t−1}, A_{t+1}, by place in the ring
        self._held: NDArray[np.intp] = np.zeros(0, np.intp)  # places of the newest rollout
        self._limits: _Array = np.full((2, 0), nan)  # of actions that are cut off, [2, d_a]
        self._whole = False  # actions are discrete: no loop scales them
        self.limits: tuple[Any, Any] = (None, None)  # of the environment's actions
        self._seen: deque[tuple[float, ...]] = deque(maxlen=_KEPT)
        self._looks = 0
        self._still: deque[int] = deque(maxlen=LOOKS)  # actions without a gradient; −1: none
        self._same: deque[bool] = deque(maxlen=LOOKS)  # whether all actions weigh the same
        self._reason = (
            "no rollout was handed over in a recorded environment: probe.rollout(…), in loops with "
            "advantages"
        )

    @property
    def ready(self) -> bool:
        return self._ring is not None

    def beside(self, observations: Tensor) -> tuple[_Array, float]:
        """A and V of these rows, [K, 2], NaN where unknown; and the deviation of all A."""
        places = self._places(observations)
        found = np.where(places[:, None] >= 0, self._columns[places, :2], nan)
        return found, float(np.nanstd(self._columns[self._held, 0], ddof=1))

    def _places(self, states: Tensor, most: int | None = None) -> NDArray[np.intp]:
        """Of the steps that begin at them; where the loop has transformed them, at the stored ones
        that it handed over, row by row."""
        assert self._ring is not None
        places, handed = self._ring.places(states[:most].cpu().numpy()), self.handed
        few = 2 * (places >= 0).sum() < len(places)
        if few and handed is not None and len(handed) == len(states) and self._ring.fits(handed):
            places = self._ring.places(handed[:most].cpu().numpy())
        return places

    def take(self, rollout: Rollout, ring: Ring) -> None:
        """The advantages of the newest steps."""
        recorded = recorded_steps(ring, rollout.ended)
        numbers = np.zeros(0, np.intp) if recorded is None else recorded[0]
        made, places = numbers >= 0, numbers % ring.size
        paid, stored = ring.rewards(places), rollout.reward.reshape(-1).cpu().numpy()
        if recorded is not None:
            unit = float(paid[made] @ stored[made]) / max(float(paid[made] @ paid[made]), 1e-300)
            stored = stored / unit if unit > 0 else stored  # a constant of the loop's
        scale = max(float(np.abs(paid[made]).max(initial=0.0)), 1e-12)

        def same(rewards: _Array) -> bool:
            return bool(np.mean(np.abs(paid - rewards)[made] <= SAME * scale) >= EQUAL)

        if recorded is None or not made.any() or not same(stored):
            self._ring = None
            self._reason = (
                "the rollout's rewards are not those of the newest recorded steps, in their order: "
                "record outside of wrappers that change them, env = probe.record(Normalise(env)), "
                "move what the loop does to them beside a constant factor into one, and hand over "
                "every step of the vector environment"
            )
            return
        if len(self._columns) != ring.size:
            self._columns = np.full((ring.size, 4), nan)
        self._columns[self._held], self._held = nan, places[made]
        self._ring = ring
        advantage, value = (x.double().cpu().numpy() for x in (rollout.advantage, rollout.value))
        whole = np.where(made.reshape(advantage.shape), advantage, nan)
        beside = [_shifted(whole, by) for by in (1, -1)]
        late = [_shifted(stored.reshape(advantage.shape), by).reshape(-1) for by in (1, -1)]
        if any(map(same, late)) and not _ends_say(rollout, ring):
            beside = [nan * each for each in beside]  # nothing says which step is which
        columns = np.stack([advantage, value, *beside], -1).reshape(-1, 4)
        self._columns[places[made]] = columns[made]
        actions = ring.actions(places[made])
        self._limits, self._whole = _limits(actions), bool((actions == np.round(actions)).all())

    def after(self, made: Pass | None) -> None:
        """The actor has stepped by the gradient that has arrived at the pass."""
        if self._ring is None or made is None:
            return
        places = self._places(made.states, ROWS)
        found = np.flatnonzero(places >= 0)
        found = found[np.isfinite(self._columns[places[found], 0])]
        if len(found) < LEAST:
            sequences = "the policy is called at sequences of observations, not at one of each row"
            self._reason = CALLED if self._ring.fits(made.states) else sequences
            return
        actions, columns = self._ring.actions(places[found]), self._columns[places[found]]
        # A loop may scale or squash actions by itself: the reading that explains more counts.
        ends = np.abs(self._limits).max(0)
        scales = (np.ones_like(ends), ends) if (ends > 0).all() else (np.ones_like(ends),)
        readings = [
            _weights(made, found, actions / scale, self._limits / scale) for scale in scales
        ]
        if not self._whole:
            readings += self._unsquashed(made, found, actions)
        kept = [each for each in readings if each is not None]
        if not kept:
            self._reason = "no output of the policy is a mean of its actions, or their logits"
            return
        self._still.append(_still(made, actions))
        alike = [_alike(weights[read]) for weights, read in kept]
        self._same.append(any(alike) and np.ptp(columns[:, 0]) > 0)
        weights, read = max(kept, key=lambda each: _explained(each[0], each[1], columns))
        if read.sum() < LEAST:
            self._reason = "nearly all actions are cut to their limits: those drawn are not known"
            return
        weights, columns = weights[read], columns[read]
        spread = columns.std(0)
        if not (np.ptp(weights) > 0 and spread[0] > 0):
            if not weights.any():
                self._reason = (
                    "the policy's loss weighs no action: it is detached, or the actions of the "
                    "rollout are the policy's means, without noise"
                )
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
        else:
            valued = _level(weights, columns[:, 0], columns[:, 1])
        self._seen.append((correlation, valued, *beside))

    def _unsquashed(self, made: Pass, rows: NDArray[Any], actions: _Array) -> list[_Reading]:
        """By the actions before a tanh of the loop's, log π of which has the same gradient."""
        given, ends = torch.as_tensor(actions), torch.as_tensor(self._limits)
        found = []
        for squash in squashes(made, made.calls[0].module, given, *self.limits):
            inner = squash.inner(given).numpy()
            if squash.half is not None and not np.isnan(inner).any():
                found.append(_weights(made, rows, inner, squash.inner(ends).numpy()))
        return found

    def answer(self, *_: object) -> CheckAnswer:
        if len(self._same) == LOOKS and 2 * sum(self._same) > LOOKS:
            times = sum(self._same)
            return CheckAnswer(
                "fault", f"all actions weigh the same in {times} of {LOOKS} minibatches (fault: "
                f"half)", times / LOOKS, 0.5, LOOKS, WEIGHTED,
                "the policy's loss weighs all actions alike, whatever their advantages are: do log "
                "π and advantages have shapes [B, 1] and [B] in it?",
            )  # fmt: skip
        if not self._seen:
            return off(self._reason)
        every = np.array(self._seen)
        seen = every[-LOOKS:]
        correlation, known = float(seen[:, 0].mean()), seen[np.isfinite(seen[:, 1]), 1]
        valued, least = nan, LOOKS // 2 + 1
        share = (
            f"not read: values vary, and weights rise with advantages, in {len(known)} minibatches "
            f"of {least} that it takes"
        )
        if len(known) >= least:
            valued = float(np.median(known))
            share = f"{valued:.2f} (fault: above {VALUED})"
        proof = (
            f"correlation {correlation:.2f} (fault: under {WRONG}, or certainly under {SOUND}), "
            f"share of the value {share}, {len(seen)} minibatches of {LOOKS}"
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
            proof += f"; the loss weighs actions by something else: {_ORDER}"
            proof += "?" if self._whole else _SCALED
            if not excluded(every[:, 0], SOUND, self._looks):
                return CheckAnswer("open", proof, correlation, WRONG, self._looks)
            return CheckAnswer(
                "fault", proof, correlation, WRONG, self._looks, WEIGHTED,
                f"the policy's loss weighs actions by something else than their advantages "
                f"(correlation {correlation:.2f}, in sound loops {SOUND} or more): {_ORDER}?",
            )  # fmt: skip
        if isnan(before) and isnan(after):
            proof += "; not told apart from the steps before and after: rewards are alike, no ends"
            return CheckAnswer("open", proof, correlation, WRONG, self._looks)
        return CheckAnswer("sound", proof, correlation, WRONG, self._looks)


def likelihood_weights(made: Pass, inner: Tensor) -> Tensor | None:
    """w [N] of a loss −Σ w log π of these actions, before their squash [N, da], under a Gaussian
    whose mean and log σ the policy gives of every state; None: the loss is another one.

        dL/dμ = −w ε/σ,   dL/dlog σ = w (1 − ε²),   ε = (u − μ)/σ
    """
    if not {0, 1} <= made.arrived.keys() or made.outputs[1].shape != made.outputs[0].shape:
        return None
    rows = len(inner)
    mean, log_std = (x[:rows].double() for x in made.outputs[:2])
    sent = torch.cat([made.arrived[k][:rows].double() for k in (0, 1)], -1)
    seen = (inner.abs() < _SEEN).all(-1) & (sent != 0).any(-1)
    if int(seen.sum()) < LEAST:
        return None
    noise = (inner.double() - mean) / log_std.exp()
    alone = torch.cat([-noise / log_std.exp(), 1 - noise**2], -1)[seen]
    weights = (sent[seen] * alone).sum(-1) / (alone**2).sum(-1)
    left = (sent[seen] - weights[:, None] * alone).norm()
    return weights if float(left) < _LIKE * float(sent[seen].norm()) else None


def constant_weights(made: Pass, inner: Tensor, log_std: nn.Parameter) -> Tensor | None:
    """The same under one log σ [da] for all states, that of the gradient Σ w (1 − ε²)."""
    mean, sent, summed = made.outputs[0].double(), made.arrived.get(0), log_std.grad
    if sent is None or summed is None or not sent.shape == inner.shape == mean.shape:
        return None
    deviation = log_std.detach().double().reshape(-1).exp()
    noise = (inner.double() - mean) / deviation
    alone, sent = -noise / deviation, sent.double()
    weights = (sent * alone).sum(-1) / (alone**2).sum(-1)
    shares = weights[:, None] * (1 - noise**2)
    left = (sent - weights[:, None] * alone).norm() / sent.norm()
    apart = (shares.sum(0) - summed.double().reshape(-1)).abs() / shares.abs().sum(0)
    return weights if max(float(left), float(apart.max()) / 2) < _LIKE else None


def _still(made: Pass, actions: _Array) -> int:
    """The first action, of several that vary, to whose mean no row of a loss sends anything."""
    shapes = {k: each.shape for k, each in enumerate(made.outputs)}
    sent = [g for k, g in made.arrived.items() if shapes[k][1:] == actions.shape[1:]]
    if len(sent) != 1:  # σ of every state is an output, too: which of both is the mean?
        return -1
    nothing = (sent[0] == 0).all(0).cpu().numpy()
    found = np.flatnonzero(nothing & (np.ptp(actions, axis=0) > 0))
    return int(found[0]) if len(found) and not nothing.all() else -1


def _alike(weights: _Array) -> bool:
    """Are they the same, and not 0, to rounding?"""
    return bool(len(weights) >= LEAST and np.ptp(weights) < _LIKE * np.abs(weights).max())


def _explained(weights: _Array, read: NDArray[np.bool_], columns: _Array) -> float:
    """The largest |correlation| of the weights with the advantages, own or a neighbour's."""
    left = [_correlation(weights[read], each) for each in columns[read][:, [0, 2, 3]].T]
    return float(np.nanmax(np.abs([0.0, *left])))


def _shifted(values: _Array, by: int) -> _Array:
    """Of every step the value of the one before (1) or after (−1); NaN where there is none."""
    moved = np.roll(values.astype(float), by, 0)
    moved[0 if by > 0 else -1] = nan
    return moved


def _ends_say(rollout: Rollout, ring: Ring) -> bool:
    """Are the recorded ends of episodes those of the rollout's steps, and of no step beside?"""
    ended = rollout.ended > 0
    apart = not torch.equal(ended[1:], ended[:-1])
    return apart and recorded_ends(ring, rollout.ended) is not None


def _correlation(weights: _Array, others: _Array) -> float:
    """NaN: fewer than `LEAST` are known, or they do not vary."""
    known = np.isfinite(others)
    varied = known.sum() >= LEAST and min(np.ptp(x[known]) for x in (weights, others)) > 0
    return float(np.corrcoef(weights[known], others[known])[0, 1]) if varied else nan


def _left_over(weights: _Array, own: _Array, others: _Array) -> float:
    """1 − r² of the weights with their own advantages over that with others'; NaN: not known."""
    known = np.isfinite(others)
    r = np.array([_correlation(weights[known], each[known]) for each in (own, others)])
    mine, its = np.maximum(1 - r * np.abs(r), ROUNDING)  # of a wrong sign nothing is explained
    return float(mine / its)


def _level(weights: _Array, advantage: _Array, value: _Array) -> float:
    """c/b where values hardly vary and are far from 0: b (A + V) is b A and a level, which neither
    b A nor a normalised b (A − Ā) has; NaN where it is none of these."""
    columns = np.column_stack([advantage, np.ones(len(advantage))])[free := weights != 0]
    (slope, level), *_ = np.linalg.lstsq(columns, weights[free])
    spread, V, others = advantage.std(), value.mean(), np.array([0.0, -advantage.mean()])
    if not slope > 0 or np.abs(V - others).min() < LEVEL * spread:
        return nan
    near = np.abs(level / slope - np.append(others, V)) < spread / LEVEL
    return float(near[-1]) if near.any() else nan


def _limits(actions: _Array) -> _Array:
    """Least and largest number of each column that comes twice, [2, d_a]; NaN: drawn freely."""
    ends = np.stack([actions.min(0), actions.max(0)])
    whole = (actions == np.round(actions)).all(0)  # of discrete actions there is none
    return np.where(((actions == ends[:, None]).sum(1) > 1) & ~whole, ends, nan)


def _weights(made: Pass, rows: NDArray[Any], actions: _Array, limits: _Array) -> _Reading:
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
        if gradient is None or output.ndim != 2 or len(output) <= rows.max():
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
