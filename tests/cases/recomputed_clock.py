"""Checkpointed substeps that read a clock, which has moved on when they are computed again.

Right: reverse mode of `plate(by_argument=False)` is wrong, and named by differences; its forward
mode, which recomputes nothing, equals the differences and is not blamed. `plate(by_argument=True)`
passes.
"""

import torch
from torch.utils.checkpoint import checkpoint

import gradlab

DT = 0.05


class World:
    def __init__(self, by_argument):
        self.clock, self.by_argument = 0.0, by_argument

    def substep(self, x, a, at=None):
        lamp = torch.cos(torch.tensor(3.0 * (self.clock if at is None else at), dtype=x.dtype))
        T, q = x.unbind(1)
        q = q + DT * (lamp * torch.tanh(a[:, 0]) * (1 + 0.5 * T) - q)
        return torch.stack([T + DT * (q - 0.2 * T**3), q], 1)

    def step(self, state, action):
        self.clock, x = 0.0, state
        for k in range(8):
            at = (k * DT,) if self.by_argument else ()
            x = checkpoint(self.substep, x, action, *at, use_reentrant=False)
            self.clock += DT
        return x, -((x[:, 0] - 0.5) ** 2) - 0.01 * action[:, 0] ** 2


def plate(by_argument):
    def starts(n, generator):
        return 0.5 * torch.randn(n, 2, generator=generator, dtype=torch.float64)

    system = gradlab.systems.from_function(World(by_argument).step, 2, 1)
    return gradlab.Task("plate", system, None, starts, discount=0.95, horizon=10)
