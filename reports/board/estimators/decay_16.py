"""Through the simulator, 16 steps, θ in every action, derivatives decayed by .9 a step."""

from gradlab import Estimator, Tail
from gradlab.gradients.courses import Cut

NAME = "decay 0.9, BPTT at h = 16"
SIMULATOR = True


def make(task, critic):
    tail = Tail(16, critic, task.discount)
    return Estimator(task.simulator, task.simulator, "all", tail, cut=Cut(decay=0.9))
