"""Recorded transitions by name: one record, whichever file it is in.

    NAME.npz     arrays state [N, ds], action [N, da], reward [N], next_state [N, ds],
                 terminated [N], episode [N] and, if there is one, truncated [N]
    NAME.csv     the same by columns: state_0, state_1, …, action_0, …, reward, next_state_0, …
    NAME.h5      as `Trajectories.save` writes it
    minari:ID    a Minari dataset, or its folder

Arrays and columns are read alike: an array [N] is one coordinate, and may be called state_0.
"""

from __future__ import annotations

import csv
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from gradlab.data import minari_datasets
from gradlab.data.trajectories import DIMS, KIND, NUMBERS, Trajectories, from_rows
from gradlab.errors import InputError, in_short
from gradlab.storage import hdf5, records

COLUMNS = (*NUMBERS, "terminated", "episode")
_VECTORS = tuple(name for name in NUMBERS if len(DIMS[name]) > 1)
_TYPES = dict.fromkeys(NUMBERS, np.float64) | {
    "terminated": np.bool_, "episode": np.int64, "truncated": np.bool_,
}  # fmt: skip
_READ = re.compile(rf"({'|'.join(_VECTORS)})(_\d+)?|{'|'.join(_TYPES)}")
_UNREADABLE = (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error)
_Table = Mapping[str, NDArray[Any] | None]  # None: of a name that no record has


def read(name: str | Path) -> Trajectories:
    """The record of that name, in the precision in which it was written.

    Raises:
        InputError: there is none, it cannot be read, lacks a column, or is not consistent.
    """
    path = Path(name)
    if minari_datasets.is_dataset(name):
        return minari_datasets.read(name)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if path.suffix in (".h5", ".hdf5"):
        return _hdf5(path)
    if path.suffix not in (".npz", ".csv"):
        raise InputError(f"{path} is no record: give an .h5, .npz or .csv file, or minari:ID")
    try:
        table = _arrays(path) if path.suffix == ".npz" else _columns(path)
    except _UNREADABLE as error:
        raise InputError(f"{path} cannot be read ({error}): write it again") from error
    try:
        return _record(table, "_0" if path.suffix == ".csv" else "")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _hdf5(path: Path) -> Trajectories:
    try:
        record = records.read(path)
    except hdf5.Foreign as error:
        lacking = _lacking([name for name in COLUMNS if name not in error.held], error.held)
        raise InputError(f"{path} was not written by Trajectories.save: {lacking}") from error
    kind = record.attributes.get("kind")
    if kind != KIND:
        raise InputError(f"{path} holds {kind!r}, expected {KIND!r}")
    table = record.groups.get(KIND, {})
    missing = [name for name in (*DIMS, "state_name", "action_name") if name not in table]
    if missing:
        raise InputError(f"{path}: {_lacking(missing, table)}")
    for name, dims in DIMS.items():
        if table[name].dims != dims:
            got = ", ".join(table[name].dims)
            raise InputError(f"{path}: {name} has dims {got}, expected {', '.join(dims)}")
    try:
        return Trajectories(
            **{name: torch.from_numpy(table[name].values).clone() for name in DIMS},
            state_names=tuple(str(name) for name in table["state_name"].values),
            action_names=tuple(str(name) for name in table["action_name"].values),
        )
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: {error}") from error


def _arrays(path: Path) -> _Table:
    # No pickles: numpy itself refuses an array of objects.
    with path.open("rb") as content, NpzFile(content, allow_pickle=False) as file:
        return {name: file[name] if _READ.fullmatch(name) else None for name in file}


def _columns(path: Path) -> _Table:
    with path.open(encoding="utf-8-sig", newline="") as file:
        names = [name.strip() for name in next(csv.reader(file), [])]
        read = [k for k, name in enumerate(names) if _READ.fullmatch(name)]
        if not read:
            return dict.fromkeys(names)
        flags: dict[int | str, Any] = {k: _flag for k in read if _TYPES.get(names[k]) is np.bool_}
        rows = np.loadtxt(
            file, delimiter=",", quotechar='"', comments=None, usecols=read, converters=flags,
            ndmin=2,
        )  # fmt: skip
    columns = zip(read, rows.reshape(-1, len(read)).T, strict=True)
    return dict.fromkeys(names) | {names[k]: column for k, column in columns}


def _flag(text: str) -> float:
    return float({"True": "1", "False": "0"}.get(text.strip(), text))


def _record(table: _Table, first: str) -> Trajectories:
    """The record of named arrays; `first` ends the name of a vector's first coordinate."""
    keys = {name: [name] for name in _TYPES if name in table or name in COLUMNS}
    for name in _VECTORS:
        if name not in table:
            width = sum(re.fullmatch(rf"{name}_\d+", key) is not None for key in table)
            keys[name] = [f"{name}_{k}" for k in range(width)] or [name + first]
    missing = [key for several in keys.values() for key in several if key not in table]
    if missing:
        raise InputError(_lacking(missing, table))
    values = {name: _stacked(table, several) for name, several in keys.items()}
    single = all(values[name].dtype == np.float32 for name in NUMBERS)
    columns: dict[str, Any] = {}
    for name, value in values.items():
        dtype = np.float32 if single and name in NUMBERS else _TYPES[name]
        with np.errstate(invalid="ignore"):
            column: NDArray[Any] = value.astype(dtype)
        odd = column != value
        if name not in NUMBERS and odd.any():
            wanted = "integers" if name == "episode" else "0 or 1"
            raise InputError(f"{name} has {value[odd][0]}, expected {wanted}")
        one = name in _VECTORS and column.ndim == 1
        columns[name] = torch.as_tensor(column[:, None] if one else column)
    return from_rows(**columns)


def _stacked(table: _Table, keys: Sequence[str]) -> NDArray[Any]:
    """The array of one name, or the coordinates of several, [N] each, side by side."""
    columns = [np.asarray(table[key]) for key in keys]
    for key, column in zip(keys, columns, strict=True):
        if column.size and column.dtype.kind not in "fiub":
            raise InputError(f"{key} is {column.dtype}, expected numbers")
        if len(keys) > 1 and column.shape != (columns[0].size,):
            raise InputError(f"{key} has shape {column.shape}, expected [{columns[0].size}]")
    return columns[0] if len(keys) == 1 else np.stack(columns, axis=1)


def _lacking(missing: Iterable[str], held: Iterable[str]) -> str:
    return f"missing {', '.join(missing)}; it has {in_short(', '.join(held) or 'nothing')}"
