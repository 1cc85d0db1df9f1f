"""Tasks by name, as the command line finds them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from gradlab.errors import InputError
from gradlab.tasks.cartpole import inverted_pendulum
from gradlab.tasks.checks import nearest
from gradlab.tasks.environments import MUJOCO_TASKS
from gradlab.tasks.linear import double_integrator, linear_quadratic
from gradlab.tasks.swing import pendulum
from gradlab.tasks.task import Task
from gradlab.tasks.vehicle import path_tracking
from gradlab.user_code import load_function

TASKS: dict[str, Callable[..., Task]] = {
    "path_tracking": path_tracking,
    "inverted_pendulum": inverted_pendulum,
    "pendulum": pendulum,
    "linear_quadratic": linear_quadratic,
    "double_integrator": double_integrator,
    **MUJOCO_TASKS,
}


def task_from_name(name: str, settings: Mapping[str, object]) -> Task:
    """The task called `name`, or made by `function` of a user's own "file.py:function".

    Args:
        name: one of `TASKS`, or path and function.
        settings: arguments of the factory.
    """
    factory = load_function(name) if ".py:" in name else _named_factory(name)
    signature = inspect.signature(factory)
    try:
        signature.bind(**settings)
    except TypeError as error:
        unknown = [setting for setting in settings if setting not in signature.parameters]
        hint = nearest(unknown[0], signature.parameters) if unknown else ""
        raise InputError(f"{name} {error}{hint}") from None
    task = factory(**settings)
    if not isinstance(task, Task):
        raise InputError(f"{name} returned {type(task).__name__}, expected a gradlab Task")
    return task


def _named_factory(name: str) -> Callable[..., object]:
    if name not in TASKS:
        raise InputError(f"no task is called {name!r}{nearest(name, TASKS)}")
    return TASKS[name]
