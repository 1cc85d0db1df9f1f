"""Through the model, 16 steps, θ in every action (BPTT, MPG eq. 5)."""

from gradlab import Estimator, Tail

NAME = "model, BPTT at h = 16"


def make(task, critic):
    if task.prior is None:
        return "the task has no model"
    return Estimator(task.prior, task.prior, "all", Tail(16, critic, task.discount))
