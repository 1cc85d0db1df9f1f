"""A sweep: the table of runs that is asked for, and the index of what became of each.

A table has every run of a list with every combination of a grid:

    command = "measure"                 [settings]  task = "pendulum"   fields of every run
    [grid]  seed = [0, 1, 2]            [[run]]  name = "good critic"   what else differs

A row's later values replace earlier ones: settings, run, grid; parameters of the task (`set`) are
joined.

FOLDER/sweep.json    the index, whole or absent, with a checksum
FOLDER/NAME.h5       a run, with NAME.html and NAME.log beside it
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from gradlab import validation
from gradlab.errors import Failure, InputError
from gradlab.storage import whole_files
from gradlab.validation import expected, shown

PARAMETERS = "set"  # the one field that is a table, of a task's parameters
_COMMANDS: Mapping[str, tuple[str, ...]] = {  # with the fields that are given without a name
    "measure": ("task",), "train": ("algorithm", "task"), "remedies": ("task",),
    "certify": ("simulator",),
}  # fmt: skip
_OWN = ("output", "resume", "overwrite", "json", "explain")  # of the sweep


def _command(name: str, values: Mapping[str, object], place: str) -> tuple[str, ...]:
    """The words of a command with these values."""
    first = [_word(each, values[each], place) for each in _COMMANDS[name] if each in values]
    options = [each for each in values if each not in _COMMANDS[name]]
    return (name, *first, *(word for each in options for word in _words(each, values, place)))


def _words(name: str, values: Mapping[str, object], place: str) -> list[str]:
    """The words of one option."""
    option, value = f"--{name.replace('_', '-')}", values[name]
    if value is None or isinstance(value, bool):
        return [option] if value else []
    if isinstance(value, Mapping):
        keys = [_word(name, key, place) for key in value]
        given = zip(keys, value.values(), strict=True)
        return [option, *(f"{key}={_json(each)}" for key, each in given)] if value else []
    if isinstance(value, list | tuple):
        return [option, *(_word(name, each, place) for each in value)] if value else []
    text = _text(name, value, place)
    # Else "-0.5" and "-file" would be read as options.
    return [f"{option}={text}"] if text.startswith("-") else [option, text]


def _word(name: str, value: object, place: str) -> str:
    """A value that stands alone, where text such as "--help" would be an option."""
    text = _text(name, value, place)
    if isinstance(value, str) and text.startswith("-"):
        raise InputError(f"{place}: {name} has {shown(value)}, which begins with -")
    return text


def _text(name: str, value: object, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise expected(f"{place}: {name}", value, "text or a number")
    return str(value)


def _json(value: object) -> str:
    """A parameter's value as --set takes it: text stays as it is unless it would be a number."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    try:
        return json.dumps(value)
    except TypeError:
        raise expected(PARAMETERS, value, "text, a number or a list") from None


_PARTS = ("command", "settings", "grid", "run")
_MOST = 10_000  # runs of a sweep
_LARGEST = 1 << 20  # bytes of a file
_LONGEST = 80  # characters of a run's name, which becomes that of its files

_Values = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """One run of the table.

    Attributes:
        name: of its files, unlike that of any other run.
        differs: the fields in which the runs differ.
        words: the command without what it writes.
    """

    name: str
    differs: _Values
    words: tuple[str, ...]


def read(path: Path) -> _Values:
    """The table in a TOML file."""
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} has more than {_LARGEST} bytes")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML file: {error}") from error


def planned(table: Mapping[str, Any]) -> list[Planned]:
    """The runs of a table."""
    named = ", ".join(_PARTS)
    validation.instance("the sweep", table, Mapping, f"a table with {named}")
    for name in table:
        validation.word("a part of the sweep", name, _PARTS)
    command = str(table.get("command"))
    validation.word("command of the sweep", table.get("command"), tuple(_COMMANDS))
    settings = _fields(table.get("settings", {}), "[settings]")
    grid = _fields(table.get("grid", {}), "[grid]")
    for axis, values in grid.items():
        if not isinstance(values, list | tuple) or not values:
            raise InputError(f"[grid] has {axis} = {shown(values)}, expected a list of values")
    axes = list(grid.items())
    runs = [
        (name, _fields(values, f"[[run]] {k}"))
        for k, (name, values) in enumerate(_runs(table.get("run", [{}])), 1)
    ]
    count = len(runs) * prod(len(values) for _, values in axes)
    if not 0 < count <= _MOST:
        raise InputError(f"the sweep has {count} runs, expected 1 to {_MOST}")
    points = [dict(zip([n for n, _ in axes], at, strict=True))
              for at in product(*(values for _, values in axes))]  # fmt: skip
    titles, rows = [], []
    for (own, values), at in product(runs, points):
        # A run's name, or else its values, and those of the grid.
        parts = [own] if own else [f"{key}-{value}" for key, value in values.items()]
        parts += [f"{key.removeprefix('set.')}-{value}" for key, value in at.items()]
        title = re.sub(r"[^\w.+]+", "-", "-".join(parts), flags=re.ASCII).strip("-.")
        titles.append(title or command)
        rows.append({**values, **at})
    names = _distinct(titles)
    return [
        Planned(name, differs, _command(command, _joined(settings, differs), f"run {name}"))
        for name, differs in zip(names, rows, strict=True)
    ]


def _runs(runs: object) -> list[tuple[str, Mapping[str, Any]]]:
    """Names, which may be empty, and fields of the list of runs."""
    if not isinstance(runs, list | tuple) or not all(isinstance(each, Mapping) for each in runs):
        raise InputError("run is no list of tables: begin each with [[run]]")
    listed: list[tuple[str, Mapping[str, Any]]] = []
    for each in runs:
        name = each.get("name", "")
        validation.instance("name of a run", name, str, "text")
        listed.append((name, {key: value for key, value in each.items() if key != "name"}))
    return listed


def _fields(values: Any, place: str) -> _Values:
    """Checked fields, named with underscores; parameters of the task as "set.NAME"."""
    validation.instance(place, values, Mapping, "a table of fields")
    flat: _Values = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name in _OWN:
            raise InputError(f"{place} has {name!r}, which the sweep decides: leave it out")
        if name != PARAMETERS:
            flat[name] = value
        elif isinstance(value, Mapping):
            flat |= {f"{PARAMETERS}.{parameter}": each for parameter, each in value.items()}
        else:
            raise expected(f"{place}: set", value, "a table of parameters")
    return flat


def _joined(settings: _Values, differs: _Values) -> _Values:
    """All fields of a row, parameters of the task as one table again."""
    values = {**settings, **differs}
    marked = f"{PARAMETERS}."
    plain = {name: value for name, value in values.items() if not name.startswith(marked)}
    parameters = {
        name.removeprefix(marked): value for name, value in values.items() if name not in plain
    }
    return plain | ({PARAMETERS: parameters} if parameters else {})


def _distinct(titles: Sequence[str]) -> list[str]:
    """Names that are short enough, and unlike each other also where case does not count."""
    names: list[str] = []
    taken = {Path(INDEX).stem}  # its files are the sweep's
    for k, title in enumerate(titles, 1):
        name = title if len(title) <= _LONGEST and title.lower() not in taken else f"run-{k}"
        if name.lower() in taken:
            raise InputError(f"two runs are called {name!r}: rename one")
        taken.add(name.lower())
        names.append(name)
    return names


INDEX = "sweep.json"
_VERSION = 1
State = Literal["waiting", "done", "failed", "interrupted"]
_STATES: tuple[State, ...] = get_args(State)
_NAME = re.compile(r"[\w.+-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        file: of the run, in the folder.
        words: its command, without what it writes.
        differs: the fields in which the runs of the sweep differ.
        error: one line, where it failed.
        seconds: that it took; None before its end.
        sentence: the first of its result.
    """

    name: str
    file: str
    words: tuple[str, ...]
    differs: Mapping[str, Any]
    state: State = "waiting"
    error: str = ""
    seconds: float | None = None
    sentence: str = ""


@dataclass(frozen=True)
class Sweep:
    """All runs of a folder.

    Attributes:
        folder: where it is.
        command: the command line that made it; empty from Python.
        rows: the runs, in the order of the table.
    """

    folder: Path
    command: str
    rows: tuple[Row, ...]

    def files(self) -> list[Path]:
        """The files of the runs that are done, in order."""
        return [self.folder / row.file for row in self.rows if row.state == "done"]

    def with_row(self, row: Row) -> Sweep:
        """With it in the place of that of its name."""
        rows = (row if each.name == row.name else each for each in self.rows)
        return replace(self, rows=tuple(rows))

    def count(self, *states: State) -> int:
        """How many runs are in one of these states."""
        return sum(row.state in states for row in self.rows)

    def table(self) -> pd.DataFrame:
        """A row per run: name, what differs, state, seconds, sentence, error, file."""
        return pd.DataFrame(
            [
                {"name": row.name, **row.differs, "state": row.state,
                 "seconds": row.seconds, "sentence": row.sentence, "error": row.error,
                 "file": str(self.folder / row.file)}
                for row in self.rows
            ]
        )  # fmt: skip


def write(sweep: Sweep) -> None:
    """Write the index in one step.

    Raises:
        Failure: it cannot be written.
    """
    rows = [asdict(row) for row in sweep.rows]
    content = {"version": _VERSION, "command": sweep.command, "rows": rows}
    try:
        whole_files.write(sweep.folder / INDEX, content)
    except OSError as error:
        reason = error.strerror or error
        raise Failure(
            f"{sweep.folder / INDEX} cannot be written ({reason}): go on with resume=True"
        ) from error


def load(folder: str | Path) -> Sweep:
    """The sweep in a folder.

    Raises:
        InputError: there is none, or its index is damaged.
    """
    folder = Path(folder)
    try:
        content = whole_files.read(folder / INDEX)
        if content.get("version") != _VERSION:
            raise ValueError(f"version {content.get('version')}, expected {_VERSION}")
        rows = tuple(_row(each) for each in content["rows"])
        return Sweep(folder, str(content["command"]), rows)
    except FileNotFoundError:
        raise InputError(f"{folder} holds no sweep: {INDEX} is missing") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{folder / INDEX} is damaged: {error}") from error


def _row(values: Mapping[str, Any]) -> Row:
    """A row of a file, which may be anybody's."""
    row = Row(**values)
    texts = (row.name, row.file, row.error, row.sentence, *row.words)
    if not (
        all(isinstance(text, str) for text in texts)
        and row.state in _STATES
        and _NAME.fullmatch(row.name)
        and _NAME.fullmatch(row.file)
        and isinstance(row.differs, Mapping)
        and isinstance(row.seconds, int | float | None)
    ):
        raise ValueError(f"a row is no run: {row.name!r}")
    return replace(row, words=tuple(row.words))
