"""Rows of experience as a record (`data.trajectories`), whether or not they follow one another.

Model fitting needs (s, a, r, s') only, so rows without episodes are trajectories of one step each;
with episode ids the rows of one id follow one another, and multi-step losses may use them. Saved
and loaded as every record is: `Trajectories.save`, `trajectories.load`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradlab.data.trajectories import DIMS, Trajectories
from gradlab.errors import InputError


def from_rows(
    state: Tensor,
    action: Tensor,
    reward: Tensor,
    next_state: Tensor,
    terminated: Tensor,
    episode: Tensor | None = None,
    state_names: tuple[str, ...] = (),
    action_names: tuple[str, ...] = (),
) -> Trajectories:
    """M transitions as a record.

    Args:
        state, next_state: [M, ds]; action: [M, da]; reward: [M].
        terminated: [M] bool, next_state is terminal.
        episode: [M] integers, the rows of one episode together and in order; None: no row follows
            another.

    Raises:
        InputError: wrong shapes or types, numbers that are not finite, an episode that jumps.
    """
    if not isinstance(state, Tensor) or state.ndim != 2:
        raise InputError("state is expected as a tensor [M, ds]")
    rows = torch.arange(len(state), device=state.device)
    episode = rows if episode is None else episode
    if episode.shape != rows.shape or episode.is_floating_point():
        got = f"{episode.dtype} {tuple(episode.shape)}"
        raise InputError(f"episode is {got}, expected integers [{len(rows)}]")
    if terminated.shape != rows.shape or terminated.dtype != torch.bool:
        got = f"{terminated.dtype} {tuple(terminated.shape)}"
        raise InputError(f"terminated is {got}, expected torch.bool [{len(rows)}]")
    starts = torch.ones_like(terminated)
    starts[1:] = episode[1:] != episode[:-1]
    begin = torch.where(starts, rows, 0).cummax(0).values
    return Trajectories(
        trajectory=episode.long(),
        step=rows - begin,
        state=state,
        action=action,
        reward=reward,
        next_state=next_state,
        terminated=terminated,
        truncated=starts.roll(-1) & ~terminated,
        state_names=state_names,
        action_names=action_names,
    )


def joined(parts: Sequence[Trajectories]) -> Trajectories:
    """Records one after another; trajectories are numbered anew.

    Raises:
        InputError: no part, or parts of other widths or dtypes than the first's.
    """
    if not parts:
        raise InputError("parts is empty: give at least one record")
    ids, offset = [], 0
    for part in parts:
        check_widths(part, parts[0].state.shape[1], parts[0].action.shape[1])
        _, number = torch.unique_consecutive(part.trajectory, return_inverse=True)
        ids.append(number + offset)
        offset += int(number[-1]) + 1
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in DIMS}
    return _with(parts[0], columns | {"trajectory": torch.cat(ids)})


def first(record: Trajectories, rows: int) -> Trajectories:
    """The first `rows` transitions; a trajectory that goes on after them is truncated there."""
    if not 0 < rows <= len(record):
        raise InputError(f"rows is {rows}, expected 1 to {len(record)}")
    columns = {name: getattr(record, name)[:rows].clone() for name in DIMS}
    columns["truncated"][-1] = ~columns["terminated"][-1]
    return _with(record, columns)


def _with(record: Trajectories, columns: dict[str, Tensor]) -> Trajectories:
    return Trajectories(**columns, state_names=record.state_names, action_names=record.action_names)


def check_widths(record: Trajectories, state_dim: int, action_dim: int) -> None:
    """
    Raises:
        InputError: the record's states or actions have another width.
    """
    for name, width in (("state", state_dim), ("action", action_dim)):
        got = getattr(record, name).shape[1]
        if got != width:
            raise InputError(
                f"data has {name}s of width {got}, expected {width}: is it of another task?"
            )
