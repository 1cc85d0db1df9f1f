"""Start here: a task is a simulator, its prior model, a start law, a discount and a horizon.

    task = gradlab.tasks.path_tracking(parameters="table3")
    task = Task("mine", simulator, prior, starts, discount=0.98, horizon=25)

In every N(m, x) below, x is the standard deviation. Each family of tasks is a file. Its name
differs from its factories', which it would hide. `TASKS` has the names of the command line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

from gradlab import validation
from gradlab.errors import InputError
from gradlab.tasks.classic import (
    cart_pole_swing_up,
    double_integrator,
    inverted_pendulum,
    linear_quadratic,
    path_tracking,
    pendulum,
)
from gradlab.tasks.environments import MUJOCO_TASKS, mujoco, view, with_learned_prior
from gradlab.tasks.memory import with_memory
from gradlab.tasks.task import Starts, Task, nearest, trimmed
from gradlab.tasks.world_models import with_world_model
from gradlab.user_code import called, is_user_function, load_object

__all__ = [
    "TASKS",
    "Starts",
    "Task",
    "cart_pole_swing_up",
    "double_integrator",
    "inverted_pendulum",
    "linear_quadratic",
    "mujoco",
    "path_tracking",
    "pendulum",
    "task_from_name",
    "trimmed",
    "view",
    "with_learned_prior",
    "with_memory",
    "with_world_model",
]

TASKS: dict[str, Callable[..., Task]] = {
    "path_tracking": path_tracking,
    "inverted_pendulum": inverted_pendulum,
    "pendulum": pendulum,
    "cart_pole_swing_up": cart_pole_swing_up,
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
    mine = is_user_function(name)
    if not mine and name not in TASKS:
        raise InputError(f"no task is called {name!r}{nearest(name, TASKS)}")
    factory = load_object(name) if mine else TASKS[name]
    if isinstance(factory, Task) and not settings:
        return factory
    validation.function(name, factory, "settings that makes a Task")
    signature = inspect.signature(factory)
    try:
        signature.bind(**settings)
    except TypeError as error:
        unknown = [setting for setting in settings if setting not in signature.parameters]
        hint = nearest(unknown[0], signature.parameters) if unknown else ""
        raise InputError(f"{name} {error}{hint}") from None
    task = called(name, factory, **settings) if mine else factory(**settings)
    made = "a gradlab.Task(name, simulator, prior, starts, discount, horizon)"
    validation.instance(f"what {name} returns", task, Task, made)
    return task
