"""Runs on disk: records in one file each, complete or absent.

A file is written beside its place and moved there when it is on disk: readers see all of it or
none, and a killed writer leaves what was there before. It ends in a checksum
(`gradlab.storage.seals`), which is compared before HDF5 sees the file. Files from others are
hostile input, and are read by a child process (`gradlab.storage.untrusted`). What a record is, and
how it lies in HDF5, is in `gradlab.storage.hdf5`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from gradlab.errors import Failure, InputError
from gradlab.storage import untrusted
from gradlab.storage.hdf5 import (
    Array,
    Attribute,
    Reader,
    Record,
    as_hdf5,
    check_record,
    opened,
    read_here,
    readable,
)
from gradlab.storage.seals import seal
from gradlab.storage.whole_files import check_plain, placed, real

__all__ = [
    "Array",
    "Attribute",
    "Record",
    "attributes",
    "check_output",
    "read",
    "write",
]

_LEAST = 1 << 14  # bytes that an output folder must take before long work begins
NAME, _PATH = 255, 4096  # bytes that file systems take
BESIDE = 40  # bytes that the names of journals, saved states and temporary files are longer


def check_output(path: str | Path, overwrite: bool = False) -> None:
    """Can `path` be written? Asked before long work begins; makes missing folders.

    Raises:
        InputError: the file exists (and `overwrite` is off), its name is too long for what stands
            beside it, or its folder cannot be written or is full.
    """
    path = Path(path)
    # Names in a path, in bytes, as file systems count them.
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    name_length, path_length = len(os.fsencode(path.name)), len(os.fsencode(path.absolute()))
    if name_length + BESIDE > NAME or longest > NAME or path_length + BESIDE > _PATH:
        shown = str(path) if path_length < 100 else f"{str(path)[:40]}…{str(path)[-40:]}"
        raise InputError(
            f"output {shown} is too long: names take up to {NAME - BESIDE} bytes here, paths "
            f"{_PATH - BESIDE}; choose a shorter one"
        )
    try:
        path = real(path)
        if path.is_dir():
            raise InputError(f"{path} is a folder: name a file in it, such as {path / 'run.h5'}")
        check_plain(path)
        if path.exists() and not overwrite:
            raise InputError(
                f"{path} exists: choose another output, or allow it with overwrite=True"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent, buffering=0) as file:
            file.write(bytes(_LEAST))
    except OSError as error:
        reason = error.strerror or error
        message = f"{path.parent} cannot be written ({reason}): choose another output folder"
        raise InputError(message) from error


def write(path: str | Path, record: Record, overwrite: bool = False) -> None:
    """Puts `record` at `path` in one step.

    Raises:
        InputError: the path cannot be written, or the record is not consistent.
        Failure: the disk is full, or fails; what was at `path` stays.
    """
    path = Path(path)
    check_record(record)
    check_output(path, overwrite)
    content = as_hdf5(record)
    try:
        with placed(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.write(seal(content))
    except OSError as error:
        raise Failure(f"{path} cannot be written ({error.strerror or error})") from error


def read(path: str | Path) -> Record:
    """The record at `path`, bit for bit as it was written.

    Raises:
        InputError: there is no such file, it is damaged, or gradlab did not write it.
    """
    path = Path(path)
    with readable(path):
        origin = untrusted.origin(path)
        record = read_here(path) if origin == "own" else untrusted.record(path)
    if origin == "unsealed":
        untrusted.warn(path)
    return record


def attributes(path: str | Path) -> dict[str, Attribute]:
    """The attributes of the record at `path` alone, however large its arrays are.

    Raises:
        InputError: as for `read`.
    """
    path = Path(path)
    with readable(path):
        if untrusted.origin(path) == "own":
            with opened(path) as file:
                return Reader(path).attributes(file)
    return dict(read(path).attributes)
