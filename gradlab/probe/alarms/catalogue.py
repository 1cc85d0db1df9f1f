"""The alarms of the probe's tables, in the order in which a row is tested.

    saturation    share − √(ln(1/level) / 2n) > ½ (Hoeffding, n passes), and > ½ in 16 rows; or a
                  tanh has let under 2% of the gradient through since the first window

Alarms of single events, such as the origin of a NaN, are raised where the event is detected.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from gradlab.probe.alarms import gradients, steps, task
from gradlab.probe.alarms.evidence import ALPHA, Alarm, AlarmEvidence, AlarmTest, Row
from gradlab.probe.alarms.gradients import NOISE

__all__ = ["ALARMS", "ALPHA", "HALF", "NOISE", "Alarm", "AlarmEvidence", "AlarmTest", "examine"]

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
    *gradients.ALARMS,
    *steps.ALARMS,
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
