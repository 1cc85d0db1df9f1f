"""Jacobians by differences, where a contact or a limit switches inside their stencil.

A flagged Jacobian was retried down to a thousandth of its step and failed its certificate there,
too: it is no derivative, but jump/2ε, and one of them can outweigh all other samples. It is
not left out: estimators and truth are measured on the same paths, so that it enters both, and
leaving out whole samples would change the law of the starts. It is counted here instead.
"""

from __future__ import annotations

import torch

from gradlab.checks.inspection import Inspection
from gradlab.runs.check_results import CheckResult
from gradlab.systems.entropy import Entropic
from gradlab.systems.mujoco import MujocoEnvironment


def switches(inspected: Inspection) -> list[CheckResult]:
    """One finding per estimator that differentiates a system by differences."""
    return [
        finding
        for name, each in inspected.pathwise().items()
        if each.jacobians is not None and not each.jacobians.differentiable
        if (finding := _flagged(name, inspected)) is not None
    ]


def _flagged(name: str, inspected: Inspection) -> CheckResult | None:
    linear = inspected.along(inspected.estimators[name])
    if not linear.path.horizon:
        return None
    flags, path = linear.flags, linear.path
    share, touched = float(flags.double().mean()), int(flags.any(dim=0).sum())
    result = (
        f"{share:.2%} of {flags.numel()} Jacobians flagged ({int(flags.sum())}), in {touched} of "
        f"{flags.shape[1]} samples"
    )
    if bool(flags.any()):
        result += f"; first at step {int(flags.any(dim=1).int().argmax())}"
    lost = ~torch.isfinite(path.states).all(dim=2).all(dim=0)
    if bool(lost.any()):
        result += f"; {int(lost.sum())} simulations diverge"
    system = inspected.estimators[name].states
    system = system.system if isinstance(system, Entropic) else system
    if isinstance(system, MujocoEnvironment):
        beyond = system.beyond_limits(path.states.flatten(0, 1)).double().mean()
        result += f"; {float(beyond):.1%} of the states beyond a soft joint limit"
    meaning = "no contact or limit switches inside a stencil: the Jacobians are derivatives"
    if bool(flags.any()):
        meaning = (
            "these stay in the mean though they are jumps over a step, not derivatives, and one "
            "may outweigh all other samples: believe the comparison with common-random-number "
            "differences, or shorten the horizon"
        )
    return CheckResult(f"certified Jacobians of {name}", result, meaning, not bool(flags.any()))
