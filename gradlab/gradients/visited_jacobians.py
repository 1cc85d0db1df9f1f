"""Jacobians of the simulator and of a model at every state and action of one path, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.path import Path
from gradlab.gradients.rollout import jacobian_noise, row_blocks
from gradlab.progress import Progress
from gradlab.systems.system import BLOCKS, System, linearize_running, step_running, whole

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Blocks:
    """Jacobians along a path and their certificate.

    Attributes:
        J: [H, N, ds + 1, ds + da], rows s' and r, columns s and a.
        flags: [H, N], samples whose Jacobian failed its certificate.
        finite: [H, N], samples whose Jacobian is finite.
        errors: estimated relative error per block, each [H, N].
        step: of the finite differences, [H, N], or None for exact derivatives.
    """

    J: Array
    flags: Flags
    finite: Flags
    errors: Mapping[str, Array]
    step: Array | None

    @property
    def usable(self) -> Flags:
        return ~self.flags & self.finite


@dataclass(frozen=True, eq=False)
class Visited:
    """A path, the simulator's Jacobians along it, and a model's where there is one.

    Attributes:
        states [H + 1, N, ds], actions [H, N, da], rewards [H, N], alive [H + 1, N], group [N].
        K: ∂π/∂s, [H, N, da, ds].
        true, guess: the simulator's and the model's blocks.
        predicted: the model's mean next state and reward, [H, N, ds + 1].
    """

    states: Array
    actions: Array
    rewards: Array
    alive: Flags
    group: NDArray[np.int64]
    K: Array
    true: Blocks
    guess: Blocks | None = None
    predicted: Array | None = None

    @property
    def kept(self) -> Flags:
        """[H, N], the samples that are compared."""
        return self.true.usable if self.guess is None else self.true.usable & self.guess.usable

    @property
    def wrong(self) -> Array:
        """ΔJ, the model's Jacobian less the simulator's; 0 where masked."""
        assert self.guess is not None
        with np.errstate(invalid="ignore"):
            difference = self.guess.J - self.true.J
        return np.where(self.kept[..., None, None], difference, 0.0)

    @property
    def spread(self) -> tuple[Array, Array]:
        """Standard deviations along the path: of rows (s', r) [ds + 1], columns (s, a) [ds + da].

        What does not vary, or is masked altogether, has the scale 1.
        """
        if not self.kept.any():
            ds, da = self.states.shape[2], self.actions.shape[2]
            return np.ones(ds + 1), np.ones(ds + da)
        s, a, r = self.states[:-1][self.kept], self.actions[self.kept], self.rewards[self.kept]
        with np.errstate(over="ignore", invalid="ignore"):
            rows = np.concatenate([s.std(0), r.std(0, keepdims=True)])
            columns = np.concatenate([s.std(0), a.std(0)])
        return np.where(rows > 0, rows, 1.0), np.where(columns > 0, columns, 1.0)


def visit(
    simulator: System, model: System | None, path: Path, K: Tensor, progress: Progress
) -> Visited:
    """Differentiate both along the path."""
    visited = Visited(
        states=path.states.numpy(),
        actions=path.actions[:-1].numpy(),
        rewards=path.rewards.numpy(),
        alive=path.alive.numpy(),
        group=path.group.numpy(),
        K=K[:-1].detach().numpy(),
        true=blocks(simulator, path, path.dynamics_noise, progress, "simulator"),
    )
    if model is None:
        return visited
    guess = blocks(model, path, jacobian_noise(simulator, model, path), progress, "model")
    H, n = path.rewards.shape
    s, a = path.states[:-1].flatten(0, 1), path.actions[:-1].flatten(0, 1)
    with torch.no_grad():
        out = step_running(model, s, a, None)
    predicted = torch.cat([out.state, out.reward[:, None]], 1).reshape(H, n, -1)
    return replace(visited, guess=guess, predicted=predicted.numpy())


def blocks(
    system: System, path: Path, noise: Tensor | None, progress: Progress, stage: str
) -> Blocks:
    """Jacobians of one system at every step of the path, in blocks of rows."""
    H, n = path.rewards.shape
    s, a = path.states[:-1].flatten(0, 1), path.actions[:-1].flatten(0, 1)
    xi = None if noise is None else noise.flatten(0, 1)
    linear = []
    for rows in row_blocks(H * n):
        given = None if xi is None else xi[rows]
        linear.append(linearize_running(system, s[rows], a[rows], given))
        progress(f"Jacobians of the {stage}", rows.stop, H * n)

    def joined(parts: list[Tensor]) -> Any:
        together = torch.cat(parts).detach().cpu().numpy()
        return together.reshape(H, n, *together.shape[1:])

    J = joined([whole(x) for x in linear])
    steps = [x.certificate.step for x in linear if x.certificate.step is not None]
    return Blocks(
        J=J,
        flags=joined([x.certificate.flags for x in linear]),
        finite=np.isfinite(J).all((2, 3)),
        errors={name: joined([x.certificate.error[name] for x in linear]) for name in BLOCKS},
        step=joined(steps) if steps else None,
    )


def jacobian_squares(visited: Visited) -> dict[str, tuple[Array, Array]]:
    """Block → squared norms of its error and of itself, each [H, N]."""
    ds = visited.states.shape[2]
    true, wrong = visited.true.J, visited.wrong
    s, r = slice(0, ds), slice(ds, None)
    parts = {"A": (s, s), "B": (s, r), "r_s": (r, s), "r_a": (r, r)}
    return {
        block: (_square(wrong[..., i, j]), _square(true[..., i, j]))
        for block, (i, j) in parts.items()
    }


def _square(X: Array) -> Array:
    return np.asarray((X**2).sum((2, 3)))
