"""Through the model, 5 steps, θ in the first action (MPG eq. 6)."""

from gradlab import Estimator, Tail

NAME = "model, first action at h = 5"


def make(task, critic):
    if task.prior is None:
        return "the task has no model"
    return Estimator(task.prior, task.prior, "first", Tail(5, critic, task.discount))
