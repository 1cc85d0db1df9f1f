"""Linear policies, Gaussian starts and what tests of truths share."""

import torch
from torch import nn

from gradlab.gradients.setting import as_starts
from gradlab.systems.system import Linearization, System
from tests.gradients.worlds import matrix


def feedback(*gain):
    policy = nn.Linear(len(gain), 1, bias=False).double()
    policy.weight.data = -matrix(gain)
    return policy


def gaussian_starts(n, ds, mean=0.5):
    generator = torch.Generator().manual_seed(5)
    return as_starts(mean + torch.randn(n, ds, generator=generator, dtype=torch.float64), ds)


class Relinearized:
    """A system whose Jacobians are what `change` makes of states and the true ones."""

    def __init__(self, inner: System, change):
        self.inner, self.change = inner, change

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def linearize(self, state, action, noise=None) -> Linearization:
        return self.change(state, self.inner.linearize(state, action, noise))
