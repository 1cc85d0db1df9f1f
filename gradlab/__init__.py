"""gradlab: how good are your policy gradients?

measure(task, policy, critic) → Profile      bias, variance and MSE of every horizon
Estimator(states, jacobians, actions, tail)  any policy gradient as one value
report(path)                                 one HTML page to decide from
"""

from gradlab import figures, systems, tasks
from gradlab.gradients.estimator import Estimator, Tail
from gradlab.measurement import measure
from gradlab.profile import Profile, load
from gradlab.reporting import report
from gradlab.tasks import Task

__all__ = [
    "Estimator",
    "Profile",
    "Tail",
    "Task",
    "figures",
    "load",
    "measure",
    "report",
    "systems",
    "tasks",
]
