"""The commands of which a sweep can have many runs (`gradlab.tools.sweep.table`)."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import subcommand

from gradlab.cli.measure import Measure
from gradlab.cli.train import Train
from gradlab.errors import InputError, imported
from gradlab.tools.sweep.table import CHOSEN, PARAMETERS, Command

_Again = Callable[[Path], list[str]]
_RUN = {"output": ".h5"}
_CERTIFICATE = {"output": ".json", "html": ".html"}


def _anew(run: Path) -> list[str]:
    return ["--overwrite"]


def _trained(run: Path) -> list[str]:
    """Go on from the saved state where there is one."""
    from gradlab.training.checkpoints import resume_file

    return ["--resume"] if resume_file(run).is_file() else _anew(run)


def _compared(run: Path) -> list[str]:
    """Go on where models were fitted."""
    begun = imported("gradlab.tools.remedies.compute:is_begun")
    return ["--resume"] if begun(run) else _anew(run)


def _of(
    name: str, command: type, files: dict[str, str], again: _Again, *positional: str
) -> Command:
    """What a sweep has to know of a command, from its class."""
    names = {"settings": PARAMETERS}
    options = [names.get(field.name, field.name) for field in fields(command)]
    known = tuple(option for option in options if option not in CHOSEN)
    return Command(name, positional, known, files, again)


_ROWS: tuple[tuple[str, type | str, dict[str, str], _Again, tuple[str, ...]], ...] = (
    ("measure", Measure, _RUN, _anew, ("task",)),
    ("train", Train, _RUN, _trained, ("algorithm", "task")),
    ("remedies", "gradlab.tools.remedies.command:RemediesCommand", _RUN, _compared, ("task",)),
    # A certificate replaces an earlier one.
    (
        "certify",
        "gradlab.tools.certify.command:Certify",
        _CERTIFICATE,
        lambda run: [],
        ("simulator",),
    ),
)
COMMANDS: dict[str, Command] = {}
_classes: list[Any] = []
for _name, _class, _files, _again, _positional in _ROWS:
    with suppress(InputError):  # a tool that is not there
        _found = imported(_class) if isinstance(_class, str) else _class
        COMMANDS[_name] = _of(_name, _found, _files, _again, *_positional)
        _classes.append(Annotated[_found, subcommand(_name)])
Swept: Any = functools.reduce(operator.or_, _classes)
