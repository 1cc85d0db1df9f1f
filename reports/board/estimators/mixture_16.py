"""Half the critic's own gradient, half the model's over 16 steps (MPG eq. 8)."""

from gradlab.gradients.named import mpg

NAME = "½ data + ½ model at h = 16"


def make(task, critic):
    if task.prior is None:
        return "the task has no model"
    return mpg(task.simulator, task.prior, critic, task.discount, 16, data_weight=0.5).parts
