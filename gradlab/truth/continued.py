"""One path of the simulator with its Jacobians, made piece by piece on its own noise streams.

Noise belongs to a step's number, so a path that is continued equals the path made at once: the
truths of first and of all actions share one, and make it only as long as they turn out to need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gradlab.data.path import Path
from gradlab.gradients.rollout import LinearizedPath, linearize_path, rollout_with_jacobians
from gradlab.gradients.setting import Setting


def piece(
    setting: Setting, steps: int, *, first: int = 0, before: Path | None = None
) -> LinearizedPath:
    """`steps` steps of the simulator's path with its own Jacobians.

    Args:
        first: number of the first step; before: a path that ends there, None where `first` is 0.
    """
    simulator, now = setting.simulator, setting.starts
    if before is not None:
        now = replace(now, states=before.states[-1])
    path, K = rollout_with_jacobians(
        simulator, setting.policy, now, steps, setting.seed, first=first
    )
    if before is not None:
        path = replace(path, alive=path.alive & before.alive[-1])
    return linearize_path(path, simulator, K, path.dynamics_noise, setting.termination)


def joined(pieces: Sequence[LinearizedPath]) -> LinearizedPath:
    """The whole path of pieces that follow one another."""
    if len(pieces) == 1:
        return pieces[0]
    paths = [piece.path for piece in pieces]
    path = Path(
        states=_at_states([path.states for path in paths]),
        actions=_at_states([path.actions for path in paths]),
        rewards=torch.cat([path.rewards for path in paths]),
        policy_noise=_at_states([path.policy_noise for path in paths]),
        dynamics_noise=torch.cat([path.dynamics_noise for path in paths]),
        alive=_at_states([path.alive for path in paths]),
        weight=paths[0].weight,
        group=paths[0].group,
    )
    A, B, r_s, r_a, flags = (
        torch.cat([getattr(piece, name) for piece in pieces])
        for name in ("A", "B", "r_s", "r_a", "flags")
    )
    return LinearizedPath(path, A, B, r_s, r_a, _at_states([piece.K for piece in pieces]), flags)


def shortened(linear: LinearizedPath, steps: int) -> LinearizedPath:
    """The first steps of a path."""
    A, B, r_s, r_a, flags = (
        block[:steps] for block in (linear.A, linear.B, linear.r_s, linear.r_a, linear.flags)
    )
    return LinearizedPath(linear.path.cut(steps), A, B, r_s, r_a, linear.K[: steps + 1], flags)


def of_starts(linear: LinearizedPath, rows: slice) -> LinearizedPath:
    """A path from some of its starts."""
    A, B, r_s, r_a, K, flags = (
        block[:, rows]
        for block in (linear.A, linear.B, linear.r_s, linear.r_a, linear.K, linear.flags)
    )
    return LinearizedPath(linear.path.rows(rows), A, B, r_s, r_a, K, flags)


def _at_states(parts: Sequence[Tensor]) -> Tensor:
    """H steps have H + 1 states: each piece begins with the last one of the piece before."""
    return torch.cat([*(part[:-1] for part in parts[:-1]), parts[-1]])
