"""The alarms of the probe's tables, in the order in which a row is tested.

    saturation    share − √(ln(1/level) / 2n) > ½ (Hoeffding, n passes), and > ½ in 16 rows; or a
                  tanh has let under 2% of the gradient through since the first window

Alarms of single events, such as the origin of a NaN, are raised where the event is detected.

Alarms from gradients alone: of single updates, of a window, and of successive updates.

    noise      share + t se < 1%, all recent bursts together; t: Student's at the test's level
    growth     g_i > 4^((i − j)/3) max(g_1 … g_j) in five stretches of 20 updates in a row for a
               critic, in eight for a policy; j ≤ i − 3 is the last before i that was measured

A single leap holds for three stretches only; a saturated actor that comes back is not beyond all
earlier sizes, and takes fewer than eight (`reports/loops`).

Alarms from the steps that optimisers make, and from returns that stay below the first ones.

    does not move   a tensor has a gradient, and no measured step changed a bit of it
    rate            |Δθ| / |θ| > 2% on average at a rate ≥ 0.01; defaults: at most 0.8% (74 runs)
    returns         t = (J̄_first − J̄_newest) / √(v/n + v/3n), v the larger variance, over `IN_A_ROW`
                    windows of 250 updates or more, none of which rose

All returns are tested against the same first window: at `_LEVEL` each, at most 0.3% of runs of a
hundred windows ring falsely (normal, t3, log-normal and with rare low ones, 2,000 runs each).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, isfinite, log, sqrt
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from gradlab.probe.alarms import task
from gradlab.probe.alarms.evidence import (
    BELOW,
    RESTING,
    Alarm,
    AlarmEvidence,
    AlarmTest,
    Row,
    listed,
)
from gradlab.runs.probe.returns import LEAST, Returns
from gradlab.statistics.intervals import student
from gradlab.statistics.successive import Signal, pooled
from gradlab.wording import two

STRETCH = 20  # updates of the policy
LAG, FOURFOLD, STRETCHES = 3, 4.0, 8
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
        last = self._sizes[-STRETCHES:]
        if len(last) < STRETCHES or not all(self._grown(*each) for each in last):
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
_FEWEST_BURSTS = 10  # updates: a head that begins at 0 blocks the first gradients only
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
    if looked < _FEWEST_BURSTS or not dead.any():
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
_OF_GRADIENTS = (
    AlarmTest(NONFINITE, "vitals", ("looked", "nonfinite", "nonfinite_updates"), _nonfinite),
    AlarmTest("dead path", "vitals", ("looked", "zero"), _dead_parameters),
    AlarmTest("dead outputs", "vitals", ("looked", "dead_outputs"), _dead_outputs),
    AlarmTest("gradient no better than noise", "successive", ("pairs", *_PRODUCTS), noise),
    AlarmTest("dead inputs", "successive", ("dead_inputs",), _dead_inputs),
)


IN_A_ROW = 3
_LEVEL = 0.999
KIND = "falling return"
CHECK = "check the signs of the reward and of the actor's loss, and the critic's targets"


def fallen(returns: Returns, table: str) -> Alarm | None:
    """The alarm that the newest window raises.

    Args:
        table: "returns" or "episodes", whose they are.
    """
    means, newest = returns.windows, returns.changes(IN_A_ROW)
    if len(newest) < IN_A_ROW or any(each.direction == "rose" for each in newest):
        return None
    if any(each.updates < LEAST or not each.mean < means[0].mean() for each in newest):
        return None
    first, last = means[0], np.concatenate(means[-IN_A_ROW:])
    lower = float(first.mean() - last.mean())
    worst = max(float(each.var(ddof=1)) for each in (first, last))
    half = student(len(first) - 1, _LEVEL) * sqrt(worst / len(first) + worst / len(last))
    if not lower > half:
        return None
    what = "policy" if table == "returns" else "training episodes"
    was, now = (two(float(each.mean())) for each in (first, means[-1]))
    text = (
        f"the return of the {what} fell from {was} to {now}, by {two(lower)} ± {two(half)} over "
        f"{IN_A_ROW} windows of about {newest[-1].updates:,} updates: {CHECK}"
    )
    return Alarm(KIND, text.replace("-", "−"))


_FEWEST = 2  # measured steps
_FAINT = 1e-3  # of the whole gradient's norm
_NOTHING = 1e-6  # a norm of gradients that the rounding of a loss leaves
_LONG = 0.02  # of θ in one step
_HIGH = 0.01  # a rate below which steps are long only where θ is nearly 0
_STILL = "actor does not move"


def _actor_still(evidence: AlarmEvidence) -> str | None:
    """Every tensor stays exactly where it is, and some have a gradient."""
    stuck, moved = _stuck(evidence)
    if not stuck.any() or moved.any():
        return None
    norm, rate = evidence.at("grad_norm"), _rate(evidence.at("learning_rate"))
    return (
        f"the policy has a gradient (norm {norm:.2g}), and none of {evidence.at('stepped'):.0f} "
        f"steps changed it{rate}: look at the rate, the clip, and whose parameters the optimiser "
        f"holds"
    )


def _actor_partly_still(evidence: AlarmEvidence) -> str | None:
    """The same of some tensors; or all tensors are frozen but one."""
    stuck, moved = _stuck(evidence)
    if stuck.any() and moved.any():
        if (norm := evidence.at("grad_norm")) < _NOTHING:
            return (
                f"the policy's gradient has a norm of {norm:.2g}, which moved its "
                f"{listed(stuck, evidence.names)} in none of {evidence.at('stepped'):.0f} steps: "
                f"look at the scale of the loss, and at shapes that broadcast in it"
            )
        return (
            f"the policy's {listed(stuck, evidence.names)} had a gradient, and none of "
            f"{evidence.at('stepped'):.0f} steps changed them: give the optimiser all of "
            f"policy.parameters(), or say requires_grad_(False) where they are meant to stay"
        )
    trained = np.isfinite(np.asarray(evidence.new["still"], dtype=np.float64))
    if len(trained) < 3 or trained.sum() != 1:
        return None
    return (
        f"of {len(trained)} tensors only {listed(trained, evidence.names)} is trained, all others "
        f"are frozen (requires_grad is False): thaw them, unless that is meant"
    )


def _stuck(evidence: AlarmEvidence) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tensors that had a gradient and that no measured step changed, and those that some changed,
    [P] each.

    A gradient that fades, as that of a log σ at its bound, is none: Adam divides it by what it was,
    and the step rounds to 0. One that nobody clears grows, and others fade beside it.
    """
    still, zero, size = (np.asarray(evidence.new[name], dtype=np.float64) for name in _OF_TENSORS)
    followed = np.isfinite(still) & (zero <= int(evidence.at("looked")) / 2)
    followed &= ~(size < _FAINT * evidence.at("grad_norm"))
    stepped = int(evidence.at("stepped"))
    return followed & (still >= stepped) & (stepped >= _FEWEST), still < stepped


def thrown_away(passes: int) -> Alarm:
    """Gradients that were made and cleared again without a step."""
    return Alarm(
        _STILL,
        f"the optimiser has made no step in {passes} backward passes: call its step(), or give "
        f"the probe the optimiser that steps this policy",
    )


def below(rate: float, since: int, whose: str) -> Alarm:
    """A learning rate that was above 0 and is below it, of an optimiser, from this step on."""
    return Alarm(
        BELOW,
        f"the learning rate of {whose} optimiser is −{two(-rate)} since step {since:,}: does the "
        f"schedule go on beyond its end?",
    )


def _critic_still(evidence: AlarmEvidence) -> str | None:
    """A critic that none of its optimiser's steps has changed."""
    stepped = evidence.at("critic_stepped")
    if evidence.at("critic_steps") == 0:
        words = "its optimiser made no step"
    elif stepped >= _FEWEST and evidence.at("critic_still") >= stepped:
        norm = evidence.at("critic_norm")
        words = f"none of {int(stepped)} steps of its optimiser changed it ("
        words += "no gradient arrives" if norm == 0 else f"gradient norm {norm:.2g}"
        words += f"{_rate(evidence.at('critic_rate'))})"
    else:
        return None
    return (
        f"the critic has not moved for {int(evidence.at('looked'))} updates of the policy, {words}:"
        f" look at its rate, and whether its optimiser holds the critic's own parameters"
    )


def _actor_rate(evidence: AlarmEvidence) -> str | None:
    """Steps that are far too long for the policy."""
    return _too_long(evidence.at("update_ratio"), evidence.at("learning_rate"), "policy")


def _critic_rate(evidence: AlarmEvidence) -> str | None:
    """The same of the critic."""
    return _too_long(evidence.at("critic_ratio"), evidence.at("critic_rate"), "critic")


def _too_long(ratio: float, rate: float, whose: str) -> str | None:
    if not (ratio > _LONG and rate >= _HIGH):
        return None
    return (
        f"a step moves the {whose} by {ratio:.1%} of its size on average{_rate(rate)}, and sound "
        f"ones by at most 0.8%: divide the rate by ten"
    )


def _rate(rate: float) -> str:
    return f" at the learning rate {rate:g}" if np.isfinite(rate) else ""


_OF_TENSORS = ("still", "zero", "layer_norm")
_MOVES = ("stepped", "looked", "grad_norm", *_OF_TENSORS)
_OF_STEPS = (
    AlarmTest(_STILL, "vitals", _MOVES, _actor_still),
    AlarmTest("actor moves in part", "vitals", _MOVES, _actor_partly_still),
    AlarmTest(
        RESTING,
        "vitals",
        ("looked", "critic_steps", "critic_stepped", "critic_still", "critic_norm", "critic_rate"),
        _critic_still,
    ),
    AlarmTest("learning rate too large", "vitals", ("update_ratio", "learning_rate"), _actor_rate),
    AlarmTest(
        "critic's learning rate too large", "vitals", ("critic_ratio", "critic_rate"), _critic_rate
    ),
)


HALF = 0.5  # of the actions
_RECENT = 16  # rows whose passes are judged together
_BORN = 0.02  # of the gradient through a tanh, in a window in which sound actors let 5% or more
_FULL = 0.99  # of the actions at their limits
_COST = 0.1  # of it, above which a saturated actor still learns


def saturated(evidence: AlarmEvidence) -> str | None:
    """Actions at their limits since the run began, or most of them for `_RECENT` rows.

    Sound actors saturate within tens of updates while their critic is young, and come back.
    """
    if not np.size(evidence.new["saturation"]):
        return None
    rows = [row for row in evidence.rows[-_RECENT:] if row.get("watched") and "saturation" in row]
    n = sum(int(row["watched"]) for row in rows)
    if not n:
        return None
    passes = np.array([[row["watched"]] for row in rows], dtype=np.float64)
    shares = np.array([row["saturation"] for row in rows], dtype=np.float64)
    share = (passes * shares).sum(axis=0) / n
    margin = sqrt(log(len(share) / evidence.level) / (2 * n))
    passed = _passed(evidence.new, len(share))
    lasted = (len(rows) == _RECENT) & (shares > HALF).all(axis=0) & ~(passed > _COST)
    begun = (passed < _BORN) & (_passed(evidence.rows[0], 1) < _BORN)
    begun |= np.isnan(passed) & (shares > _FULL).all(axis=0)  # not recorded
    born = begun & (evidence.count == len(evidence.rows)) & (share - margin > HALF)
    bad = born | (lasted & (share - margin > HALF))
    if not bad.any():
        return None
    j = int(np.argmax(np.where(bad, share, -1.0)))
    since = "since the run began" if born[j] else f"at least {share[j] - margin:.0%}"
    rest = f"{passed[j]:.1%} of" if np.isfinite(passed[j]) else "no"
    return (
        f"action {j} is at its limit in {share[j]:.0%} of its values ({since}, {n} passes), where "
        f"a tanh lets {rest} gradient through: lower the policy's gain, or penalise actions before "
        f"the tanh"
    )


def _passed(row: Row, actions: int) -> NDArray[np.float64]:
    """The share that a tanh lets through by action; NaN where it is not known."""
    return np.asarray(row.get("attenuation", np.full(actions, np.nan)), dtype=np.float64)


def _model_trained(evidence: AlarmEvidence) -> str | None:
    """θ and the model's parameters are not apart."""
    count, shared = (int(evidence.new[name]) for name in ("model_gradients", "model_shared"))
    if shared:
        return (
            f"{shared} tensors of the policy are also the prior model's: every policy update "
            f"changes the model; copy them"
        )
    if not count:
        return None
    return (
        f"the policy's backward pass left gradients on the prior model in {count} updates, and its "
        f"optimiser steps them: detach the model, or take it out of the optimiser"
    )


ALARMS = (
    *_OF_GRADIENTS,
    *_OF_STEPS,
    AlarmTest("saturated actor", "vitals", ("saturation", "watched"), saturated),
    AlarmTest(
        "θ leaks into the model", "vitals", ("model_gradients", "model_shared"), _model_trained
    ),
    *task.ALARMS,
)


def examine(table: str, evidence: AlarmEvidence) -> list[Alarm]:
    """The alarms that the newest row of a table raises."""
    alarms = (test(evidence) for test in ALARMS if test.table == table)
    return [alarm for alarm in alarms if alarm is not None]
