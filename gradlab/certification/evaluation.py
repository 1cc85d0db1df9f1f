"""The step of a system as a plain function of rows z = (s, a), in blocks of one size.

Every call has one of two numbers of rows, the last block filled up: memory stays flat, and an
engine that compiles for a batch size compiles twice.

A system's own derivatives J = ∂(s', r)/∂(s, a) [N, ds + 1, ds + da], by both ways to get them.

step       autograd through `step`, one reverse sweep per output
linearize  the blocks that estimators use
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems.system import Linearization, System
from gradlab.user_code.calls import running

BLOCK, FEW = 4096, 256  # rows of a call; of one with few points
_SEVERAL = 4  # calls with few points, at most, that are made in place of one with many


@dataclass(frozen=True)
class Points:
    """Where derivatives are taken: z = (s, a) [N, ds + da] and noise [N, noise_dim] or None."""

    z: Tensor
    noise: Tensor | None

    def __len__(self) -> int:
        return len(self.z)

    def at(self, rows: Tensor | slice) -> Points:
        """Some of them."""
        return Points(self.z[rows], None if self.noise is None else self.noise[rows])

    def moved(self, z: Tensor) -> Points:
        """z [k · N, ·] with the noise of every point k times."""
        times = len(z) // len(self.z)
        return Points(z, None if self.noise is None else self.noise.repeat(times, 1))

    def float(self) -> Points:
        """In single precision."""
        return Points(self.z.float(), None if self.noise is None else self.noise.float())


def evenly(n: int, most: int) -> Tensor:
    """Rows of n, at most so many, evenly spread from the first to the last."""
    return torch.linspace(0, n - 1, min(most, n)).long()


def outputs(system: System, points: Points) -> Tensor:
    """y = (s', r) [N, ds + 1] of every point, without a graph, in blocks of one of two sizes."""
    size = FEW if len(points) <= _SEVERAL * FEW else BLOCK
    parts = [
        at_once(system, _filled(points.at(slice(start, start + size)), size))
        for start in range(0, len(points), size)
    ]
    return torch.cat(parts)[: len(points)]


def at_once(system: System, points: Points) -> Tensor:
    """y of all points as one batch.

    Raises:
        InputError: the step fails, or returns other shapes than [N, ds] and [N].
    """
    ds, n = system.state_dim, len(points)
    noise = None if points.noise is None else points.noise.clone()
    with torch.no_grad(), running("step", _remedy):
        out = system.step(points.z[:, :ds].clone(), points.z[:, ds:].clone(), noise)
    after, reward = out.state.detach(), out.reward.detach()
    if after.shape != (n, ds) or reward.shape != (n,):
        got = f"next state {list(after.shape)} and reward {list(reward.shape)}"
        raise InputError(f"step returned {got}, expected {[n, ds]} and {[n]}")
    return torch.cat([after, reward[:, None]], 1).to(points.z)


def _remedy(words: str) -> str:
    if "CUDA" in words or "cuda" in words:
        return ": this machine has no such GPU; build the simulator for the CPU"
    return ""


def _filled(points: Points, size: int) -> Points:
    """The block with its last row repeated up to `size` rows."""
    lacking = size - len(points)
    if lacking <= 0:
        return points
    rows = torch.cat([torch.arange(len(points)), torch.full((lacking,), len(points) - 1)])
    return points.at(rows)


SMALL = 32  # states of a call with few
Derivative = Callable[[System, Points], Tensor]


def sources(system: System) -> dict[str, Derivative]:
    """The ways that this system offers."""
    ways: dict[str, Derivative] = {"step": by_autograd} if system.differentiable else {}
    return ways | {"linearize": _by_linearize}


def by_autograd(system: System, points: Points) -> Tensor:
    """J by reverse sweeps through `step`.

    Raises:
        InputError: no output of `step` carries a graph.
    """
    return _in_blocks(_swept, system, points)


def _by_linearize(system: System, points: Points) -> Tensor:
    """J as `linearize` returns it."""
    return _in_blocks(_linearized, system, points)


def _in_blocks(derivative: Derivative, system: System, points: Points) -> Tensor:
    size = SMALL if len(points) <= SMALL else FEW
    parts = [
        derivative(system, _filled(points.at(slice(start, start + size)), size))
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
    return _joined(linear)


def _joined(linear: Linearization) -> Tensor:
    """The four blocks as one matrix [N, ds + 1, ds + da]."""
    by_state = torch.cat([linear.A, linear.r_s[:, None]], 1)
    by_action = torch.cat([linear.B, linear.r_a[:, None]], 1)
    return torch.cat([by_state, by_action], 2).detach()
