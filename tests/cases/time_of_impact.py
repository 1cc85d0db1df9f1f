"""A ball that bounces within a step, with and without the time of its impact.

Right: every step's derivatives are its own, but without the time of impact (`cushion(plain)`) those
of the return have the wrong sign: a start's velocity changes when the ball bounces, which no
derivative of a step sees. A certificate sends to `gradlab measure`, which finds the jump.

With it, and without friction (`cushion(free)`), the ball runs far off: the return bends within an
update, and gradient and return are of one problem.
"""

import torch

import gradlab

DT = 0.1


def plain(state, action):
    x, v = state.unbind(1)
    v = 0.9 * v + DT * torch.tanh(action[:, 0])
    v = torch.where((x + DT * v < 0) & (v < 0), -v, v)
    x = x + DT * v
    return torch.stack([x, v], 1), -((x - 1.0) ** 2)


def impact(state, action, kept=0.9):
    x, v = state.unbind(1)
    v = kept * v + DT * torch.tanh(action[:, 0])
    x = x + DT * v
    side = torch.where((x < 0) & (v < 0), -1.0, 1.0)
    return torch.stack([side * x, side * v], 1), -((side * x - 1.0) ** 2)


def free(state, action):
    return impact(state, action, kept=1.0)


def cushion(step):
    def starts(n, generator):
        x, v = torch.rand(2, n, generator=generator, dtype=torch.float64)
        return torch.stack([0.2 + 0.6 * x, -1.0 - v], 1)

    system = gradlab.systems.from_function(step, 2, 1)
    return gradlab.Task("cushion", system, None, starts, discount=0.99, horizon=12)


def policy():
    torch.manual_seed(0)
    layers = torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1)
    return torch.nn.Sequential(*layers).double()
