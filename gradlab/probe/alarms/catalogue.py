"""Alarms: what a row of the probe says that a user should hear at once. Rows in, sentences out.

What the tests are stands beside them (`alarms_of_updates`, `alarms_of_steps`, `alarms_of_task`).
One that could ring by chance has a false-alarm rate of at most `ALPHA` over a whole run (`look`),
which `analyses.alarm_rates` has tried, with the power against known faults; sizes are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gradlab.probe.alarms.evidence import ALPHA, Alarm, Look
from gradlab.probe.alarms.steps import (
    actor_rate,
    actor_still,
    actor_thawed,
    critic_rate,
    critic_still,
)
from gradlab.probe.alarms.task import (
    critic_beyond_bound,
    critic_dominated,
    dead_actions,
    diverging,
    doubling,
    jacobian_drift,
    lost_jacobians,
    precision_limited,
    worse_than_data,
    wrong_direction,
)
from gradlab.probe.alarms.updates import (
    HALF,
    NOISE,
    dead_inputs,
    dead_parameters,
    model_trained,
    noise,
    nonfinite,
    saturated,
)

__all__ = ["ALPHA", "HALF", "NOISE", "TESTS", "Alarm", "Look", "examine"]

TESTS: Mapping[str, tuple[Callable[[Look], Alarm | None], ...]] = {
    "vitals": (
        nonfinite,
        dead_parameters,
        actor_still,
        actor_thawed,
        critic_still,
        actor_rate,
        critic_rate,
        saturated,
        model_trained,
    ),
    "successive": (noise, dead_inputs),
    "measured": (
        lost_jacobians,
        dead_actions,
        precision_limited,
        diverging,
        doubling,
        wrong_direction,
        worse_than_data,
        critic_dominated,
        critic_beyond_bound,
        jacobian_drift,
    ),
}


def examine(table: str, look: Look) -> list[Alarm]:
    """The alarms that the newest row of a table gives."""
    found = (test(look) for test in TESTS.get(table, ()))
    return [each for each in found if each is not None]
