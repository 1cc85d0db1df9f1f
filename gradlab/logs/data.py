"""Records by name: a file of gradlab's own, numpy arrays, or a Minari dataset.

NAME.npz    state [M, ds], action [M, da], reward [M], next_state [M, ds], terminated [M], and
            episode [M], integers: the rows of one episode together and in order
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch

from gradlab.data import minari_datasets, trajectories, transitions
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError

NUMBERS = ("state", "action", "reward", "next_state")
COLUMNS = (*NUMBERS, "terminated", "episode")


def read(name: str | Path) -> Trajectories:
    """The record of that name, float64.

    Raises:
        InputError: there is none, it is damaged, or its arrays do not fit together.
    """
    if str(name).endswith(".npz"):
        return _arrays(Path(name))
    if minari_datasets.is_dataset(name):
        return minari_datasets.read(name)
    return trajectories.load(name)


def _arrays(path: Path) -> Trajectories:
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        # No pickles: an array of objects is refused by numpy itself.
        with np.load(path, allow_pickle=False) as file:
            missing = [column for column in COLUMNS if column not in file]
            columns = {column: file[column] for column in COLUMNS if column in file}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no readable .npz of plain arrays ({error})") from error
    if missing:
        raise InputError(f"{path} has no {', '.join(missing)}: expected {', '.join(COLUMNS)}")
    try:
        numbers = {name: torch.as_tensor(columns[name].astype(np.float64)) for name in NUMBERS}
        return transitions.from_rows(
            numbers["state"],
            numbers["action"],
            numbers["reward"],
            numbers["next_state"],
            terminated=torch.as_tensor(columns["terminated"].astype(bool)),
            episode=torch.as_tensor(columns["episode"]),
        )
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error
