"""A record in each format in which a user may write it, by numpy alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gradlab.data.trajectories import Trajectories

FORMATS = ("h5", "npz", "csv")


def columns(record: Trajectories, truncated: bool = True) -> dict[str, np.ndarray]:
    names = ("state", "action", "reward", "next_state", "terminated", "truncated")
    found = {name: getattr(record, name).numpy() for name in names[: 5 + truncated]}
    return found | {"episode": record.trajectory.numpy()}


def write(record: Trajectories, path: Path, truncated: bool = True) -> Path:
    """The record at `path`, in the format of its ending."""
    if path.suffix == ".h5":
        return record.save(path)
    arrays = columns(record, truncated)
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return path
    flat = {
        name if values.ndim == 1 else f"{name}_{k}": column
        for name, values in arrays.items()
        for k, column in enumerate(values.reshape(len(values), -1).T)
    }
    table, names = np.stack(list(flat.values()), axis=1), ",".join(flat)
    np.savetxt(path, table, delimiter=",", header=names, comments="", fmt="%.17g")
    return path
