"""A comparison of Jacobians of two small systems, and what its verdict says."""

from dataclasses import replace

import torch

import gradlab
from gradlab import systems
from gradlab.data.noise import stream
from gradlab.tools.jacobians.page import verdict


class PlantedSystem:
    """A system whose derivatives are written by hand: `linearize` of a subclass has the fault."""

    differentiable = False

    def __init__(self, system, fault):
        self.system, self.fault = system, fault

    def __getattr__(self, name):
        return getattr(self.system, name)


def system(strength):
    def step(s, a):
        moved = torch.stack([s[:, 0] + 0.2 * s[:, 1], 0.9 * s[:, 1] + a[:, 0]], 1)
        return moved + strength * torch.sin(s), -(s**2).sum(1) - (1 + strength) * a[:, 0] ** 2

    return systems.from_function(step, state_dim=2, action_dim=1)


def policy():
    network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(network.weight, -0.2)
    return network


def starts(n=32):
    return torch.randn(n, 2, generator=stream(0, "test"), dtype=torch.float64)


def compared(model=True, names=("position [m]", "speed [m/s]"), **settings):
    data = (starts(200), torch.randn(200, 1, generator=stream(1, "test")).double())
    return gradlab.compare_jacobians(
        system(0.0),
        system(0.05) if model else None,
        starts(),
        policy(),
        data if model else None,
        state_names=names,
        action_names=("push [N]",),
        settings={"task": "mine", "command": "gradlab jacobians mine"} | settings,
    )


def said(run, about):
    (found,) = [each for each in verdict(run) if each.about == about]
    return found


def grown(run, section, quantity, factor, **where):
    """The run with some numbers multiplied."""
    columns = {name: column.copy() for name, column in run.columns.items()}
    rows = run.rows(section, quantity=quantity, **where).index
    for name in ("value", "ci_low", "ci_high"):
        columns[name][rows] *= factor
    return replace(run, columns=columns)
