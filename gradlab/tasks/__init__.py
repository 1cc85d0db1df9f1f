"""Start here: a task is a simulator, its prior model, a start law, a discount and a horizon.

    task = gradlab.tasks.path_tracking(parameters="table3")
    task = Task("mine", simulator, prior, starts, discount=0.98, horizon=25)

In every N(m, x) below, x is the standard deviation. One file per family of tasks, named unlike
its factories, which it would hide.
"""

from gradlab.tasks.cartpole import inverted_pendulum
from gradlab.tasks.environments import mujoco, view
from gradlab.tasks.learned import with_learned_prior
from gradlab.tasks.linear import double_integrator, linear_quadratic
from gradlab.tasks.names import TASKS, task_from_name
from gradlab.tasks.swing_up import pendulum
from gradlab.tasks.task import Starts, Task
from gradlab.tasks.vehicle import path_tracking

__all__ = [
    "TASKS",
    "Starts",
    "Task",
    "double_integrator",
    "inverted_pendulum",
    "linear_quadratic",
    "mujoco",
    "path_tracking",
    "pendulum",
    "task_from_name",
    "view",
    "with_learned_prior",
]
