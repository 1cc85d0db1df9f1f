"""The alarms of the probe's tables, in the order in which a row is tested.

    ends early    share that reaches the longest horizon + √(ln(1/level) / 2n) < ½
                  (paths in gradlab's own training loop; Hoeffding, n paths as independent)

Alarms of single events, such as the origin of a NaN, are raised where the event is detected.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from gradlab.probe.alarms import gradients, policy, steps, task
from gradlab.probe.alarms.evidence import ALPHA, Alarm, AlarmEvidence, AlarmTest
from gradlab.probe.alarms.gradients import NOISE
from gradlab.probe.alarms.policy import HALF

__all__ = ["ALARMS", "ALPHA", "HALF", "NOISE", "Alarm", "AlarmEvidence", "AlarmTest", "examine"]


def _ended_early(evidence: AlarmEvidence) -> str | None:
    """Most paths end before the longest horizon."""
    share = float(np.asarray(evidence.new["reached"]).reshape(-1)[-1])
    n = int(evidence.new["starts"])
    if not n or not share + sqrt(log(1 / evidence.level) / (2 * n)) < 0.5:
        return None
    return (
        f"{share:.0%} of the model's paths last for the horizon {evidence.at('longest'):.0f} that "
        f"is asked for ({n} paths; certainly fewer than half), the mean one "
        f"{evidence.at('lasted'):.2g} steps: what is followed is a shorter horizon's gradient; "
        f"shorten it, or value states beyond terminal ones"
    )


ALARMS = (
    *gradients.ALARMS,
    *steps.ALARMS,
    *policy.ALARMS,
    *task.ALARMS,
    AlarmTest(
        "model paths end early",
        "horizons",
        ("reached", "lasted", "longest", "starts"),
        _ended_early,
    ),
)


def examine(table: str, evidence: AlarmEvidence) -> list[Alarm]:
    """The alarms that the newest row of a table raises."""
    alarms = (test(evidence) for test in ALARMS if test.table == table)
    return [alarm for alarm in alarms if alarm is not None]
