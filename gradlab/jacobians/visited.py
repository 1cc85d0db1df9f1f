"""Jacobians of the simulator and of a model at every state and action of one path, as arrays.

Rows of the long table, from estimates of K numbers at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.path import Path
from gradlab.gradients.rollout import jacobian_noise, row_blocks
from gradlab.progress import Progress
from gradlab.runs.long_table import COLUMNS, NUMBERS
from gradlab.statistics.over_groups import Estimates
from gradlab.systems.system import BLOCKS, System, linearize_running, step_running

_Label = str | Sequence[str] | NDArray[np.object_]


@dataclass(frozen=True)
class At:
    """What rows are of; a label is one for all of them, or one each."""

    block: _Label = ""
    output: _Label = ""
    input: _Label = ""
    step: float | NDArray[Any] = np.nan
    x: float | NDArray[Any] = np.nan


_NOWHERE = At()


@dataclass
class RowCollector:
    """Collects rows; `columns` is the table by column."""

    parts: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    def add(self, section: str, quantity: str, estimates: Estimates, at: At = _NOWHERE) -> None:
        """One row per estimate."""
        values = {
            "section": section,
            "block": at.block,
            "output": at.output,
            "input": at.input,
            "step": at.step,
            "x": at.x,
            "quantity": quantity,
            "value": estimates.value,
            "se": estimates.se,
            "ci_low": estimates.low,
            "ci_high": estimates.high,
            "n": estimates.n,
            "method": estimates.method,
        }
        rows = len(estimates.value)
        self.parts.append({name: _column(name, values[name], rows) for name in COLUMNS})

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        return {name: np.concatenate([part[name] for part in self.parts]) for name in COLUMNS}


def number(value: float, low: float, high: float, n: int, method: str) -> Estimates:
    """A single number with its interval, where it has one."""
    centre, se, lower, upper = (np.array([float(x)]) for x in (value, np.nan, low, high))
    return Estimates(centre, se, lower, upper, np.array([n]), method)


def _column(name: str, value: object, rows: int) -> NDArray[Any]:
    kind: Any = np.int64 if name == "n" else np.float64 if name in NUMBERS else object
    return np.broadcast_to(np.asarray(value, dtype=kind), (rows,)).copy()


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
    return replace(visited, guess=guess, predicted=_predicted(model, path))


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

    by_state = torch.cat([torch.cat([x.A, x.r_s[:, None]], 1) for x in linear])
    by_action = torch.cat([torch.cat([x.B, x.r_a[:, None]], 1) for x in linear])
    J = joined([torch.cat([by_state, by_action], 2)])
    steps = [x.certificate.step for x in linear if x.certificate.step is not None]
    return Blocks(
        J=J,
        flags=joined([x.certificate.flags for x in linear]),
        finite=np.isfinite(J).all((2, 3)),
        errors={name: joined([x.certificate.error[name] for x in linear]) for name in BLOCKS},
        step=joined(steps) if steps else None,
    )


def _predicted(model: System, path: Path) -> Array:
    H, n = path.rewards.shape
    s, a = path.states[:-1].flatten(0, 1), path.actions[:-1].flatten(0, 1)
    with torch.no_grad():
        out = step_running(model, s, a, None)
    return torch.cat([out.state, out.reward[:, None]], 1).reshape(H, n, -1).numpy()
