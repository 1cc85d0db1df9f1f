"""A record as HDF5: groups of named arrays, and attributes of the run.

Every dimension of every array is named, and the name is a one-dimensional array of the same group:
its coordinate, stored as an HDF5 dimension scale, so that the file explains itself to any HDF5
reader. Files from others are hostile input: only plain, contiguous arrays are read, links are not
followed, and never more bytes are read than there are.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError, in_short

_SCHEMA = "gradlab"
_SCHEMA_VERSION = 3

Attribute = str | int | float | bool


@dataclass(frozen=True, eq=False)
class Array:
    """Numbers, booleans or strings with a name for each dimension, a unit ("" for none), and what
    they are."""

    values: NDArray[Any]
    dims: tuple[str, ...]
    unit: str = ""
    description: str = ""


@dataclass(frozen=True, eq=False)
class Record:
    """Attributes of the run, and its tables: group name → array name → array."""

    attributes: Mapping[str, Attribute]
    groups: Mapping[str, Mapping[str, Array]]


class Foreign(InputError):
    """HDF5 of another program; `held` names its arrays."""

    def __init__(self, path: Path, held: Sequence[str]) -> None:
        names = in_short(", ".join(held) or "nothing")
        super().__init__(f"{path} is HDF5 but not a gradlab run: it has {names}")
        self.held = tuple(held)


def read_here(path: Path) -> Record:
    """As `read`, whosoever wrote the file, by this process, which HDF5 may crash."""
    with readable(path), opened(path) as file:
        return Reader(path).record(file)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever goes wrong with a file becomes an InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        message = f"{path} is not a readable HDF5 file: restore it or make it again"
        if path.suffix == ".safetensors":
            reads = "gradlab.networks.checkpoint.load reads networks"
            message = f"{path} is safetensors, no run: {reads}"
        raise InputError(message) from error


def opened(path: Path) -> Any:
    # Finished files are never changed in place, so no lock is needed, and read-only disks work.
    return h5py.File(path, "r", locking=False)


def as_hdf5(record: Record) -> bytes:
    """The record as HDF5, made in memory: HDF5 may crash a process that meets a full disk."""
    content = io.BytesIO()
    with h5py.File(content, "w", track_order=True) as file:
        run = file.create_group("run", track_order=True)
        run.attrs.update({"schema": _SCHEMA, "schema_version": _SCHEMA_VERSION})
        for name, value in record.attributes.items():
            run.attrs[name] = value
        for name, arrays in record.groups.items():
            group = file.create_group(name, track_order=True)
            for key, array in arrays.items():
                values = np.ascontiguousarray(array.values).reshape(array.values.shape)
                if values.dtype.kind in "OU":
                    values = values.astype(h5py.string_dtype("utf-8"))
                dataset = group.create_dataset(key, data=values)
                dataset.attrs.update({"units": array.unit, "description": array.description})
                if array.dims == (key,):
                    dataset.make_scale(key)
            for key, array in arrays.items():
                for axis, dim in enumerate(array.dims):
                    group[key].dims[axis].label = dim
                    if array.dims != (key,):  # HDF5 lets no scale have a scale
                        group[key].dims[axis].attach_scale(group[dim])
    return content.getvalue()


def check_record(record: Record) -> None:
    for name, value in record.attributes.items():
        _check_name("attribute", name, taken=("schema", "schema_version"))
        if not isinstance(value, str | int | float | bool):
            kind = type(value).__name__
            raise InputError(f"attribute {name!r} is a {kind}, expected str, int, float or bool")
        _check_text(f"attribute {name!r}", [value])
    for name, arrays in record.groups.items():
        _check_name("group", name, taken=("run",))
        for key, array in arrays.items():
            _check_name("array", key)
            held, values = f"{name}/{key}", array.values
            if values.dtype.kind == "O" and not all(isinstance(x, str) for x in values.flat):
                raise InputError(f"{held} holds objects, expected numbers, booleans or strings")
            if values.dtype.kind not in "fiubOU":
                raise InputError(f"{held} is {values.dtype}, expected numbers, booleans or strings")
            if values.dtype.kind in "OU":
                _check_text(held, values.flat)
        _check_dims(name, arrays)


def _check_name(what: str, name: str, taken: tuple[str, ...] = ()) -> None:
    if not name or name in (".", "..", *taken) or "/" in name or "\0" in name:
        raise InputError(f"{what} may not be called {name!r}: use a plain, free name")


def _check_text(name: str, texts: Any) -> None:
    for text in (text for text in texts if isinstance(text, str)):
        if "\0" in text or text != text.encode(errors="replace").decode():
            raise InputError(f"{name} holds text that UTF-8 cannot store: {text!r}")


def _check_dims(group: str, arrays: Mapping[str, Array]) -> None:
    for name, array in arrays.items():
        shape = array.values.shape
        if len(array.dims) != len(shape):
            raise InputError(f"{group}/{name} has shape {shape} but dims {array.dims}")
        for dim, size in zip(array.dims, shape, strict=True):
            scale = arrays.get(dim)
            if scale is None or scale.dims != (dim,):
                raise InputError(f"{group}/{name} needs a coordinate array {dim!r} in its group")
            if scale.values.shape != (size,):
                wanted = scale.values.size
                raise InputError(f"{group}/{name} has {size} entries along {dim!r}, not {wanted}")


class Reader:
    """Reads one file and keeps count of the bytes it was asked for.

    Headers are cheap to forge: a few bytes can announce a terabyte, or name one long string a
    million times. No more is read than the file is long.
    """

    BLOCK = 256

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left = path.stat().st_size

    def record(self, file: Any) -> Record:
        attributes = self.attributes(file)
        names = [name for name in file if name != "run"]
        groups = {name: self.group(file, name) for name in names}
        for name, arrays in groups.items():
            try:
                _check_dims(name, arrays)
            except InputError as error:
                raise self.damaged(str(error)) from error
        return Record(attributes, groups)

    def attributes(self, file: Any) -> dict[str, Attribute]:
        plain = isinstance(file.get("run", getlink=True), h5py.HardLink)
        run = file["run"] if plain else None
        if not isinstance(run, h5py.Group) or run.attrs.get("schema") != _SCHEMA:
            held: list[str] = []
            file.visititems(lambda name, item: held.extend([name] * hasattr(item, "shape")))
            raise Foreign(self.path, held)
        attributes = {name: self.attribute(name, value) for name, value in run.attrs.items()}
        del attributes["schema"]
        version = attributes.pop("schema_version", None)
        if version != _SCHEMA_VERSION:
            raise InputError(
                f"{self.path} has schema {version}, this gradlab reads {_SCHEMA_VERSION}: "
                "make the run again"
            )
        return attributes

    def attribute(self, name: str, value: Any) -> Attribute:
        plain = value.item() if isinstance(value, np.generic) else value
        if not isinstance(plain, str | int | float | bool):
            raise self.damaged(f"attribute {name!r} is neither text nor a number")
        return plain

    def group(self, file: Any, name: str) -> dict[str, Array]:
        group = self.member(file, name, h5py.Group)
        return {key: self.array(self.member(group, key, h5py.Dataset)) for key in group}

    def member(self, parent: Any, name: str, kind: type) -> Any:
        """Links that lead elsewhere (other files, other groups) are never followed."""
        if not isinstance(parent.get(name, getlink=True), h5py.HardLink):
            raise self.damaged(f"{name!r} is a link")
        value = parent[name]
        if not isinstance(value, kind):
            raise self.damaged(f"{name!r} is not a {kind.__name__.lower()}")
        return value

    def array(self, dataset: Any) -> Array:
        layout = dataset.id.get_create_plist()
        if layout.get_external_count() or layout.get_layout() not in (
            h5py.h5d.CONTIGUOUS,
            h5py.h5d.COMPACT,
        ):
            raise self.damaged(f"{dataset.name} is not stored as one plain block")
        dims = tuple(str(dimension.label) for dimension in dataset.dims)
        unit, description = (
            str(self.attribute(name, dataset.attrs.get(name, "")))
            for name in ("units", "description")
        )
        return Array(self.values(dataset), dims, unit, description)

    def values(self, dataset: Any) -> NDArray[Any]:
        if dataset.shape is None:
            raise self.damaged(f"{dataset.name} is empty")
        self.charge(dataset.size * dataset.dtype.itemsize)
        if h5py.check_string_dtype(dataset.dtype) is not None:
            return self.strings(dataset)
        if dataset.dtype.kind not in "fiub":
            raise self.damaged(f"{dataset.name} holds neither numbers nor text")
        values: NDArray[Any] = dataset[()] if dataset.shape else np.asarray(dataset[()])
        return values.astype(dataset.dtype.newbyteorder("="), copy=False)

    def strings(self, dataset: Any) -> NDArray[Any]:
        if not dataset.shape:
            return np.asarray(dataset.asstr()[()], dtype=object)
        values = np.empty(dataset.shape, dtype=object)
        for start in range(0, len(values), self.BLOCK):
            block = dataset.asstr()[start : start + self.BLOCK]
            self.charge(sum(len(text) for text in block.flat if len(text) > 64))
            values[start : start + self.BLOCK] = block
        return values

    def charge(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise self.damaged("it announces more data than it holds")

    def damaged(self, what: str) -> InputError:
        return InputError(f"{self.path} is damaged or foreign ({what}): make the run again")
