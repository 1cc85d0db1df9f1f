"""Recorded transitions by name: one record, whichever file it is in.

    NAME.npz     arrays state [N, ds], action [N, da], reward [N], next_state [N, ds],
                 terminated [N], episode [N] and, if there is one, truncated [N]
    NAME.csv     the same by columns: state_0, state_1, …, action_0, …, reward, next_state_0, …
    NAME.h5      as `Trajectories.save` writes it
    minari:ID    a Minari dataset, or its folder

Arrays and columns are read alike: an array [N] is one coordinate, and may be called state_0.

Minari datasets as records, and records as Minari datasets (the optional extra `minari`):

    observations[t], observations[t + 1] ↔ s, s',     episodes ↔ trajectories

Minari keeps observations. They are states where the simulator observes its whole state: of
Gymnasium's MuJoCo tasks InvertedPendulum and HalfCheetah, and Hopper and Walker2d as far as no
velocity is clipped (±10). A dataset is named as `minari:ID` in Minari's local database, or by its
folder. Nothing is downloaded, and no environment of a dataset is created.
"""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from gradlab.data.trajectories import DIMS, KIND, NUMBERS, Trajectories, from_rows, joined
from gradlab.errors import InputError, in_short, required
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
    if str(name).startswith(_PREFIX) or path.is_dir():
        return read_minari(name)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    if path.suffix in (".h5", ".hdf5"):
        return _hdf5(path)
    if path.suffix not in (".npz", ".csv"):
        raise InputError(f"{path} is no record: give an .h5, .npz or .csv file, or minari:ID")
    table: _Table
    try:
        if path.suffix == ".npz":  # no pickles: numpy itself refuses an array of objects
            with path.open("rb") as content, NpzFile(content, allow_pickle=False) as file:
                table = {key: file[key] if _READ.fullmatch(key) else None for key in file}
        else:
            table = _columns(path)
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
    if turned := [name for name, dims in DIMS.items() if table[name].dims != dims]:
        raise InputError(f"{path}: {', '.join(turned)} lie along other dims than {KIND} do")
    try:
        return Trajectories(
            **{name: torch.from_numpy(table[name].values).clone() for name in DIMS},
            state_names=tuple(map(str, table["state_name"].values)),
            action_names=tuple(map(str, table["action_name"].values)),
        )
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: {error}") from error


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


_PREFIX = "minari:"
_FOLDER = "data"  # of a dataset, in which Minari keeps it
_SPACES = ("observation_space", "action_space")
_MINARI_NAMES = ("state_names", "action_names")  # ours, beside Minari's own metadata


def read_minari(name: str | Path) -> Trajectories:
    """A Minari dataset as a record, float64; an episode that breaks off is truncated there.

    Args:
        name: "minari:ID", or a folder.

    Raises:
        InputError: minari is missing, there is no such dataset, it is damaged, or its
            observations or actions are not vectors of numbers.
    """
    minari, place = required("minari", "minari"), _place(name)
    if not place.is_dir():
        raise InputError(f"{name}: no such Minari dataset; get one by `minari download ID`")
    try:
        about = json.loads((place / "metadata.json").read_text())
        if not {*_SPACES} <= {*about}:  # Minari would create the environment that is named there
            raise InputError(f"its metadata lacks {' or '.join(_SPACES)}")
        dataset = minari.MinariDataset(place)
        for kind in _SPACES:
            space = getattr(dataset, kind)
            if space.shape is None or len(space.shape) != 1 or space.dtype.kind != "f":
                raise InputError(f"its {kind} is {space}, expected vectors of numbers")
        names = {key: tuple(map(str, about.get(key, ()))) for key in _MINARI_NAMES}
        return joined([_episode(each, names) for each in dataset.iterate_episodes()])
    except (
        Exception
    ) as error:  # whatever Minari, gymnasium's spaces and h5py raise at a damaged one
        raise InputError(f"{name}: {error}") from error


def _episode(episode: Any, names: Mapping[str, Any]) -> Trajectories:
    given = (episode.observations, episode.actions, episode.rewards)
    seen, action, reward = (torch.from_numpy(np.array(each, dtype=np.float64)) for each in given)
    if len(seen) != len(reward) + 1:
        raise InputError(f"an episode has {len(seen)} observations and {len(reward)} rewards")
    ended, cut = (
        torch.from_numpy(np.array(each, dtype=bool))
        for each in (episode.terminations, episode.truncations)
    )
    cut[-1:] |= ~ended[-1:]
    one = torch.zeros(len(reward), dtype=torch.long)
    return from_rows(seen[:-1], action, reward, seen[1:], ended, one, cut, **names)


def write_minari(record: Trajectories, name: str | Path) -> Path:
    """The record as a Minari dataset, complete or not at all, and where it is.

    Steps are counted from 0 in every episode; the noise of float32 between a next_state and the
    state after it is dropped.

    Args:
        name: "minari:ID" with the ID as Minari wants it, for example "hopper/mine-v0", or a folder.

    Raises:
        InputError: minari is missing, the dataset exists, its ID is malformed, or its place cannot
            be written.
    """
    check_minari_output(name)
    place = _place(name)
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        _fill(record, temporary, _identifier(name))
        os.replace(temporary, place)
    except OSError as error:
        raise InputError(f"{name} cannot be written: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place.parent


def check_minari_output(name: str | Path) -> None:
    """Check before long work that this dataset can be written.

    Raises:
        InputError: minari is missing, the dataset exists, or its ID is malformed.
    """
    required("minari", "minari")
    _identifier(name)
    place = _place(name)
    if place.exists() or (place.parent.exists() and not place.parent.is_dir()):
        raise InputError(f"{name} exists ({place.parent}): choose another name")


def _place(name: str | Path) -> Path:
    """The folder of the data."""
    text = str(name)
    if text.startswith(_PREFIX):
        from minari.storage.datasets_root_dir import get_dataset_path

        return Path(get_dataset_path(text.removeprefix(_PREFIX))) / _FOLDER
    folder = Path(name).absolute()  # Minari asks for the size of its files at "folder/folder/…"
    # A folder may be the dataset's own, or the one inside it.
    return folder if (folder / "metadata.json").is_file() else folder / _FOLDER


def _identifier(name: str | Path) -> str:
    """Minari's name of the dataset; a folder has its own name."""
    from minari.dataset.minari_dataset import DATASET_ID_RE

    if not str(name).startswith(_PREFIX):
        folder = re.sub(r"[^-\w]", "_", Path(name).resolve().name)
        return folder if re.search(r"-v\d+$", folder) else f"{folder}-v0"
    text = str(name).removeprefix(_PREFIX)
    match = DATASET_ID_RE.fullmatch(text)
    if match is None or match["version"] is None:
        raise InputError(f"{name}: expected {_PREFIX}NAME-vVERSION, such as {_PREFIX}mine-v0")
    return text


def _fill(record: Trajectories, place: Path, identifier: str) -> None:
    import minari
    from gymnasium.spaces import Box
    from minari.data_collector.episode_buffer import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    widths = record.state.shape[1], record.action.shape[1]
    storage = MinariStorage.new(
        place, *(Box(-np.inf, np.inf, (width,), np.float64) for width in widths)
    )
    own = {"dataset_id": identifier, "minari_version": minari.__version__}
    storage.update_metadata(own | {key: list(getattr(record, key)) for key in _MINARI_NAMES})
    lengths = torch.unique_consecutive(record.trajectory, return_counts=True)[1].tolist()
    numbers = [getattr(record, name).double() for name in NUMBERS]
    columns = [*numbers, record.terminated, record.truncated]
    storage.update_episodes(
        EpisodeBuffer(
            observations=torch.cat([state, after[-1:]]).numpy(),
            actions=action.numpy(),
            rewards=reward.numpy(),
            terminations=ended.numpy(),
            truncations=cut.numpy(),
        )
        for state, action, reward, after, ended, cut in zip(
            *(each.detach().cpu().split(lengths) for each in columns), strict=True
        )
    )
