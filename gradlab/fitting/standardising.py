"""Standardised rows for model fitting, and which of them are held out.

    c, d  mean and deviation of [s, a],   e, f  of [s' − s, r] or [s', r],   over the training rows

Whole trajectories are held out, cut into pieces where there are few, so that no held-out row lies
between two training rows of its trajectory. A dimension that is constant gets deviation 1.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.data.trajectories import DIMS, NUMBERS, Trajectories
from gradlab.errors import InputError
from gradlab.fitting.losses import Rows

PIECES = 50  # the fewest that hold-out chooses from, where the data is large
LENGTH = 10  # rows of a piece, so that several steps fit in, where the data is not tiny
MOST = 5000  # held-out rows, as in MBPO
FEWEST = 10  # rows
CONSTANT = 1e-7  # deviation over size of a dimension that rounding alone moves


def split(record: Trajectories, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Training and held-out rows, each in order.

    Raises:
        InputError: a share that is not between 0 and 1, or too few rows.
    """
    if not 0 < share < 1:
        raise InputError(f"held_out is {share!r}, expected a number between 0 and 1")
    if len(record) < FEWEST:
        raise InputError(f"data has {len(record)} rows, expected at least {FEWEST}")
    piece = _pieces(record)
    order = torch.randperm(int(piece[-1]) + 1, generator=stream(seed, "held out"))
    sizes = torch.bincount(piece)[order].cumsum(0)
    wanted = min(share * len(record), MOST)
    count = max(1, min(int((sizes <= wanted).sum()), len(order) - 1))
    held = torch.isin(piece, order[:count])
    rows = torch.arange(len(record))
    return rows[~held], rows[held]


def _pieces(record: Trajectories) -> Tensor:
    """[M], the piece of each row, counted from 0 in the order of the rows."""
    rows = torch.arange(len(record))
    trajectory = record.trajectory.cpu()
    length = max(len(record) // PIECES, min(LENGTH, len(record) // 5), 1)
    _, number, counts = torch.unique_consecutive(
        trajectory, return_inverse=True, return_counts=True
    )
    begin = (counts.cumsum(0) - counts)[number]
    label = number * len(record) + (rows - begin) // length
    piece: Tensor = torch.unique_consecutive(label, return_inverse=True)[1]
    return piece


def units(record: Trajectories, rows: Tensor) -> NDArray[np.int64]:
    """[R], what resampling leaves out together, counted from 0: the trajectory of each row.

    The row itself where there are fewer than five trajectories.
    """
    group = record.trajectory[rows].cpu().numpy()
    if len(np.unique(group)) < 5:
        return np.arange(len(group))
    number: NDArray[np.int64] = np.unique(group, return_inverse=True)[1]
    return number


def standardised(
    record: Trajectories,
    training: Tensor,
    *,
    residual: bool,
    reward: bool,
    dtype: torch.dtype,
    device: str,
) -> tuple[Rows, tuple[str, ...]]:
    """The rows, and the names of what is constant in the training rows."""
    inputs = torch.cat([record.state, record.action], dim=1).double()
    after = record.next_state - record.state if residual else record.next_state
    wanted = [after, record.reward[:, None]] if reward else [after]
    targets = torch.cat(wanted, dim=1).double()
    (c, d, still), (e, f, same) = (_moments(part[training]) for part in (inputs, targets))
    change = "change of " if residual else "next "
    names = [*record.state_names, *record.action_names]
    targets_names = [*(change + name for name in record.state_names), "reward"]
    constant = [
        name
        for group, flags in ((names, still), (targets_names, same))
        for name, flag in zip(group, flags.tolist(), strict=False)
        if flag
    ]
    rows = Rows(
        record=_converted(record, dtype, device),
        inputs=((inputs - c) / d).to(device, dtype),
        targets=((targets - e) / f).to(device, dtype),
        input_mean=c.to(device, dtype),
        input_std=d.to(device, dtype),
        target_mean=e.to(device, dtype),
        target_std=f.to(device, dtype),
        residual=residual,
    )
    return rows, tuple(constant)


def _moments(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, deviation (1 where constant), and which are constant."""
    mean, std = values.mean(dim=0), values.std(dim=0)
    constant = std <= CONSTANT * values.abs().amax(dim=0)
    return mean, torch.where(constant, 1.0, std), constant


def _converted(record: Trajectories, dtype: torch.dtype, device: str) -> Trajectories:
    for name in NUMBERS:
        largest = float(getattr(record, name).detach().abs().max())
        if largest > torch.finfo(dtype).max:
            raise InputError(f"{name} reaches {largest:.3g}, beyond {dtype}: rescale it")
    columns = {name: getattr(record, name).to(device) for name in DIMS}
    columns |= {name: columns[name].to(dtype) for name in NUMBERS}
    return Trajectories(**columns, state_names=record.state_names, action_names=record.action_names)
