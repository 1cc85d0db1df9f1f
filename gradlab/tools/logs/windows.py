"""Stretches of T steps of recorded trajectories, those that end in a terminal state included.

A trajectory that terminates has no reward afterwards: its window goes on in the terminal state,
dead, so that every window holds the whole return of its first state, and survivors are not
preferred. A trajectory that is truncated is left out where fewer than T steps are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.data.path import Path
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.gradients.starts import group_count

FEWEST = 4  # trajectories that a jackknife needs


@dataclass(frozen=True)
class Windows:
    """N windows; one trajectory is one group.

    Attributes:
        path: float64, noise of width 0, `alive` False after a terminal state. Where no action was
            recorded (dead, or the last), it is NaN.
        trajectories: that gave a window; left_out: that were too short for any.
        ended: share of windows that end in a terminal state.
    """

    path: Path
    trajectories: int
    left_out: int
    ended: float


def windows(record: Trajectories, steps: int, every: int | None = None) -> Windows:
    """Windows of `steps` transitions.

    Args:
        every: a window begins every so many steps of a trajectory; None: at its first alone.

    Raises:
        InputError: a count below 1, or fewer than four trajectories give a window.
    """
    for name, value in (("steps", steps), ("every", 1 if every is None else every)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}, expected an integer ≥ 1")
    first, end = bounds(record)
    row = torch.arange(len(record))
    offset = row - first
    wanted = offset == 0 if every is None else offset % every == 0
    whole = record.terminated[end] | (row + steps - 1 <= end)
    begin = row[wanted & whole]
    state, action = record.state.double(), record.action.double()
    after, last, n = record.next_state.double(), end[begin], len(begin)
    rows = begin + torch.arange(steps + 1)[:, None]
    inside = rows <= last
    rows = rows.clamp_max(len(record) - 1)
    states = torch.where(inside[..., None], state[rows], after[last])
    actions = torch.where(inside[..., None], action[rows], torch.nan)
    rewards = torch.where(inside[:-1], record.reward.double()[rows[:-1]], 0.0)
    path = Path(
        states=states,
        actions=actions,
        rewards=rewards,
        policy_noise=states.new_empty(steps + 1, n, 0),
        dynamics_noise=states.new_empty(steps, n, 0),
        alive=inside | ~record.terminated[last],
        weight=states.new_ones(n),
        group=record.trajectory[begin],
    )
    kept = group_count(path.group) if len(begin) else 0
    trajectories = int(torch.unique(record.trajectory).numel())
    if kept < FEWEST:
        raise InputError(
            f"data has {trajectories} trajectories, of which {kept} have {steps} steps or end in a "
            f"terminal state: expected at least {FEWEST}; lower the horizon or record more"
        )
    return Windows(path, kept, trajectories - kept, float((~path.alive[-1]).double().mean()))


def bounds(record: Trajectories) -> tuple[Tensor, Tensor]:
    """First and last row of each row's trajectory, [M] each."""
    _, counts = torch.unique_consecutive(record.trajectory, return_counts=True)
    last = counts.cumsum(0) - 1
    return (last - counts + 1).repeat_interleave(counts), last.repeat_interleave(counts)
