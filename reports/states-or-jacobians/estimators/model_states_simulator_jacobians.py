"""States of the model, Jacobians of the simulator, 8 steps, θ in every action."""

from gradlab import Estimator, Tail

SIMULATOR = True


def make(task, critic):
    return Estimator(task.prior, task.simulator, "all", Tail(8, critic, task.discount))
