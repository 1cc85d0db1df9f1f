"""A table of runs: every run of a list with every combination of a grid.

    command = "measure"                 # of which all rows are runs
    [settings]                          # fields of every run, named as the command's options
    task = "pendulum"
    set = {engine = "analytic"}         # the task's parameters
    [grid]                              # every combination of these values
    seed = [0, 1, 2]
    [[run]]                             # what else differs; each run × the grid
    name = "good critic"
    critic = "c.safetensors"

A row's later values replace earlier ones: settings, run, grid. Parameters of the task are joined.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from gradlab.errors import InputError
from gradlab.runs.sweep import INDEX
from gradlab.sweeps.commands import PARAMETERS, Command, known
from gradlab.validation import shown

PARTS = ("command", "settings", "grid", "run")
MOST = 10_000  # runs of a sweep
LARGEST = 1 << 20  # bytes of a file
LONGEST = 80  # characters of a run's name, which becomes that of its files

Values = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """One run of the table.

    Attributes:
        name: of its files, unlike that of any other run.
        differs: the fields in which the runs differ.
        words: the command without what it writes.
    """

    name: str
    differs: Values
    words: tuple[str, ...]


def read(path: Path) -> Values:
    """The table in a TOML file.

    Raises:
        InputError: it cannot be read, or is no TOML.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path} has more than {LARGEST} bytes, too many for a sweep")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name a TOML file") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML file: {error}") from error


def planned(table: Mapping[str, Any], commands: Mapping[str, Command]) -> list[Planned]:
    """The runs of a table.

    Raises:
        InputError: names the part of the table, what it has and what is expected.
    """
    _check_parts(table)
    command = commands[known(tuple(commands), table.get("command"))]
    settings = _fields(table.get("settings", {}), "[settings]", command)
    axes = _axes(_fields(table.get("grid", {}), "[grid]", command))
    runs = [
        (name, _fields(values, f"[[run]] {k}", command))
        for k, (name, values) in enumerate(_runs(table.get("run", [{}])), 1)
    ]
    count = len(runs) * prod(len(values) for _, values in axes)
    if not 0 < count <= MOST:
        raise InputError(f"the sweep has {count} runs, expected 1 to {MOST}")
    points = [dict(zip([n for n, _ in axes], at, strict=True))
              for at in product(*(values for _, values in axes))]  # fmt: skip
    rows = [(_title(name, values, at), {**values, **at}) for name, values in runs for at in points]
    names = _distinct([title or command.name for title, _ in rows])
    return [
        Planned(name, differs, tuple(command.words(_joined(settings, differs), f"run {name}")))
        for name, (_, differs) in zip(names, rows, strict=True)
    ]


def _check_parts(table: object) -> None:
    if not isinstance(table, Mapping):
        raise InputError(f"the sweep is {shown(table)}, expected a table with {', '.join(PARTS)}")
    for name in table:
        if name not in PARTS:
            near = difflib.get_close_matches(str(name), PARTS, n=1)
            hint = f" (nearest: {near[0]})" if near else ": fields of the command go to [settings]"
            raise InputError(f"the sweep has {name!r}, expected {', '.join(PARTS)}{hint}")


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


def _fields(values: object, place: str, command: Command) -> Values:
    """Checked fields, named with underscores; parameters of the task as "set.NAME"."""
    if not isinstance(values, Mapping):
        raise InputError(f"{place} is {shown(values)}, expected a table of fields")
    flat: Values = {}
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


def _axes(grid: Values) -> list[tuple[str, Sequence[Any]]]:
    for name, values in grid.items():
        if not isinstance(values, list | tuple) or not values:
            raise InputError(
                f"[grid] has {name} = {shown(values)}, expected a list of values; a single one "
                f"goes to [settings]"
            )
    return list(grid.items())


def _joined(settings: Values, differs: Values) -> Values:
    """All fields of a row, parameters of the task as one table again."""
    values = {**settings, **differs}
    marked = f"{PARAMETERS}."
    plain = {name: value for name, value in values.items() if not name.startswith(marked)}
    parameters = {
        name.removeprefix(marked): value for name, value in values.items() if name not in plain
    }
    return plain | ({PARAMETERS: parameters} if parameters else {})


def _title(name: str, values: Values, at: Values) -> str:
    """A run's name, or else its values, and those of the grid."""
    parts = [name] if name else [f"{key}-{value}" for key, value in values.items()]
    parts += [f"{key.removeprefix('set.')}-{value}" for key, value in at.items()]
    return re.sub(r"[^\w.+]+", "-", "-".join(parts), flags=re.ASCII).strip("-.")


def _distinct(titles: Sequence[str]) -> list[str]:
    """Names that are short enough, and unlike each other also where case does not count."""
    names: list[str] = []
    taken = {Path(INDEX).stem}  # its files are the sweep's
    for k, title in enumerate(titles, 1):
        name = title if len(title) <= LONGEST and title.lower() not in taken else f"run-{k}"
        if name.lower() in taken:
            raise InputError(f"the sweep names a run {name!r}, which is another's: rename it")
        taken.add(name.lower())
        names.append(name)
    return names
