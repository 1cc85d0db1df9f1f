"""The alarms of the probe's tables, in the order in which a row is tested.

Each is one `AlarmTest`, beside its formula in `gradients`, `steps`, `policy`, `task` or
`paths`. An alarm
that chance could raise has a false-alarm rate of at most `ALPHA` over a whole run (`evidence`),
which `analyses.alarms.alarm_rates` has tried, with the power against known faults; sizes are exact.
Alarms of single events, such as the origin of a NaN, are raised where the event is detected.
"""

from __future__ import annotations

from gradlab.probe.alarms import gradients, paths, policy, steps, task
from gradlab.probe.alarms.evidence import ALPHA, Alarm, AlarmEvidence, AlarmTest
from gradlab.probe.alarms.gradients import NOISE
from gradlab.probe.alarms.policy import HALF

__all__ = ["ALARMS", "ALPHA", "HALF", "NOISE", "Alarm", "AlarmEvidence", "AlarmTest", "examine"]

ALARMS = (*gradients.ALARMS, *steps.ALARMS, *policy.ALARMS, *task.ALARMS, *paths.ALARMS)


def examine(table: str, evidence: AlarmEvidence) -> list[Alarm]:
    """The alarms that the newest row of a table raises."""
    alarms = (test(evidence) for test in ALARMS if test.table == table)
    return [alarm for alarm in alarms if alarm is not None]
