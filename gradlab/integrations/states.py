"""Is what a loop observes the state of the task? By width, and by one step of its simulator.

|f(s, a) − s'| ≤ 1% |s' − s| + 10⁻⁵        for the loop's own (s, a, s')
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from gradlab.errors import InputError
from gradlab.probe.isolation import undisturbed
from gradlab.tasks import Task

PART = 0.01  # of the way that the state went
ROUNDING = 1e-5
Transition = tuple[Any, Any, Any]


def check_widths(task: Task, observation: tuple[int, ...], action: tuple[int, ...]) -> None:
    """Raises InputError where observations or actions are not shaped as the task's."""
    simulator = task.simulator
    pairs = (
        ("observations", observation, "states", simulator.state_dim),
        ("actions", action, "actions", simulator.action_dim),
    )
    for ours, shape, theirs, width in pairs:
        if tuple(shape) != (width,):
            raise InputError(
                f"{ours} have shape {tuple(shape)}, but the {theirs} of task {task.name!r} have "
                f"shape ({width},): give a task in the policy's own coordinates, or none"
            )


def compare(task: Task, transition: Callable[[], Transition | None]) -> None:
    """Warns in one line where the task's simulator goes elsewhere than the loop's environment.

    Args:
        transition: gives (s, a, s') of the loop, [ds], [da], [ds], or None where it has none.

    Nothing that fails in here reaches the loop. A simulator with noise is not judged.
    """
    try:
        pair = transition()
        words = "" if pair is None or task.simulator.noise_dim else _difference(task, *pair)
    except Exception as error:
        words = f"a step of the loop could not be compared with the task's simulator ({error})"
    if words:
        with suppress(Warning):  # where warnings are errors, too
            warnings.warn(f"gradlab's probe: {words}", RuntimeWarning, stacklevel=2)


def _difference(task: Task, state: Any, action: Any, after: Any) -> str:
    given = (np.asarray(each, dtype=np.float64) for each in (state, action, after))
    s, a, s_ = (each.reshape(1, -1) for each in given)
    with undisturbed(), torch.no_grad():
        predicted = task.simulator.step(torch.from_numpy(s), torch.from_numpy(a)).state.numpy()
    error, way = float(np.linalg.norm(predicted - s_)), float(np.linalg.norm(s_ - s))
    if error <= PART * way + ROUNDING:
        return ""
    return (
        f"task {task.name!r} is not the loop's environment: from its observation and action the "
        f"simulator ends {error:.2g} away, in a step of {way:.2g}; what is measured on the task is "
        f"of another system"
    )
