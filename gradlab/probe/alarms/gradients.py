"""Alarms from gradients alone: of single updates, of a window, and of successive updates.

    noise      share + t se < 1%, all recent bursts together; t: Student's at the test's level
    growth     g_i > 4^((i − j)/3) max(g_1 … g_j) in five stretches of 20 updates in a row for a
               critic, in eight for a policy; j ≤ i − 3 is the last before i that was measured

A single leap holds for three stretches only; a saturated actor that comes back is not beyond all
earlier sizes, and takes fewer than eight (`reports/loops`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, isfinite, log
from typing import Any, final

import numpy as np

from gradlab.probe.alarms.evidence import Alarm, AlarmEvidence, AlarmTest, Row, listed
from gradlab.statistics.successive import Signal, pooled

STRETCH = 20  # updates of the policy
LAG, FOURFOLD, IN_A_ROW = 3, 4.0, 8
_KEPT = 12  # stretches; of older ones the largest is enough


@final
class GradientGrowth:
    """Sizes of one gradient.

    Args:
        kind: of the alarm; whose: gradient it is.
        young: first stretches, left out: a critic begins with errors that it soon loses.
    """

    def __init__(self, kind: str, whose: str, young: int = 0) -> None:
        self.kind, self.whose, self._young = kind, whose, young
        self._logs: list[float] = []
        self._stretches = 0
        self._sizes: list[tuple[int, float]] = []  # of the last: number, geometric mean
        self._largest = 0.0  # of all that are older

    def add(self, size: float) -> None:
        """The size of one gradient."""
        if size > 0 and isfinite(size):
            self._logs.append(log(size))

    def stretch(self) -> Alarm | None:
        """The alarm at the end of a stretch, if any."""
        self._stretches += 1
        if self._stretches <= self._young or not self._logs:
            self._logs = []
            return None
        self._sizes.append((self._stretches, exp(sum(self._logs) / len(self._logs))))
        self._logs = []
        if len(self._sizes) > _KEPT:
            self._largest = max(self._largest, self._sizes.pop(0)[1])
        last = self._sizes[-IN_A_ROW:]
        if len(last) < IN_A_ROW or not all(self._grown(*each) for each in last):
            return None
        grown, made = last[-1][1] / last[0][1], STRETCH * (last[-1][0] - last[0][0])
        return Alarm(
            self.kind,
            f"the {self.whose} gradient grows without an end, {grown:.2g} times over the last "
            f"{made} updates: look at the scale of the rewards, at the discount and, in a soft "
            f"actor-critic, at the sign and weight of the entropy",
        )

    def _grown(self, stretch: int, size: float) -> bool:
        """Beyond all that were measured three stretches before or earlier, at the alarm's rate."""
        before = [(k, g) for k, g in self._sizes if k <= stretch - LAG]
        if not before:
            return False
        rate: float = FOURFOLD ** ((stretch - before[-1][0]) / LAG)
        return size > rate * max(self._largest, *(g for _, g in before))


NOISE = 0.01  # share of a gradient's energy that is signal, below which its cosine is under 0.1
_FEWEST = 10  # updates: a head that begins at 0 blocks the first gradients only
_POOL = 64  # bursts that are judged together
_PERSISTENT = 3  # bursts in which a column is dead
_MANY = 100  # updates in which an output never had a gradient
_SHARED = 0.05  # of a batch, from which on the message mentions it
NONFINITE, ENDED = "non-finite gradient", "non-finite at the end"
ORIGIN, LOST_CRITIC = "origin of a non-finite gradient", "non-finite critic gradient"


def _nonfinite(evidence: AlarmEvidence) -> str | None:
    """A gradient that is not finite."""
    lost = int(evidence.new["nonfinite_updates"])
    if not lost:
        return None
    where = listed(np.asarray(evidence.new["nonfinite"]) > 0, evidence.names)
    return (
        f"the gradient was not finite in {lost} of {int(evidence.at('looked'))} updates ({where}): "
        f"stop, and look at the sample that is named beside this"
    )


def lost_now(sizes: Sequence[Any], names: Sequence[str]) -> Alarm:
    """The gradient of this update, as soon as it is lost."""
    where = listed(~np.isfinite([float(x) for x in sizes]), names) or "its norm"
    return Alarm(
        NONFINITE,
        f"the gradient of this update is not finite ({where}): stop, and look at the sample that "
        f"is named beside this",
    )


def spoilt(
    what: str, which: Sequence[bool], names: Sequence[str], updates: int, since: int, origin: str,
    error: BaseException | None,
) -> Alarm:  # fmt: skip
    """What a loop leaves behind that is not finite.

    Args:
        what: is lost; which: of the tensors; since: the update that lost it first, < 1: not seen.
    """
    ended = "ended" if error is None else "died"
    text = f"the loop {ended} at update {updates}"
    text += "" if error is None else f" ({type(error).__name__})"
    text += f": {what} ({listed(np.array(which), names)})"
    step = "its step" if since == updates else f"the step of update {since}"
    text += f" since {step}" if since > 0 else ""
    return Alarm(ENDED, f"{text}; {origin}" if origin else text)


def _dead_parameters(evidence: AlarmEvidence) -> str | None:
    """Tensors whose gradient was exactly 0 in every update of the window."""
    looked = int(evidence.new["looked"])
    dead = np.asarray(evidence.new["zero"]) >= looked
    if looked < _FEWEST or not dead.any():
        return None
    return (
        f"the gradient of {listed(dead, evidence.names)} was exactly 0 in all of {looked} updates: "
        f"look for a detach or a saturated layer"
    )


def noise(evidence: AlarmEvidence) -> str | None:
    """Successive gradients without anything in common, by all recent bursts."""
    rows = [row for row in evidence.rows[-_POOL:] if np.isfinite(row["share_se"])]
    if not rows:
        return None
    signal = pooled([signal_of(row) for row in rows])
    top = signal.share + evidence.reach(signal.pairs - 1) * signal.se
    if not top < NOISE:
        return None
    share = evidence.at("overlap")
    overlap = f", batches that share {share:.0%} of their samples" if share > _SHARED else ""
    less = "larger batches, a smaller learning rate or a shorter horizon"
    if evidence.critic_alone:
        less = "larger batches or a smaller learning rate"
    return (
        f"successive gradients have at most {max(top, 0.0):.2%} of their squared norm in common "
        f"({signal.share:.2%} ± {signal.se:.2%}, {signal.pairs} pairs{overlap}): use {less}"
    )


def _dead_inputs(evidence: AlarmEvidence) -> str | None:
    """Inputs of the first layer whose weights have had no gradient in several bursts.

    Hidden units that never fire are counted in the rows, but a few of them are no alarm.
    """
    last = evidence.rows[-_PERSISTENT:]
    counts = [int(row.get("dead_inputs", 0)) for row in last]
    if len(last) < _PERSISTENT or not min(counts):
        return None
    columns = "column" if min(counts) == 1 else "columns"
    return (
        f"{min(counts)} {columns} of the first layer's weights had a gradient of exactly 0 in "
        f"{_PERSISTENT} bursts ({evidence.new.get('dead_where', '')}): look for inputs of the "
        f"policy that are always 0"
    )


def _dead_outputs(evidence: AlarmEvidence) -> str | None:
    """Some outputs of the last layer whose weights never had a gradient; a saturated action had one
    before, and where all have none, it is a dead path."""
    outputs = int(evidence.new.get("outputs", 0))
    dead = int(evidence.new.get("dead_outputs", 0))
    looked = sum(int(row["looked"]) for row in evidence.rows)
    if looked < _MANY or not 0 < dead < outputs:
        return None
    return (
        f"{dead} of {outputs} rows of the last layer's weights had a gradient of exactly 0 in "
        f"all of {looked} updates: look for outputs of the policy that its loss does not use, as "
        f"after a detach, or behind a clamp whose bounds are exchanged"
    )


def signal_of(row: Row) -> Signal:
    """The signal of a row of "successive"."""
    return Signal(int(row.get("fresh", row["pairs"])), *(float(row[name]) for name in _PRODUCTS))


_PRODUCTS = ("energy", "signal", "root_squares", "signal_share", "share_se")
ALARMS = (
    AlarmTest(NONFINITE, "vitals", ("looked", "nonfinite", "nonfinite_updates"), _nonfinite),
    AlarmTest("dead path", "vitals", ("looked", "zero"), _dead_parameters),
    AlarmTest("dead outputs", "vitals", ("looked", "dead_outputs"), _dead_outputs),
    AlarmTest("gradient no better than noise", "successive", ("pairs", *_PRODUCTS), noise),
    AlarmTest("dead inputs", "successive", ("dead_inputs",), _dead_inputs),
)
