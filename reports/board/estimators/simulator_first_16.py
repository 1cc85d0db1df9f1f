"""Through the simulator, 16 steps, θ in the first action (MPG eq. 6)."""

from gradlab import Estimator, Tail

SIMULATOR = True


def make(task, critic):
    return Estimator(task.simulator, task.simulator, "first", Tail(16, critic, task.discount))
