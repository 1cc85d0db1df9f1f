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
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from gradlab.probe.alarms import task
from gradlab.probe.alarms.evidence import (
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
        kind: of the alarm.
        young: first stretches, left out: a critic begins with errors that it soon loses.
    """

    def __init__(
        self, kind: Literal["exploding gradient", "exploding critic"], young: int = 0
    ) -> None:
        self.kind, self._young = kind, young
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
        return Alarm.of(self.kind, value=grown, n=made)

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
NONFINITE, ENDED = "non-finite gradient", "non-finite at the end"
ORIGIN, LOST_CRITIC = "origin of a non-finite gradient", "non-finite critic gradient"


_Found = dict[str, Any] | None  # fields of a finding


def _nonfinite(evidence: AlarmEvidence) -> _Found:
    """A gradient that is not finite."""
    lost = int(evidence.new["nonfinite_updates"])
    where = listed(np.asarray(evidence.new["nonfinite"]) > 0, evidence.names)
    return dict(value=lost, n=int(evidence.at("looked")), at=where) if lost else None


def lost_now(sizes: Sequence[Any], names: Sequence[str]) -> Alarm:
    """The gradient of this update, as soon as it is lost."""
    where = listed(~np.isfinite([float(x) for x in sizes]), names) or "its norm"
    return Alarm.of(NONFINITE, value=1, n=1, at=where)


def spoilt(
    what: str, which: Sequence[bool], names: Sequence[str], updates: int, since: int, origin: str,
    error: BaseException | None,
) -> Alarm:  # fmt: skip
    """What a loop leaves behind that is not finite.

    Args:
        what: is lost; which: of the tensors; since: the update that lost it first, < 1: not seen.
    """
    ended = "ended" if error is None else f"died ({type(error).__name__})"
    text = f"{what} ({listed(np.array(which), names)})"
    step = "its step" if since == updates else f"the step of update {since}"
    text += f" since {step}" if since > 0 else ""
    text += f"; {origin}" if origin else ""
    return Alarm.of(ENDED, subject=ended, n=updates, at=text)


def _dead_parameters(evidence: AlarmEvidence) -> _Found:
    """Tensors whose gradient was exactly 0 in every update of the window."""
    looked = int(evidence.new["looked"])
    dead = np.asarray(evidence.new["zero"]) >= looked
    if looked < _FEWEST_BURSTS or not dead.any():
        return None
    return dict(at=listed(dead, evidence.names), n=looked)


def noise(evidence: AlarmEvidence) -> _Found:
    """Successive gradients without anything in common, by all recent bursts."""
    rows = [row for row in evidence.rows[-_POOL:] if np.isfinite(row["share_se"])]
    if not rows:
        return None
    signal = pooled([signal_of(row) for row in rows])
    top = signal.share + evidence.reach(signal.pairs - 1) * signal.se
    return dict(value=signal.share, high=max(top, 0.0), n=signal.pairs) if top < NOISE else None


def _dead_inputs(evidence: AlarmEvidence) -> _Found:
    """Inputs of the first layer whose weights have had no gradient in several bursts.

    Hidden units that never fire are counted in the rows, but a few of them are no alarm.
    """
    last = evidence.rows[-_PERSISTENT:]
    fewest = min(int(row.get("dead_inputs", 0)) for row in last)
    if len(last) < _PERSISTENT or not fewest:
        return None
    return dict(value=fewest, n=_PERSISTENT, at=str(evidence.new.get("dead_where", "")))


def _dead_outputs(evidence: AlarmEvidence) -> _Found:
    """Some outputs of the last layer whose weights never had a gradient; a saturated action had one
    before, and where all have none, it is a dead path."""
    outputs = int(evidence.new.get("outputs", 0))
    dead = int(evidence.new.get("dead_outputs", 0))
    looked = sum(int(row["looked"]) for row in evidence.rows)
    if looked < _MANY or not 0 < dead < outputs:
        return None
    return dict(value=dead, threshold=outputs, n=looked)


def signal_of(row: Row) -> Signal:
    """The signal of a row of "successive"."""
    return Signal(int(row.get("fresh", row["pairs"])), *(float(row[name]) for name in _PRODUCTS))


_PRODUCTS = ("energy", "signal", "root_squares", "signal_share", "share_se")

IN_A_ROW = 3
_LEVEL = 0.999
KIND = "falling return"


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
    was, now = (two(float(each.mean())) for each in (first, means[-1]))
    return Alarm.of(
        KIND, subject="the policy" if table == "returns" else "training episodes",
        at=f"{was} to {now}", value=lower, threshold=half, n=newest[-1].updates,
    )  # fmt: skip


_FEWEST = 2  # measured steps
_FAINT = 1e-3  # of the whole gradient's norm
_NOTHING = 1e-6  # a norm of gradients that the rounding of a loss leaves
_LONG = 0.02  # of θ in one step
_HIGH = 0.01  # a rate below which steps are long only where θ is nearly 0


def _actor_still(evidence: AlarmEvidence) -> _Found:
    """Every tensor stays exactly where it is, and some have a gradient."""
    stuck, moved = _stuck(evidence)
    if not stuck.any() or moved.any():
        return None
    norm, steps = evidence.at("grad_norm"), int(evidence.at("stepped"))
    return dict(value=norm, n=steps, at=_rate(evidence.at("learning_rate")))


def _actor_partly_still(evidence: AlarmEvidence) -> _Found:
    """The same of some tensors; or all tensors are frozen but one."""
    stuck, moved = _stuck(evidence)
    if stuck.any() and moved.any():
        norm, steps = evidence.at("grad_norm"), int(evidence.at("stepped"))
        code = "gradient of rounding" if norm < _NOTHING else ""
        return dict(code=code, value=norm, at=listed(stuck, evidence.names), n=steps)
    trained = np.isfinite(np.asarray(evidence.new["still"], dtype=np.float64))
    if len(trained) < 3 or trained.sum() != 1:
        return None
    return dict(code="one tensor trained", at=listed(trained, evidence.names), n=len(trained))


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


def _critic_still(evidence: AlarmEvidence) -> _Found:
    """A critic that none of its optimiser's steps has changed."""
    stepped, looked = evidence.at("critic_stepped"), int(evidence.at("looked"))
    if evidence.at("critic_steps") == 0:
        return dict(code="critic is not stepped", n=looked)
    if not (stepped >= _FEWEST and evidence.at("critic_still") >= stepped):
        return None
    rate, norm = _rate(evidence.at("critic_rate")), evidence.at("critic_norm")
    return dict(value=stepped, n=looked, threshold=norm, at=rate)


def _actor_rate(evidence: AlarmEvidence) -> _Found:
    """Steps that are far too long for the policy."""
    return _too_long(evidence.at("update_ratio"), evidence.at("learning_rate"))


def _critic_rate(evidence: AlarmEvidence) -> _Found:
    """The same of the critic."""
    return _too_long(evidence.at("critic_ratio"), evidence.at("critic_rate"))


def _too_long(ratio: float, rate: float) -> _Found:
    return dict(value=ratio, at=_rate(rate)) if ratio > _LONG and rate >= _HIGH else None


def _rate(rate: float) -> str:
    return f" at the learning rate {rate:g}" if np.isfinite(rate) else ""


_OF_TENSORS = ("still", "zero", "layer_norm")
_MOVES = ("stepped", "looked", "grad_norm", *_OF_TENSORS)


HALF = 0.5  # of the actions
_RECENT = 16  # rows whose passes are judged together
_BORN = 0.02  # of the gradient through a tanh, in a window in which sound actors let 5% or more
_FULL = 0.99  # of the actions at their limits
_COST = 0.1  # of it, above which a saturated actor still learns


def saturated(evidence: AlarmEvidence) -> _Found:
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
    return dict(at=str(j), value=share[j], low=share[j] - margin, n=n)


def _passed(row: Row, actions: int) -> NDArray[np.float64]:
    """The share that a tanh lets through by action; NaN where it is not known."""
    return np.asarray(row.get("attenuation", np.full(actions, np.nan)), dtype=np.float64)


def _model_trained(evidence: AlarmEvidence) -> _Found:
    """θ and the model's parameters are not apart."""
    count, shared = (int(evidence.new[name]) for name in ("model_gradients", "model_shared"))
    return dict(value=count, n=shared) if count or shared else None


_OF_CRITICS = tuple(f"critic_{each}" for each in ("steps", "stepped", "still", "norm", "rate"))
_OF_VITALS = (
    (NONFINITE, ("looked", "nonfinite", "nonfinite_updates"), _nonfinite),
    ("dead path", ("looked", "zero"), _dead_parameters),
    ("dead outputs", ("looked", "dead_outputs"), _dead_outputs),
    ("actor does not move", _MOVES, _actor_still),
    ("actor moves in part", _MOVES, _actor_partly_still),
    (RESTING, ("looked", *_OF_CRITICS), _critic_still),
    ("learning rate too large", ("update_ratio", "learning_rate"), _actor_rate),
    ("critic's learning rate too large", ("critic_ratio", "critic_rate"), _critic_rate),
    ("saturated actor", ("saturation", "watched"), saturated),
    ("θ leaks into the model", ("model_gradients", "model_shared"), _model_trained),
)
ALARMS = (
    *(AlarmTest(kind, "vitals", columns, found) for kind, columns, found in _OF_VITALS),
    AlarmTest("gradient no better than noise", "successive", ("pairs", *_PRODUCTS), noise),
    AlarmTest("dead inputs", "successive", ("dead_inputs",), _dead_inputs),
    *task.ALARMS,
)


def examine(table: str, evidence: AlarmEvidence) -> list[Alarm]:
    """The alarms that the newest row of a table raises."""
    alarms = (test(evidence) for test in ALARMS if test.table == table)
    return [alarm for alarm in alarms if alarm is not None]
