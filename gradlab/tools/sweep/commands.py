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

_RUN = {"output": ".h5"}
_CERTIFICATE = {"output": ".json", "html": ".html"}  # one replaces an earlier one


def _trained(run: Path) -> list[str]:
    """Go on from the saved state where there is one."""
    from gradlab.training.checkpoints import resume_file

    return ["--resume"] if resume_file(run).is_file() else ["--overwrite"]


def _compared(run: Path) -> list[str]:
    """Go on where models were fitted."""
    begun = imported("gradlab.tools.remedies.compute:is_begun")
    return ["--resume"] if begun(run) else ["--overwrite"]


_ROWS: dict[str, tuple[Any, dict[str, str], Callable[[Path], list[str]], tuple[str, ...]]] = {
    "measure": (Measure, _RUN, lambda run: ["--overwrite"], ("task",)),
    "train": (Train, _RUN, _trained, ("algorithm", "task")),
    "remedies": ("gradlab.tools.remedies.command:RemediesCommand", _RUN, _compared, ("task",)),
    "certify": ("gradlab.tools.certify.command:Certify", _CERTIFICATE, lambda run: [],
                ("simulator",)),
}  # fmt: skip
COMMANDS: dict[str, Command] = {}
_classes: list[Any] = []
for _name, (_class, _files, _again, _positional) in _ROWS.items():
    with suppress(InputError):  # a tool that is not there
        _found = imported(_class) if isinstance(_class, str) else _class
        _options = [{"settings": PARAMETERS}.get(f.name, f.name) for f in fields(_found)]
        _known = tuple(option for option in _options if option not in CHOSEN)
        COMMANDS[_name] = Command(_name, _positional, _known, _files, _again)
        _classes.append(Annotated[_found, subcommand(_name)])
Swept: Any = functools.reduce(operator.or_, _classes)
