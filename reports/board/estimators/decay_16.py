"""Through the simulator, 16 steps, θ in every action, derivatives decayed by .9 a step."""

from gradlab import Estimator, Tail
from gradlab.gradients.courses import Cut

NAME = "simulator, BPTT at h = 16, decay 0.9"
SIMULATOR = True


def make(task, critic):
    tail = Tail(16, critic, task.discount)
    return Estimator(task.simulator, task.simulator, "all", tail, cut=Cut(decay=0.9))
