"""Through the simulator, 5 steps, θ in every action (BPTT)."""

from gradlab import Estimator, Tail

NAME = "simulator, BPTT at h = 5"
SIMULATOR = True


def make(task, critic):
    return Estimator(task.simulator, task.simulator, "all", Tail(5, critic, task.discount))
