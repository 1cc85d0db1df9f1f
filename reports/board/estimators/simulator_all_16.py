"""Through the simulator, 16 steps, θ in every action (BPTT)."""

from gradlab import Estimator, Tail

NAME = "simulator, BPTT at h = 16"
SIMULATOR = True


def make(task, critic):
    return Estimator(task.simulator, task.simulator, "all", Tail(16, critic, task.discount))
