"""A system's own derivatives J = ∂(s', r)/∂(s, a) [N, ds + 1, ds + da], by both ways to get them.

step       autograd through `step`, one reverse sweep per output
linearize  the blocks that estimators use
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradlab.certification.evaluation import FEW, Points, filled
from gradlab.errors import InputError
from gradlab.systems.system import Linearization, System
from gradlab.user_code.calls import running

SMALL = 32  # states of a call with few
Derivative = Callable[[System, Points], Tensor]


def sources(system: System) -> dict[str, Derivative]:
    """The ways that this system offers."""
    ways: dict[str, Derivative] = {"step": by_autograd} if system.differentiable else {}
    return ways | {"linearize": by_linearize}


def by_autograd(system: System, points: Points) -> Tensor:
    """J by reverse sweeps through `step`.

    Raises:
        InputError: no output of `step` carries a graph.
    """
    return _in_blocks(_swept, system, points)


def by_linearize(system: System, points: Points) -> Tensor:
    """J as `linearize` returns it."""
    return _in_blocks(_linearized, system, points)


def _in_blocks(derivative: Derivative, system: System, points: Points) -> Tensor:
    size = SMALL if len(points) <= SMALL else FEW
    parts = [
        derivative(system, filled(points.at(slice(start, start + size)), size))
        for start in range(0, len(points), size)
    ]
    return torch.cat(parts)[: len(points)]


def _swept(system: System, points: Points) -> Tensor:
    ds = system.state_dim
    with torch.inference_mode(False), torch.enable_grad():
        z = points.z.detach().clone().requires_grad_()
        noise = None if points.noise is None else points.noise.clone()
        with running("step", lambda _: ": its rows are to be differentiable tensors"):
            out = system.step(z[:, :ds], z[:, ds:], noise)
        y = torch.cat([out.state, out.reward[:, None]], 1)
        if not y.requires_grad:
            raise InputError(
                "step is not differentiable: its next state and reward carry no graph; compute "
                "them with torch operations, without detach() and torch.no_grad(), or set "
                "differentiable = False"
            )
        rows = []
        for i in range(ds + 1):
            with running("the backward pass of step"):
                (row,) = torch.autograd.grad(y[:, i].sum(), z, retain_graph=True, allow_unused=True)
            rows.append(torch.zeros_like(z) if row is None else row)
    return torch.stack(rows, 1).detach()


def _linearized(system: System, points: Points) -> Tensor:
    ds = system.state_dim
    with running("linearize"):
        linear = system.linearize(points.z[:, :ds], points.z[:, ds:], points.noise)
    return joined(linear)


def joined(linear: Linearization) -> Tensor:
    """The four blocks as one matrix [N, ds + 1, ds + da]."""
    by_state = torch.cat([linear.A, linear.r_s[:, None]], 1)
    by_action = torch.cat([linear.B, linear.r_a[:, None]], 1)
    return torch.cat([by_state, by_action], 2).detach()
