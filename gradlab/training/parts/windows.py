"""On-policy windows as paths: which rows follow one another, and where a path stops.

A window has the environments' steps one after another, [E, steps · agents, ·]. Cut into paths it
has a path's steps side by side, [E, paths · steps, ·], so that whatever acts on rows acts on all
steps at once.
"""

from __future__ import annotations

from torch import Tensor

from gradlab.data.replay import Batch


def by_path(batch: Batch, steps: int, agents: int) -> Batch:
    """The rows of a window, those of one path of `steps` steps side by side."""

    def ordered(values: Tensor) -> Tensor:
        apart = values.reshape(len(values), -1, steps, agents, *values.shape[2:])
        return apart.transpose(2, 3).flatten(1, 3)

    return Batch(**{name: ordered(values) for name, values in batch.tensors.items()})


def goes_on(paths: Batch, steps: int) -> Tensor:
    """Whether the next row is the next step of the same episode, bool [E, paths, steps]; False at
    the last one."""
    after, state = (split(x, steps) for x in (paths.next_state, paths.state))
    same = paths.terminated.new_zeros(after.shape[:3]).bool()
    same[..., :-1] = (after[:, :, :-1] == state[:, :, 1:]).all(dim=3)
    return same & (split(paths.terminated, steps) < 0.5)


def split(values: Tensor, steps: int) -> Tensor:
    """[E, paths · steps, ·] → [E, paths, steps, ·]."""
    return values.reshape(len(values), -1, steps, *values.shape[2:])
