"""Alarms from the steps that optimisers make, and from returns that stay below the first ones.

    does not move   a tensor has a gradient, and no measured step changed a bit of it
    rate            |Δθ| / |θ| > 2% on average at a rate ≥ 0.01; defaults: at most 0.8% (74 runs)
    returns         t = (J̄_first − J̄_newest) / √(v/n + v/3n), v the larger variance, over `IN_A_ROW`
                    windows of 250 updates or more, none of which rose

All returns are tested against the same first window: at `_LEVEL` each, at most 0.3% of runs of a
hundred windows ring falsely (normal, t3, log-normal and with rare low ones, 2,000 runs each).
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from numpy.typing import NDArray

from gradlab.probe.alarms.evidence import BELOW, RESTING, Alarm, AlarmEvidence, AlarmTest, listed
from gradlab.runs.probe.returns import LEAST, Returns
from gradlab.statistics.intervals import student
from gradlab.wording import two

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
ALARMS = (
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
