"""Through the simulator, 5 steps, θ in every action (BPTT)."""

from gradlab import Estimator, Tail

SIMULATOR = True


def make(task, critic):
    return Estimator(task.simulator, task.simulator, "all", Tail(5, critic, task.discount))
