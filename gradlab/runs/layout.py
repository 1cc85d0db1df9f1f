"""Typed results as labelled arrays, and back: where each field of a frozen dataclass lies.

A field says its dimensions and its unit, its type says what comes back, and the class's docstring
says what it is: the description of its arrays in the file.

    norm: Annotated[float, stored(unit="gradient norm")]                one number
    gain: Annotated[Floats, stored("cell", "group", unit="return")]     an array, its dimensions
    names: Annotated[tuple[str, ...], stored("name")]                   a tuple along one dimension
    cells: Annotated[tuple[tuple[str, int], ...], stored("cell", name=("estimator", "at"))]
                                                                        two arrays: their parts
    sizes: Annotated[Mapping[str, float], stored("size", name=("constant", "size"))]
                                                                        two: keys and values
    columns: Annotated[Mapping[str, Floats], stored("cell", each=("value", "se"))]
                                                                        one for each of these keys
    jumps: Annotated[Jumps | None, nested("jumps")]                     a group of its own
    findings: Annotated[tuple[Finding, ...], nested("findings")]        a group, a row each
    config: Annotated[Mapping[str, Any], attribute()]                   JSON beside the groups

Fields without a place are the caller's. Dimensions that no array names are counted 0, 1, ….
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin
from typing import get_type_hints as hints_of

import numpy as np
from numpy.typing import NDArray

from gradlab.storage.records import Array

T = TypeVar("T")
Group = Mapping[str, Array]
Groups = Mapping[str, Group]
_Names = str | tuple[str, ...]
_PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class _Place:
    """Where a field lies.

    Attributes:
        names, units: of its arrays; () for the field's own name, or no unit.
        each: keys of a mapping with an array each.
        optional: an array without entries is not written, and comes back empty.
        group: another one than the class's own.
        nested: the field is a group, or several; attribute: it is JSON beside the groups.
        write, read: make its groups and take them apart, where the field does it itself.
    """

    dims: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    each: tuple[str, ...] = ()
    optional: bool = False
    group: str = ""
    nested: bool = False
    attribute: bool = False
    write: Callable[[Any], dict[str, dict[str, Array]]] | None = None
    read: Callable[[Groups], Any] | None = None


_NOWHERE = _Place()  # of a field that is the caller's
_HERE = _Place(names=("",))  # of one number


def stored(
    *dims: str,
    name: _Names = (),
    unit: _Names = (),
    each: tuple[str, ...] = (),
    optional: bool = False,
    group: str = "",
) -> _Place:
    """A field is kept as one or several arrays (see the module and `_Place`)."""
    names, units = ((given,) if isinstance(given, str) else given for given in (name, unit))
    found = _Place(dims, names, units, each, optional, group)
    return _HERE if found == _NOWHERE else found


def nested(group: str, dim: str = "row") -> _Place:
    """A field is a group of its own: of a dataclass, or a table of its entries along `dim`."""
    return _Place((dim,), group=group, nested=True)


def by(
    write: Callable[[Any], dict[str, dict[str, Array]]], read: Callable[[Groups], Any]
) -> _Place:
    """A field makes its groups itself."""
    return _Place(nested=True, write=write, read=read)


def attribute() -> _Place:
    """A field of plain values is JSON beside the groups."""
    return _Place(attribute=True)


class _Field(NamedTuple):
    """A field, where it lies, its type without None, whether it may be None, and what it is."""

    name: str
    place: _Place
    hint: Any
    optional: bool
    description: str


class _Column(NamedTuple):
    """One array of a field, and the type of the array or of its entries."""

    name: str
    dims: tuple[str, ...]
    unit: str
    hint: Any
    description: str


def attributes_of(cls: type) -> list[str]:
    """The fields of a result that are JSON beside its groups."""
    return [field.name for field in _fields(cls) if field.place.attribute]


def objects_of(value: Any) -> dict[str, Any]:
    """The same with their values."""
    return {name: getattr(value, name) for name in attributes_of(type(value))}


def groups_of(value: Any, name: str) -> dict[str, dict[str, Array]]:
    """The stored fields of a dataclass as groups, its own under `name`."""
    groups: dict[str, dict[str, Array]] = {}
    for field in _fields(type(value)):
        content, place = getattr(value, field.name), field.place
        if place.attribute or content is None:
            continue
        if place.nested:
            made = _nested(content, field)
        elif place.optional and not len(content):
            continue
        else:
            made = {place.group or name: _written(content, field)}
        for group, arrays in made.items():
            if twice := groups.setdefault(group, {}).keys() & arrays.keys() - {"row"}:
                raise ValueError(f"{group} has {', '.join(twice)} twice: name the field's arrays")
            groups[group] |= arrays
    own = groups.get(name, {})
    scales = {key: array for key, array in own.items() if array.dims == (key,)}
    for group, arrays in groups.items():
        named = {dim for array in arrays.values() for dim in array.dims}
        shared = {dim: scales[dim] for dim in named & scales.keys() if dim not in arrays}
        several = (zip(x.dims, x.values.shape, strict=True) for x in arrays.values())
        sizes = {dim: size for each in several for dim, size in each}
        counts = {dim: counted(n, dim) for dim, n in sizes.items() if dim not in shared | arrays}
        groups[group] = counts | shared | arrays
    return groups


def fields_of(cls: type, groups: Groups, name: str) -> dict[str, Any]:
    """The stored fields of a dataclass by name, from what `groups_of` made.

    Raises:
        KeyError, ValueError, TypeError: the groups are of something else.
    """
    found = {}
    for field in _fields(cls):
        if not field.place.attribute:
            found[field.name] = _taken(field, groups, name)
    return found


def value_of(cls: type[T], groups: Groups, name: str) -> T:
    """The dataclass itself, where all of its fields are stored."""
    return cls(**fields_of(cls, groups, name))


def table(rows: Sequence[Any], of: type, dim: str = "row") -> dict[str, Array]:
    """Dataclasses or named tuples as one group, with an array for each of their fields."""
    return {dim: counted(len(rows), dim), **_written(rows, _table_of(of, dim))}


def rows(of: type[T], group: Group, dim: str = "row") -> tuple[T, ...]:
    """What `table` was given."""
    found: tuple[T, ...] = _read(_table_of(of, dim), group)
    return found


def by_column(
    table: Mapping[str, NDArray[Any]],
    units: Mapping[str, str] | None = None,
    descriptions: Mapping[str, str] | None = None,
    dim: str = "row",
) -> dict[str, Array]:
    """Arrays along the rows of a table, as one group."""
    count = len(next(iter(table.values())))
    of_unit, of_words = units or {}, descriptions or {}
    return {dim: counted(count, dim)} | {
        name: Array(values, (dim,), of_unit.get(name, ""), of_words.get(name, ""))
        for name, values in table.items()
    }


def counted(count: int, dim: str) -> Array:
    """0, 1, … along one dimension."""
    return Array(np.arange(count), (dim,), description=f"number of the {dim.replace('_', ' ')}")


def json_object(text: object) -> dict[str, Any]:
    """The JSON object in a text.

    Raises:
        ValueError: it holds something else.
    """
    value = json.loads(str(text))
    if not isinstance(value, dict):
        raise ValueError("what should be a JSON object is none")
    return value


def _nested(content: Any, field: _Field) -> dict[str, dict[str, Array]]:
    place, entry = field.place, _entry(field.hint)
    if place.write is not None:
        return place.write(content)
    if entry is not None:
        return {place.group: table(content, entry, *place.dims)}
    return groups_of(content, place.group)


def _taken(field: _Field, groups: Groups, name: str) -> Any:
    place = field.place
    if place.read is not None:
        return place.read(groups)
    group = place.group or name
    if field.optional and place.nested and group not in groups:
        return None
    if not place.nested:
        absent = field.optional and (place.names or (field.name,))[0] not in groups[group]
        return None if absent else _read(field, groups[group])
    entry = _entry(field.hint)
    if entry is None:
        return value_of(field.hint, groups, group)
    return rows(entry, groups[group], *place.dims)


def _fields(cls: Any) -> list[_Field]:
    """Those that have a place."""
    return [field for field in _members(cls) if field.place != _NOWHERE]


def _table_of(of: type, dim: str) -> _Field:
    hint = tuple[of, ...]  # type: ignore[valid-type]
    return _Field("rows", _Place((dim,)), hint, False, "")


def _columns(field: _Field) -> list[_Column]:
    """The arrays of a field."""
    place, entry, said = field.place, _entry(field.hint), field.description
    if place.each:
        hint, units = get_args(field.hint)[1], place.units or ("",)
        units = units * (len(place.each) // len(units))  # one for all, or one each
        return [
            _Column(key, place.dims, unit, hint, f"{said}: {key}")
            for key, unit in zip(place.each, units, strict=True)
        ]
    if members := _members(entry):
        return [
            _Column(
                (member.place.names or (member.name,))[0] or member.name,
                place.dims + member.place.dims,
                "".join(member.place.units),
                member.hint,
                member.description,
            )
            for member in members
        ]
    hints = _parts(field.hint) or (entry or field.hint,)
    names, units = place.names or (field.name,), place.units or ("",) * len(hints)
    return [
        _Column(name or field.name, place.dims, unit, hint, said)
        for name, unit, hint in zip(names, units, hints, strict=True)
    ]


@cache
def _members(cls: Any) -> list[_Field]:
    """The fields of a dataclass or named tuple; none of another type."""
    if dataclasses.is_dataclass(cls):
        names: Iterable[str] = (each.name for each in dataclasses.fields(cls))
    elif hasattr(cls, "_fields"):
        names = cls._fields
    else:
        return []
    hints, said = hints_of(cls, include_extras=True), descriptions(cls)
    found = []
    for name in names:
        hint, place = hints[name], _NOWHERE
        if get_origin(hint) is Annotated:
            hint, place = get_args(hint)
        kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
        optional = NoneType in kinds
        hint = next(each for each in kinds if each is not NoneType) if optional else hint
        found.append(_Field(name, place, hint, optional, said.get(name, name.replace("_", " "))))
    return found


_ENTRY = re.compile(r"(?:^|[;.] )((?:\w+, )*\w+): ")


def descriptions(cls: Any) -> dict[str, str]:
    """What the docstring of a class says of its attributes, in its entries "name, name: text"."""
    lines = (cls.__doc__ or "").partition("Attributes:\n")[2].splitlines()
    deep = next((len(line) - len(line.lstrip()) for line in lines if line.strip()), 0)
    entries: list[str] = []
    for line in lines:
        if line.strip() and len(line) - len(line.lstrip()) <= deep:
            entries.append(line.strip())
        elif entries and line.strip():
            entries[-1] += f" {line.strip()}"
    known = set(getattr(cls, "__annotations__", ()))
    bases = getattr(cls, "__bases__", ())
    found = {name: text for base in bases for name, text in descriptions(base).items()}
    for entry in entries:
        parts = _ENTRY.split(entry)[1:]
        names: list[str] = []
        for given, text in zip(parts[::2], parts[1::2], strict=True):
            if set(given.split(", ")) <= known:
                names = given.split(", ")
                found |= dict.fromkeys(names, text.strip(" ."))
            else:  # a colon within a description
                found |= {name: f"{found[name]}; {given}: {text}".strip(" .") for name in names}
    return found


def _entry(hint: Any) -> Any:
    """X of tuple[X, ...], else nothing."""
    return get_args(hint)[0] if get_origin(hint) is tuple else None


def _parts(hint: Any) -> tuple[Any, ...]:
    """Types of keys and values of a mapping, or of what the entries of a tuple hold."""
    entry = hint if get_origin(hint) is Mapping else _entry(hint)
    return get_args(entry) if get_origin(entry) in (Mapping, tuple) else ()


def _written(value: Any, field: _Field) -> dict[str, Array]:
    columns = _columns(field)
    if field.place.each:
        several: list[Any] = [value[key] for key in field.place.each]
    elif members := _members(_entry(field.hint)):
        several = [[getattr(row, member.name) for row in value] for member in members]
    elif _parts(field.hint):
        pairs = list(value.items() if isinstance(value, Mapping) else value)
        several = [[pair[k] for pair in pairs] for k in range(len(columns))]
    else:
        several = [value]
    return {
        each.name: Array(_array(values, each.hint), each.dims, each.unit, each.description)
        for each, values in zip(columns, several, strict=True)
    }


def _array(values: Any, hint: Any) -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else np.array(values, dtype=_dtype(hint))


def _dtype(hint: Any) -> Any:
    """Of an array type, or of an array of plain values; texts are objects."""
    if get_origin(hint) is np.ndarray:
        return get_args(get_args(hint)[1])[0]
    return hint if hint in (bool, int, float) else object


def _read(field: _Field, group: Group) -> Any:
    place, hint = field.place, field.hint
    columns = _columns(field)
    if place.optional and columns[0].name not in group:
        sizes = [len(group[dim].values) if dim in group else 0 for dim in place.dims[1:]]
        return np.zeros((0, *sizes), dtype=_dtype(hint))
    several = [_column(column, group) for column in columns]
    if place.each:
        return dict(zip(place.each, several, strict=True))
    if members := _members(_entry(hint)):
        names, entry = [member.name for member in members], _entry(hint)
        rows = zip(*several, strict=True)
        return tuple(entry(**dict(zip(names, row, strict=True))) for row in rows)
    if _parts(hint):
        pairs = tuple(zip(*several, strict=True))
        return dict(pairs) if get_origin(hint) is Mapping else pairs
    return tuple(several[0]) if _entry(hint) else several[0]


def _column(column: _Column, group: Group) -> Any:
    """An array, a list of plain values, or one."""
    values = _along(group, column.name, column.dims)
    if get_origin(column.hint) is np.ndarray:
        kind = _dtype(column.hint)
        return values if kind is Any else np.asarray(values, dtype=kind)
    if get_origin(column.hint) is Literal:
        words = get_args(column.hint)
        found = [words[words.index(str(each))] for each in values.ravel()]  # as they write them
    else:
        found = [column.hint(each) for each in values.ravel()]
    return found if column.dims else found[0]


def _along(group: Group, name: str, dims: tuple[str, ...]) -> NDArray[Any]:
    """The array of this name, whose dimensions must be these."""
    array = group[name]
    if array.dims != dims:
        raise ValueError(f"{name} has dims {array.dims}, expected {dims}")
    return array.values
