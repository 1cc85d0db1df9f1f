"""Recorded transitions, on disk as HDF5, and the paths that their windows make.

Row i of a record is (s_i, a_i, r_i, s'_i) with the trajectory and the step it belongs to. A window
of H consecutive rows is a `Path` of the recorded states. Its noise is not in the record, and is
inferred where it is needed (RP-DR, RP-PGM eq. 4.5).

Rows of experience as a record (`data.trajectories`), whether or not they follow one another.

Model fitting needs (s, a, r, s') only, so rows without episodes are trajectories of one step each;
with episode ids the rows of one id follow one another, and multi-step losses may use them. Saved
by `Trajectories.save`, read by `record_files.read`.

Random streams keyed by (seed, name, step).

A stream never equals one that the user may hold (`torch.manual_seed(seed)`, the starts), and a
draw covers the whole batch, so that results depend neither on chunks nor on other measurements, and
any two estimators, policies or models can be paired on common random numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.storage import records


def child(seed: int, name: str) -> int:
    """A seed of its own for a part of a run, so that neighbouring seeds share no draws."""
    digest = hashlib.sha256(f"gradlab:{seed}:child:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def stream(seed: int, name: str, step: int = 0) -> torch.Generator:
    """A CPU generator of its own for (seed, name, step)."""
    digest = hashlib.sha256(f"gradlab:{seed}:{name}:{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


@dataclass(frozen=True)
class Path:
    """N trajectories of H steps from one start law, with the noise that made them.

    Attributes:
        states: [H + 1, N, ds].
        actions: [H + 1, N, da]; the last row is the action that the tail critic values.
        rewards: [H, N].
        policy_noise: [H + 1, N, policy.noise_dim] (width 0 for a deterministic policy).
        dynamics_noise: [H, N, system.noise_dim], standardised.
        alive: [H + 1, N] bool, the running product: False from the first terminal state on.
        weight: [N], importance of each start (1 for plain sampling).
        group: [N] integers; starts that share a group (one trajectory, several samples from one
            start) are one unit for every resampling statistic.
    """

    states: Tensor
    actions: Tensor
    rewards: Tensor
    policy_noise: Tensor
    dynamics_noise: Tensor
    alive: Tensor
    weight: Tensor
    group: Tensor

    @property
    def horizon(self) -> int:
        return self.states.shape[0] - 1

    def cut(self, horizon: int) -> Path:
        """The first `horizon` steps."""
        ends = dict.fromkeys(("states", "actions", "policy_noise", "alive"), horizon + 1)
        ends |= dict.fromkeys(("rewards", "dynamics_noise"), horizon)
        return replace(self, **{name: getattr(self, name)[:end] for name, end in ends.items()})

    def double(self) -> Path:
        """In float64."""
        names = ("states", "actions", "rewards", "policy_noise", "dynamics_noise", "weight")
        return replace(self, **{name: getattr(self, name).double() for name in names})

    def rows(self, rows: slice) -> Path:
        """Some of the trajectories."""
        once = ("weight", "group")
        return Path(**{n: x[rows] if n in once else x[:, rows] for n, x in vars(self).items()})


KIND = "trajectories"
ROUNDING = 1e-5  # of a column's largest value: float32 records of one state may differ so much
DIMS: Mapping[str, tuple[str, ...]] = {
    "trajectory": ("row",),
    "step": ("row",),
    "state": ("row", "state_name"),
    "action": ("row", "action_name"),
    "reward": ("row",),
    "next_state": ("row", "state_name"),
    "terminated": ("row",),
    "truncated": ("row",),
}
_UNITS = {"step": "steps", "state": "see state_name", "next_state": "see state_name"} | {
    "action": "see action_name",
    "reward": "reward",
}
_INTEGERS, NUMBERS = ("trajectory", "step"), ("state", "action", "reward", "next_state")
_BOOLEANS = ("terminated", "truncated")


@dataclass(frozen=True, eq=False)
class Trajectories:
    """M transitions, the rows of one trajectory together and in the order of their steps.

    Attributes:
        trajectory, step: [M] int64.
        state, next_state: [M, ds]; action: [M, da]; reward: [M]; all float32 or all float64.
        terminated: [M] bool, next_state is terminal; truncated: [M] bool, the record stops here.
            Both end a trajectory.
        state_names, action_names: one name per coordinate, with its unit where it has one.
    """

    trajectory: Tensor
    step: Tensor
    state: Tensor
    action: Tensor
    reward: Tensor
    next_state: Tensor
    terminated: Tensor
    truncated: Tensor
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_columns(self)
        for which in ("state", "action"):
            width = getattr(self, which).shape[1]
            names = getattr(self, f"{which}_names") or [f"{which[0]}{k}" for k in range(width)]
            if len(names) != width:
                raise InputError(f"{which}_names has {len(names)} entries, expected {width}")
            object.__setattr__(self, f"{which}_names", tuple(names))
        _check_order(self)

    def __len__(self) -> int:
        return len(self.step)

    def at(self, rows: Tensor | slice) -> Trajectories:
        """Some of them, in this order."""
        return replace(self, **{name: getattr(self, name)[rows] for name in DIMS})

    def save(self, path: str | FilePath, overwrite: bool = False) -> FilePath:
        """Write one HDF5 file, complete or not at all.

        Raises:
            InputError: the file exists (and `overwrite` is off) or cannot be written.
        """
        names = {"state_name": self.state_names, "action_name": self.action_names}
        table = {"row": records.Array(np.arange(len(self)), ("row",))}
        table |= {
            name: records.Array(np.array(entries, dtype=object), (name,))
            for name, entries in names.items()
        }
        for name, dims in DIMS.items():
            values = getattr(self, name).detach().cpu().numpy()
            table[name] = records.Array(values, dims, _UNITS.get(name, ""))
        records.write(path, records.Record({"kind": KIND}, {KIND: table}), overwrite)
        return FilePath(path)


def from_path(
    path: Path, state_names: tuple[str, ...] = (), action_names: tuple[str, ...] = ()
) -> Trajectories:
    """A path as a record: trajectory i is column i, up to the step that ends in a dead state."""
    h, n, _ = path.states.shape[0] - 1, *path.states.shape[1:]
    step, alive = torch.arange(h, device=path.group.device)[:, None].expand(h, n), path.alive
    columns = {
        "trajectory": torch.arange(n, device=path.group.device).expand(h, n), "step": step,
        "state": path.states[:-1], "action": path.actions[:-1], "reward": path.rewards,
        "next_state": path.states[1:], "terminated": ~alive[1:],
        "truncated": alive[1:] & (step == h - 1).to(alive.device),
    }  # fmt: skip
    rows = {name: value.transpose(0, 1)[alive[:-1].T] for name, value in columns.items()}
    return Trajectories(**rows, state_names=state_names, action_names=action_names)


def segments(trajectories: Trajectories, horizon: int, every: int = 1, ended: bool = False) -> Path:
    """Windows of `horizon` consecutive transitions; trajectories that are shorter give none.

    The last action of a window is the recorded one where the trajectory goes on, else NaN: it was
    not taken, and is drawn from a policy where it is needed. Noise has width 0, weight is 1, and
    the windows of one trajectory share a group.

    Args:
        every: steps of a trajectory from one window to the next.
        ended: a window may end in a terminal state before its end, and goes on there, dead, with
            actions that are NaN.

    Raises:
        InputError: no trajectory is as long as `horizon`.
    """
    validation.whole("horizon", horizon)
    t, (first, last) = trajectories, bounds(trajectories)
    row = torch.arange(len(t), device=t.step.device)
    whole = row + max(horizon, 1) - 1 <= last
    begin = row[((row - first) % every == 0) & (whole | (t.terminated[last] & ended))]
    if not len(begin):
        longest = int(torch.unique(t.trajectory, return_counts=True)[1].max())
        raise InputError(
            f"horizon is {horizon} but the longest trajectory has {longest} transitions: "
            f"lower it or record longer ones"
        )
    n, last = len(begin), last[begin]
    rows = begin + torch.arange(horizon + 1, device=begin.device)[:, None]
    inside = rows <= last
    rows = rows.clamp_max(len(t) - 1)
    return Path(
        states=torch.where(inside[..., None], t.state[rows], t.next_state[last]),
        actions=torch.where(inside[..., None], t.action[rows], torch.nan),
        rewards=torch.where(inside[:-1], t.reward[rows[:-1]], 0.0),
        policy_noise=t.state.new_empty(horizon + 1, n, 0),
        dynamics_noise=t.state.new_empty(horizon, n, 0),
        alive=inside | ~t.terminated[last],
        weight=t.reward.new_ones(n),
        group=t.trajectory[begin],
    )


def bounds(record: Trajectories) -> tuple[Tensor, Tensor]:
    """First and last row of each row's trajectory, [M] each."""
    _, counts = torch.unique_consecutive(record.trajectory, return_counts=True)
    last = counts.cumsum(0) - 1
    return (last - counts + 1).repeat_interleave(counts), last.repeat_interleave(counts)


def _check_columns(t: Trajectories) -> None:
    """Types, shapes and finite numbers."""
    number = torch.float32 if getattr(t.state, "dtype", None) == torch.float32 else torch.float64
    wanted = dict.fromkeys(NUMBERS, number) | dict.fromkeys(_INTEGERS, torch.int64)
    wanted |= dict.fromkeys(_BOOLEANS, torch.bool)
    sizes: dict[str, int] = {}
    for name, dims in DIMS.items():
        column = getattr(t, name)
        validation.instance(name, column, Tensor, "a tensor")
        if column.dtype != wanted[name]:
            raise InputError(f"{name} is {column.dtype}, expected {wanted[name]}")
        if column.ndim != len(dims):
            raise InputError(f"{name} has shape {tuple(column.shape)}, expected {list(dims)}")
        for dim, size in zip(dims, column.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise InputError(f"{name} has {size} entries along {dim}, expected {sizes[dim]}")
            if size == 0:
                raise InputError(f"{dim} has no entries: record at least one transition")
    for name in NUMBERS:
        finite = torch.isfinite(getattr(t, name)).reshape(len(t), -1).all(dim=1)
        if not finite.all():
            row, count = int((~finite).nonzero()[0]), int((~finite).sum())
            raise InputError(f"{name} is not finite in {count} rows (first: row {row}): drop them")


def _check_order(t: Trajectories) -> None:
    ids = torch.unique_consecutive(t.trajectory)
    if len(torch.unique(ids)) != len(ids):
        raise InputError("trajectory has rows of one id in several places: sort the rows by it")
    if int(t.step.min()) < 0:
        raise InputError(f"step has the entry {int(t.step.min())}, expected integers from 0")
    joined = t.trajectory[1:] == t.trajectory[:-1]
    _refuse(joined & (t.step[1:] != t.step[:-1] + 1), t, "does not go on by one step", "step")
    ended = (t.terminated | t.truncated)[:-1]
    _refuse(joined & ended, t, "goes on after its end", "terminated or truncated")
    scale = torch.maximum(t.state.abs().amax(0), t.next_state.abs().amax(0))
    jump = ((t.state[1:] - t.next_state[:-1]).abs() > ROUNDING * scale).any(dim=1)
    _refuse(joined & jump, t, "jumps: the next row's state is not its next_state", "next_state")


def _refuse(wrong: Tensor, t: Trajectories, what: str, name: str) -> None:
    if wrong.any():
        row = int(wrong.nonzero()[0])
        where = f"trajectory {int(t.trajectory[row])} after step {int(t.step[row])} (row {row})"
        raise InputError(f"{name}: {where} {what}; give what follows another trajectory id")


def from_rows(
    state: Tensor,
    action: Tensor,
    reward: Tensor,
    next_state: Tensor,
    terminated: Tensor,
    episode: Tensor | None = None,
    truncated: Tensor | None = None,
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
        raise validation.expected("state", state, "a tensor [M, ds]")
    rows = torch.arange(len(state), device=state.device)
    episode = rows if episode is None else episode
    for name, value, kind in (("episode", episode, "integers"), ("terminated", terminated, "bool")):
        if value.shape != rows.shape or value.is_floating_point():
            raise validation.expected(name, value, f"{kind} [{len(rows)}]")
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
        truncated=starts.roll(-1) & ~terminated if truncated is None else truncated,
        state_names=state_names,
        action_names=action_names,
    )


def finite_rows(name: str, values: Any, width: int) -> Tensor:
    """Finite numbers [N, width], float64, on the CPU.

    Raises:
        InputError: they are none, or of another shape.
    """
    try:
        rows: Tensor = torch.as_tensor(values).detach().cpu().double()
        rows = rows.to_dense() if rows.layout is not torch.strided else rows
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{name} holds no numbers: {error}") from None
    if rows.ndim != 2 or rows.shape[1] != width or not len(rows):
        raise InputError(f"{name} has shape {tuple(rows.shape)}, expected [N, {width}]")
    if not bool(torch.isfinite(rows).all()):
        raise InputError(f"{name} has entries that are not finite: leave those rows out")
    return rows


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
    columns: dict[str, Any] = {
        name: torch.cat([getattr(part, name) for part in parts]) for name in DIMS
    }
    return replace(parts[0], **columns | {"trajectory": torch.cat(ids)})


def first(record: Trajectories, rows: int) -> Trajectories:
    """The first `rows` transitions; a trajectory that goes on after them is truncated there."""
    if not 0 < rows <= len(record):
        raise InputError(f"rows is {rows}, expected 1 to {len(record)}")
    columns: dict[str, Any] = {name: getattr(record, name)[:rows].clone() for name in DIMS}
    columns["truncated"][-1] = ~columns["terminated"][-1]
    return replace(record, **columns)


def check_widths(record: Trajectories, state_dim: int, action_dim: int) -> None:
    """Raises InputError: the record's states or actions have another width."""
    for name, width in (("state", state_dim), ("action", action_dim)):
        got = getattr(record, name).shape[1]
        if got != width:
            raise InputError(
                f"data has {name}s of width {got}, expected {width}: is it of another task?"
            )
