"""Through the simulator, 5 steps, θ in the first action (MPG eq. 6)."""

from gradlab import Estimator, Tail

NAME = "simulator, first action at h = 5"
SIMULATOR = True


def make(task, critic):
    return Estimator(task.simulator, task.simulator, "first", Tail(5, critic, task.discount))
