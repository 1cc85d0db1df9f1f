"""The simulator's states, the model's derivatives, 16 steps, θ in every action."""

from gradlab import Estimator, Tail

NAME = "mixed, BPTT at h = 16"


def make(task, critic):
    if task.prior is None:
        return "the task has no model"
    return Estimator(task.simulator, task.prior, "all", Tail(16, critic, task.discount))
