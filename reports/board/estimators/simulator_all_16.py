"""Through the simulator, 16 steps, θ in every action (BPTT)."""

from gradlab import Estimator, Tail

SIMULATOR = True


def make(task, critic):
    return Estimator(task.simulator, task.simulator, "all", Tail(16, critic, task.discount))
