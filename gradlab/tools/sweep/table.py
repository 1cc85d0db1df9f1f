"""A sweep: the table of runs that is asked for, and the index of what became of each.

A table has every run of a list with every combination of a grid:

    command = "measure"                 [settings]  task = "pendulum"   fields of every run
    [grid]  seed = [0, 1, 2]            [[run]]  name = "good critic"   what else differs

A row's later values replace earlier ones: settings, run, grid; parameters of the task (`set`) are
joined.

FOLDER/sweep.json    the index, whole or absent, with a checksum
FOLDER/NAME.h5       a run, as its command writes it; NAME.html, NAME.log beside it
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from gradlab.errors import InputError
from gradlab.storage import whole_files
from gradlab.validation import shown

PARAMETERS = "set"  # the one field that is a table, of a task's parameters
# Fields that no row may have, with the reason.
CHOSEN = {
    "output": "the sweep names every run's file; --output of `gradlab sweep` is their folder",
    "html": "the sweep names every run's page",
    "resume": "--resume of `gradlab sweep` goes on with every run that can be",
    "overwrite": "a sweep replaces nothing: name another folder, or go on with resume=True",
    "json": "each run's output goes to its log, in words",
    "explain": "each run's output goes to its log: see its page",
}


@dataclass(frozen=True)
class Command:
    """One command of the command line.

    Attributes:
        positional: the fields that are given without a name, in order.
        fields: names of all fields that a row may have.
        files: the options that name what a run writes, with their suffixes; the first is the run.
        again: words that let a run start anew at its file, or go on there.
    """

    name: str
    positional: tuple[str, ...]
    fields: tuple[str, ...]
    files: Mapping[str, str]
    again: Callable[[Path], list[str]]

    @property
    def suffix(self) -> str:
        return next(iter(self.files.values()))

    def check_field(self, name: str, place: str) -> None:
        if name in CHOSEN:
            raise InputError(f"{place} has {name!r}: {CHOSEN[name]}")
        if name not in self.fields:
            near = difflib.get_close_matches(name, self.fields, n=3, cutoff=0.4)
            hint = f"nearest: {', '.join(near)}" if near else f"see gradlab {self.name} --help"
            raise InputError(f"{place} has {name!r}, no field of `gradlab {self.name}` ({hint})")

    def words(self, values: Mapping[str, object], place: str) -> list[str]:
        """The command with these values, without what it writes."""
        for name in self.positional:
            if name not in values:
                raise InputError(f'{place} has no {name!r}: write {name} = "…" in [settings]')
        first = [_word(name, values[name], place) for name in self.positional]
        options = [name for name in values if name not in self.positional]
        return [self.name, *first, *(w for name in options for w in _words(name, values, place))]

    def outputs(self, run: Path) -> list[str]:
        """The words that name what a run writes."""
        return [
            word
            for option, suffix in self.files.items()
            for word in (f"--{option}", str(run.with_name(run.stem + suffix)))
        ]


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
        raise InputError(f"{place}: {name} has {shown(value)}, which begins with -: give a name")
    return text


def _text(name: str, value: object, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InputError(f"{place}: {name} has {shown(value)}, expected text or a number")
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
        raise InputError(
            f"{PARAMETERS} has {shown(value)}, expected text, a number or a list"
        ) from None


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
            raise InputError(f"{path} has more than {_LARGEST} bytes, too many for a sweep")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML file: {error}") from error


def planned(table: Mapping[str, Any], commands: Mapping[str, Command]) -> list[Planned]:
    """The runs of a table."""
    if not isinstance(table, Mapping):
        raise InputError(f"the sweep is {shown(table)}, expected a table with {', '.join(_PARTS)}")
    for name in table:
        if name not in _PARTS:
            near = difflib.get_close_matches(str(name), _PARTS, n=1)
            hint = f" (nearest: {near[0]})" if near else ": fields of the command go to [settings]"
            raise InputError(f"the sweep has {name!r}, expected {', '.join(_PARTS)}{hint}")
    got = table.get("command")
    if not isinstance(got, str) or got not in commands:
        near = difflib.get_close_matches(str(got), commands, n=1)
        hint = f" (nearest: {near[0]})" if near else ""
        wanted = ", ".join(commands)
        raise InputError(f"command of the sweep is {shown(got)}{hint}, expected one of {wanted}")
    command = commands[got]
    settings = _fields(table.get("settings", {}), "[settings]", command)
    grid = _fields(table.get("grid", {}), "[grid]", command)
    for axis, values in grid.items():
        if not isinstance(values, list | tuple) or not values:
            raise InputError(
                f"[grid] has {axis} = {shown(values)}, expected a list of values; a single one "
                f"goes to [settings]"
            )
    axes = list(grid.items())
    runs = [
        (name, _fields(values, f"[[run]] {k}", command))
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
        titles.append(title or command.name)
        rows.append({**values, **at})
    names = _distinct(titles)
    return [
        Planned(name, differs, tuple(command.words(_joined(settings, differs), f"run {name}")))
        for name, differs in zip(names, rows, strict=True)
    ]


def _runs(runs: object) -> list[tuple[str, Mapping[str, Any]]]:
    """Names, which may be empty, and fields of the list of runs."""
    if not isinstance(runs, list | tuple) or not all(isinstance(each, Mapping) for each in runs):
        raise InputError("run of the sweep is no list of tables: begin each with [[run]]")
    listed: list[tuple[str, Mapping[str, Any]]] = []
    for each in runs:
        name = each.get("name", "")
        if not isinstance(name, str):
            raise InputError(f"name of a run is {shown(name)}, expected text")
        listed.append((name, {key: value for key, value in each.items() if key != "name"}))
    return listed


def _fields(values: object, place: str, command: Command) -> _Values:
    """Checked fields, named with underscores; parameters of the task as "set.NAME"."""
    if not isinstance(values, Mapping):
        raise InputError(f"{place} is {shown(values)}, expected a table of fields")
    flat: _Values = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        command.check_field(name, place)
        if name != PARAMETERS:
            flat[name] = value
        elif isinstance(value, Mapping):
            flat |= {f"{PARAMETERS}.{parameter}": each for parameter, each in value.items()}
        else:
            raise InputError(f"{place}: set is {shown(value)}, expected a table of parameters")
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
            raise InputError(f"the sweep names a run {name!r}, which is another's: rename it")
        taken.add(name.lower())
        names.append(name)
    return names


INDEX = "sweep.json"
_VERSION = 1
State = Literal["waiting", "running", "done", "failed", "interrupted"]
_STATES: tuple[State, ...] = get_args(State)
_NAME = re.compile(r"[\w.+-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        file: of the run, in the folder.
        words: its command, without what it writes.
        differs: the fields in which the runs of the sweep differ.
        attempts: how often it was started.
        error: one line, where it failed.
        seconds: of its last attempt; None before its end.
        sentence: the first of its result.
    """

    name: str
    file: str
    words: tuple[str, ...]
    differs: Mapping[str, Any]
    state: State = "waiting"
    attempts: int = 0
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

    def count(self, *states: State) -> int:
        """How many runs are in one of these states."""
        return sum(row.state in states for row in self.rows)

    def table(self) -> pd.DataFrame:
        """A row per run: name, what differs, state, attempts, seconds, sentence, error, file."""
        return pd.DataFrame(
            [
                {"name": row.name, **row.differs, "state": row.state, "attempts": row.attempts,
                 "seconds": row.seconds, "sentence": row.sentence, "error": row.error,
                 "file": str(self.folder / row.file)}
                for row in self.rows
            ]
        )  # fmt: skip

    def with_row(self, row: Row) -> Sweep:
        """The sweep with this row in the place of the one of its name."""
        rows = tuple(row if each.name == row.name else each for each in self.rows)
        return replace(self, rows=rows)


def write(sweep: Sweep) -> None:
    """Write the index in one step. Raises OSError."""
    rows = [asdict(row) for row in sweep.rows]
    content = {"version": _VERSION, "command": sweep.command, "rows": rows}
    whole_files.write(sweep.folder / INDEX, content)


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
    if not all(isinstance(text, str) for text in texts) or row.state not in _STATES:
        raise ValueError(f"a row is no run: {row.name!r}")
    if not (_NAME.fullmatch(row.name) and _NAME.fullmatch(row.file)):
        raise ValueError(f"the file of a run is {row.file!r}, expected one in the folder")
    if not isinstance(row.differs, Mapping) or not isinstance(row.attempts, int):
        raise ValueError(f"the row of {row.name} has wrong types")
    if not isinstance(row.seconds, int | float | None):
        raise ValueError(f"the row of {row.name} has seconds {row.seconds!r}")
    return replace(row, words=tuple(row.words))
