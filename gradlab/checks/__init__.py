"""Checks of a measurement, which run beside it on a few of its starts.

    jacobians   closed forms and autodiff against differences; dead and vanishing inputs
    finite      NaN, inf and exact zeros in the gradients of every sample; growth of the chain
    leaks       θ in the documented actions only, and in nothing but the policy
    precision   float32 against float64
    scale       the size of each term over the horizon, critics, saturated actions
    switches    contacts and limits inside the stencil of Jacobians by differences
    premises    whether there is anything to decide: reward, policy, model and critic
    states      states where gradients are taken: alive ones, which learned models have seen

A check never stops a measurement: one that fails to run has that for its result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from gradlab.checks.jacobians import FEW, Inspection, jacobians, switches
from gradlab.checks.leaks import leaks
from gradlab.checks.numbers import finite, precision, scale
from gradlab.checks.premises import premises, states
from gradlab.errors import InputError, in_short
from gradlab.findings import Finding
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.setting import Setting, Starts
from gradlab.statistics.moments import Moments
from gradlab.tasks import Task
from gradlab.truth.outcome import linearization_price
from gradlab.truth.truth import Truth

FEWEST = 4  # starts, however dear
SECONDS = 1.5  # of one core, for the Jacobians along their paths, which checks make several times

__all__ = ["FEW", "Inspection", "Subject", "examine"]


@dataclass(frozen=True)
class Subject:
    """A measurement, and what it was made from.

    Attributes:
        setting, chosen: as they were measured (without entropy).
        policy, critics: the user's own, before they were copied.
        truth: what biases are measured against.
        at: the states at which first-action gradients were taken.
        cells: the moments of every estimator and horizon.
    """

    task: Task
    setting: Setting
    policy: nn.Module
    critics: Sequence[nn.Module]
    chosen: Mapping[str, Estimator]
    truth: Truth
    at: Starts
    cells: Mapping[tuple[str, int], Moments]


def examine(subject: Subject) -> tuple[Finding, ...]:
    """All checks of a measurement."""
    task, chosen, at, begin = subject.task, subject.chosen, subject.at, subject.setting.starts
    names = {id(task.simulator): "simulator"}
    if task.prior is not None:
        names.setdefault(id(task.prior), "prior model")
    # Fewer starts are looked at where Jacobians are dear.
    steps = max(estimator.tail.horizon for estimator in chosen.values())
    price = steps * linearization_price(task.simulator)
    affordable = min(max(int(SECONDS / price), FEWEST), FEW) if price else FEW
    few = begin.block(slice(0, min(affordable, len(begin.states))))
    setting = replace(subject.setting, starts=few)
    inspected = Inspection(chosen, setting, names, task.action_names, task.action_limit)
    systems = {inspected.name(system): system for system in inspected.systems()}
    checks = {
        "premises": partial(premises, inspected, task, subject.truth, begin, at),
        "Jacobians": partial(jacobians, inspected),
        "finite gradients": partial(finite, inspected, begin, subject.cells),
        "leaks of θ": partial(leaks, inspected, subject.policy, subject.critics, systems),
        "precision": partial(precision, inspected),
        "scale": partial(scale, inspected),
        "switches": partial(switches, inspected),
        "states": partial(states, inspected, at, task.state_names),
    }
    results: list[Finding] = []
    for name, check in checks.items():
        try:
            results += check()
        except (RuntimeError, ValueError, ArithmeticError, InputError, AssertionError) as error:
            results.append(Finding("check_crashed", "fail", name, at=in_short(error)))
    return tuple(results)
