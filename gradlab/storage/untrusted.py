"""HDF5 files from elsewhere, read by a process that may die of them.

On some damaged or forged files HDF5 crashes, corrupts the memory of its process or goes round in
circles, and nobody can catch that. A file that this user of this machine has not sealed
(`gradlab.storage.seals`) is therefore read by `python -m gradlab.storage.untrusted FILE`, which
passes on what it found as frames (`gradlab.storage.journal_frames`), one an array: HDF5 never sees
the file here. The price is the start of a process, 0.15 s.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.errors import Doubtful, InputError
from gradlab.machine import python_module
from gradlab.storage import journal_frames, seals
from gradlab.storage.hdf5 import Array, Foreign, Record, read_here

UNSEALED = "{path} has no checksum (it was changed since): damage would go unnoticed"
PATIENCE, _SPEED = 60.0, 5e6  # seconds for any file, and bytes a second that a slow disk reads


def origin(path: Path) -> seals.Origin:
    """Where a file is from.

    Raises:
        InputError: it is not what was written. OSError: it cannot be read.
    """
    kept = seals.origin(path)
    if kept is None:
        raise InputError(f"{path} is damaged (its checksum is wrong): restore it or make it again")
    return kept


def warn(path: Path) -> None:
    """Of a file without a seal."""
    warnings.warn(UNSEALED.format(path=path), Doubtful, stacklevel=4)


def record(path: Path) -> Record:
    """The record at `path`, through a child process.

    Raises:
        InputError: as `records.read`, or the child died. OSError: there is no process for it.
    """
    frames = [frame for _, frame in journal_frames.decode(_passed_on(path))]
    if not frames or frames[-1].header.get("kind") != "end":
        raise InputError(f"{path} is not a readable HDF5 file: restore it or make it again")
    if "held" in frames[-1].header:
        raise Foreign(path, frames[-1].header["held"])
    if "refused" in frames[-1].header:
        raise InputError(str(frames[-1].header["refused"]))
    groups: dict[str, dict[str, Array]] = {}
    for frame in frames[1:-1]:
        about, arrays = frame.header, groups.setdefault(frame.header["group"], {})
        if about["kind"] == "array":
            if "text" in about:
                flat = np.empty(len(about["text"]), dtype=object)
                flat[:] = about["text"]
                values = flat.reshape(about["shape"])
            else:
                values = frame.arrays["values"].copy()
            more = (about["unit"], about["description"])
            arrays[about["name"]] = Array(values, tuple(about["dims"]), *more)
    return Record(frames[0].header["attributes"], groups)


def _passed_on(path: Path) -> bytes:
    """What the child writes."""
    words = python_module("gradlab.storage.untrusted", str(path))
    quiet = subprocess.DEVNULL
    patience = PATIENCE + path.stat().st_size / _SPEED
    try:
        child = subprocess.run(
            words, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet, timeout=patience
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path} cannot be read to its end: damaged or forged; drop it") from error
    if child.returncode < 0:
        raise InputError(f"{path} crashes HDF5: damaged or forged; restore it or make it again")
    return child.stdout


def _frames_of(run: Record) -> Iterator[bytes]:
    yield journal_frames.encode({"kind": "run", "attributes": dict(run.attributes)}, {})
    for group, arrays in run.groups.items():
        yield journal_frames.encode({"kind": "group", "group": group}, {})
        for name, array in arrays.items():
            about = {
                "group": group, "name": name, "dims": array.dims, "unit": array.unit,
                "description": array.description,
            }  # fmt: skip
            if array.values.dtype.kind == "O":
                text = {"text": array.values.ravel().tolist(), "shape": array.values.shape}
                yield journal_frames.encode({"kind": "array", **about, **text}, {})
            else:
                yield journal_frames.encode({"kind": "array", **about}, {"values": array.values})


def _pass_on(path: Path) -> None:
    end: dict[str, Any] = {"kind": "end"}
    try:
        for frame in _frames_of(read_here(path)):
            sys.stdout.buffer.write(frame)
    except Foreign as error:
        end["held"] = list(error.held)
    except InputError as error:
        end["refused"] = str(error)
    sys.stdout.buffer.write(journal_frames.encode(end, {}))


if __name__ == "__main__":
    _pass_on(Path(sys.argv[1]))
