"""Through the simulator, 16 steps, θ in the first action (MPG eq. 6)."""

from gradlab import Estimator, Tail

NAME = "simulator, first action at h = 16"
SIMULATOR = True


def make(task, critic):
    return Estimator(task.simulator, task.simulator, "first", Tail(16, critic, task.discount))
