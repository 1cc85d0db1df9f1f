"""Frozen dataclasses as groups of a record, and back.

A field says where its values lie in the file, its type says what comes back:

    gain: Annotated[Floats, stored("cell", "group", unit="return")]     an array, its dimensions
    names: Annotated[tuple[str, ...], stored("name")]                   a tuple along one dimension
    cells: Annotated[tuple[tuple[str, int], ...], stored("cell", name=("estimator", "at"))]
                                                                        two arrays: their parts
    bounds: Annotated[tuple[Bound, ...], stored("bound")]               one for each field of Bound
    sizes: Annotated[Mapping[str, float], stored("size", name=("constant", "size"))]
                                                                        two: keys and values
    starts: Annotated[int, stored("start")]                             the length of a dimension
    horizon: Annotated[int, scalar("plain")]                            an entry of a JSON object

Fields without a place are the caller's. Dimensions that no array names are counted 0, 1, ….

The header of a run of any kind, and the errors of a file that should hold one.

The attributes of a record: its kind, the command that makes it again, seed, commit, and as JSON the
configuration, the environment, and whatever else a kind of run has to say.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.storage.records import Array, Attribute, Record

# What a foreign file can raise where its content is taken apart.
_UNREADABLE = (
    KeyError, ValueError, TypeError, IndexError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


def header(
    kind: str, config: Mapping[str, Any], environment: Mapping[str, str], **more: Mapping[str, Any]
) -> dict[str, Attribute]:
    """The attributes of a run."""
    objects = {"config": config, "environment": environment, **more}
    return {
        "kind": kind,
        "command": str(config.get("command", "")),
        "seed": int(config.get("seed", 0)),
        "commit": environment.get("commit", ""),
        **{name: json.dumps(value) for name, value in objects.items()},
    }


def described(record: Record, *more: str) -> dict[str, Any]:
    """Configuration, environment and the objects called `more`, by name, as `header` got them.

    Raises:
        KeyError, ValueError: one is missing, or no JSON object.
    """
    names = ("config", "environment", *more)
    header = {name: json_object(record.attributes[name]) for name in names}
    header["environment"] = {key: str(value) for key, value in header["environment"].items()}
    return header


def shown(path: Path, record: Record) -> str:
    """The end of a refusal: what shows the file instead, or that it is no run (`header`)."""
    return f": see `gradlab report {path}`" if "config" in record.attributes else ": it is no run"


@contextlib.contextmanager
def content_of(record: Record, path: Path, kind: str, what: str) -> Iterator[None]:
    """Within, the content of a record is taken apart, and any fault in it is an InputError.

    Args:
        what: a run of this kind, as a message calls it, "measurement".

    Raises:
        InputError: the record is of another kind, or not complete.
    """
    stored = record.attributes.get("kind")
    if stored != kind:
        raise InputError(f"{path} holds {stored!r}, expected a {what}{shown(path, record)}")
    try:
        yield
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"{path} is not a complete {what} ({error}): make it again") from error


def json_object(text: object) -> dict[str, Any]:
    """The JSON object in a text.

    Raises:
        ValueError: it holds something else.
    """
    value = json.loads(str(text))
    if not isinstance(value, dict):
        raise ValueError("what should be a JSON object is none")
    return value


T = TypeVar("T")
Group = Mapping[str, Array]
_Names = str | tuple[str, ...]


@dataclass(frozen=True)
class _Place:
    """Where a field lies in its group.

    Attributes:
        names, units: of its arrays; () for the field's own name, or no unit.
        optional: an array without entries is not written, and comes back empty.
        json: the array whose JSON object has the field as an entry.
        text: written as text there, since JSON has neither NaN nor infinity.
    """

    dims: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    optional: bool = False
    json: str = ""
    text: bool = False


_NOWHERE = _Place()  # of a field that is the caller's


class _Stored(NamedTuple):
    """A field, where it lies, and its type."""

    name: str
    place: _Place
    hint: Any


class _Column(NamedTuple):
    """One array of a field, and the type of the array or of its entries."""

    name: str
    dims: tuple[str, ...]
    unit: str
    hint: Any


def stored(*dims: str, name: _Names = (), unit: _Names = (), optional: bool = False) -> _Place:
    """A field is kept as one or several arrays (see the module and `_Place`)."""
    names, units = ((each,) if isinstance(each, str) else each for each in (name, unit))
    return _Place(dims, names, units, optional)


def scalar(json: str, text: bool = False) -> _Place:
    """A field of a plain type is an entry of a JSON object (see `_Place`)."""
    return _Place(json=json, text=text)


def arrays(value: Any) -> dict[str, Array]:
    """The stored fields of a dataclass, as one group."""
    group: dict[str, Array] = {}
    objects: dict[str, dict[str, Any]] = {}
    for field in _fields(type(value)):
        content, place = getattr(value, field.name), field.place
        if place.json:
            objects.setdefault(place.json, {})[field.name] = (
                repr(content) if place.text else content
            )
        elif field.hint is int:
            group[place.dims[0]] = counted(content, place.dims[0])
        elif len(content) or not place.optional:
            group |= _written(content, field)
    group |= {name: labels([json.dumps(entries)], "one") for name, entries in objects.items()}
    return with_scales(group)


def fields(cls: type, group: Group) -> dict[str, Any]:
    """The stored fields of a dataclass by name, from a group that `arrays` wrote.

    Raises:
        KeyError, ValueError, TypeError: the group is of something else.
    """
    return {field.name: _value(field, group) for field in _fields(cls)}


def decoded(cls: type[T], group: Group) -> T:
    """The dataclass of a group that `arrays` wrote, where all of its fields are stored."""
    return cls(**fields(cls, group))


def table(rows: Sequence[Any], of: type) -> dict[str, Array]:
    """Dataclasses or named tuples as one group, with an array for each of their fields."""
    return {"row": counted(len(rows), "row"), **_written(rows, _table_of(of))}


def rows(of: type[T], group: Group) -> tuple[T, ...]:
    """What `table` was given."""
    decoded_rows: tuple[T, ...] = _value(_table_of(of), group)
    return decoded_rows


def by_column(
    table: Mapping[str, NDArray[Any]], units: Mapping[str, str] | None = None
) -> dict[str, Array]:
    """Arrays along the rows of a table, as one group."""
    count = len(next(iter(table.values())))
    return {"row": counted(count, "row")} | {
        name: Array(values, ("row",), (units or {}).get(name, "")) for name, values in table.items()
    }


def columns(group: Group) -> dict[str, NDArray[Any]]:
    """What `by_column` was given."""
    return {name: _along(group, name, ("row",)) for name in group if name != "row"}


def with_scales(group: Group) -> dict[str, Array]:
    """The group, with a count along every dimension that none of its arrays names."""
    several = (zip(each.dims, each.values.shape, strict=True) for each in group.values())
    sizes = {dim: size for each in several for dim, size in each}
    return {dim: counted(n, dim) for dim, n in sizes.items() if dim not in group} | dict(group)


def labels(values: Iterable[str], dim: str) -> Array:
    """Texts along one dimension."""
    return Array(np.array(list(values), dtype=object), (dim,))


def counted(count: int, dim: str) -> Array:
    """0, 1, … along one dimension."""
    return Array(np.arange(count), (dim,))


def _fields(cls: Any) -> list[_Stored]:
    """Those that have a place."""
    return [field for field in _members(cls) if field.place != _NOWHERE]


def _table_of(of: type) -> _Stored:
    return _Stored("rows", _Place(("row",)), tuple[of, ...])  # type: ignore[valid-type]


def _columns(field: _Stored) -> list[_Column]:
    """The arrays of a field."""
    place, entry = field.place, _entry(field.hint)
    if members := _members(entry):
        return [
            _Column(
                (member.place.names or (member.name,))[0],
                place.dims + member.place.dims,
                "".join(member.place.units),
                member.hint,
            )
            for member in members
        ]
    hints = _parts(field.hint) or (entry or field.hint,)
    names, units = place.names or (field.name,), place.units or ("",) * len(hints)
    return [
        _Column(name, place.dims, unit, hint)
        for name, unit, hint in zip(names, units, hints, strict=True)
    ]


def _members(cls: Any) -> list[_Stored]:
    """The fields of a dataclass or named tuple; none of another type."""
    if dataclasses.is_dataclass(cls):
        names: Iterable[str] = (each.name for each in dataclasses.fields(cls))
    elif hasattr(cls, "_fields"):
        names = cls._fields
    else:
        return []
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for name in names:
        hint, place = hints[name], _NOWHERE
        if get_origin(hint) is Annotated:
            hint, place = get_args(hint)
        found.append(_Stored(name, place, hint))
    return found


def _entry(hint: Any) -> Any:
    """X of tuple[X, ...], else nothing."""
    return get_args(hint)[0] if get_origin(hint) is tuple else None


def _parts(hint: Any) -> tuple[Any, ...]:
    """Types of keys and values of a mapping, or of what the entries of a tuple hold."""
    entry = hint if get_origin(hint) is Mapping else _entry(hint)
    return get_args(entry) if get_origin(entry) in (Mapping, tuple) else ()


def _written(value: Any, field: _Stored) -> dict[str, Array]:
    columns = _columns(field)
    if members := _members(_entry(field.hint)):
        several = [[getattr(row, member.name) for row in value] for member in members]
    elif _parts(field.hint):
        pairs = list(value.items() if isinstance(value, Mapping) else value)
        several = [[pair[k] for pair in pairs] for k in range(len(columns))]
    else:
        several = [value]
    return {
        column.name: Array(_array(values, column.hint), column.dims, column.unit)
        for column, values in zip(columns, several, strict=True)
    }


def _array(values: Any, hint: Any) -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else np.array(values, dtype=_dtype(hint))


def _dtype(hint: Any) -> Any:
    """Of an array type, or of an array of plain values; texts are objects."""
    if get_origin(hint) is np.ndarray:
        return get_args(get_args(hint)[1])[0]
    return hint if hint in (bool, int, float) else object


def _value(field: _Stored, group: Group) -> Any:
    place, hint = field.place, field.hint
    if place.json:
        entries = json_object(group[place.json].values[0])
        return hint(entries[field.name])
    if hint is int:
        return len(group[place.dims[0]].values)
    columns = _columns(field)
    if place.optional and columns[0].name not in group:
        sizes = [len(group[dim].values) if dim in group else 0 for dim in place.dims[1:]]
        return np.zeros((0, *sizes), dtype=_dtype(hint))
    several = [_column(column, group) for column in columns]
    if members := _members(_entry(hint)):
        names, entry = [member.name for member in members], _entry(hint)
        rows = zip(*several, strict=True)
        return tuple(entry(**dict(zip(names, row, strict=True))) for row in rows)
    if _parts(hint):
        pairs = tuple(zip(*several, strict=True))
        return dict(pairs) if get_origin(hint) is Mapping else pairs
    return tuple(several[0]) if _entry(hint) else several[0]


def _column(column: _Column, group: Group) -> Any:
    """An array, or a list of plain values."""
    values = _along(group, column.name, column.dims)
    if get_origin(column.hint) is np.ndarray:
        return np.asarray(values, dtype=_dtype(column.hint))
    if get_origin(column.hint) is Literal:
        words = get_args(column.hint)
        return [words[words.index(str(each))] for each in values]  # as they write them
    return [column.hint(each) for each in values]


def _along(group: Group, name: str, dims: tuple[str, ...]) -> NDArray[Any]:
    """The array of this name, whose dimensions must be these."""
    array = group[name]
    if array.dims != dims:
        raise ValueError(f"{name} has dims {array.dims}, expected {dims}")
    return array.values
