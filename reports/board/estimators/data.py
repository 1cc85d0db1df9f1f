"""The critic alone, at visited states (DPG, h = 0)."""

from gradlab import Estimator, Tail

NAME = "data (critic only)"


def make(task, critic):
    return Estimator(task.simulator, None, "first", Tail(0, critic, task.discount))
