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

from collections.abc import Callable
from dataclasses import replace

from gradlab.checks.jacobians import CheckContext, jacobians, switches
from gradlab.checks.leaks import leaks
from gradlab.checks.numbers import finite, precision, scale
from gradlab.checks.premises import premises, states
from gradlab.errors import InputError, in_short
from gradlab.findings import Finding
from gradlab.systems.system import by_differences

FEW, DEAR = 32, 8  # starts, and of a simulator that is differenced

CHECKS: dict[str, Callable[[CheckContext], list[Finding]]] = {
    "premises": premises,
    "Jacobians": jacobians,
    "finite gradients": finite,
    "leaks of θ": leaks,
    "precision": precision,
    "scale": scale,
    "switches": switches,
    "states": states,
}

__all__ = ["CHECKS", "CheckContext", "run_checks"]


def run_checks(context: CheckContext) -> tuple[Finding, ...]:
    """All checks of a measurement, on a few of its starts."""
    begin, count = context.begin, DEAR if by_differences(context.task.simulator) else FEW
    few = begin.block(slice(0, min(count, len(begin.states))))
    context = replace(context, setting=replace(context.setting, starts=few))
    results: list[Finding] = []
    for name, check in CHECKS.items():
        try:
            results += check(context)
        except (RuntimeError, ValueError, ArithmeticError, InputError, AssertionError) as error:
            results.append(Finding("check_crashed", "fail", name, at=in_short(error)))
    return tuple(results)
