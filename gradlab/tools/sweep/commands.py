"""The commands of which a sweep can have many runs (`gradlab.tools.sweep.table`)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from typing import Any

from gradlab.cli.program import command_of
from gradlab.errors import InputError
from gradlab.tools.sweep.table import CHOSEN, PARAMETERS, Command

_RUN = {"output": ".h5"}
_CERTIFICATE = {"output": ".json", "html": ".html"}  # one replaces an earlier one


_ROWS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "measure": (_RUN, ("task",)),
    "train": (_RUN, ("algorithm", "task")),
    "remedies": (_RUN, ("task",)),
    "certify": (_CERTIFICATE, ("simulator",)),
}
COMMANDS: dict[str, Command] = {}
for _name, (_files, _positional) in _ROWS.items():
    with suppress(InputError):  # a tool that is not there
        _found: Any = command_of(_name)
        _options = [{"settings": PARAMETERS}.get(f.name, f.name) for f in fields(_found)]
        _known = tuple(option for option in _options if option not in CHOSEN)
        _plain = ["--overwrite"] if "overwrite" in _options else []
        _again = getattr(_found, "again", lambda run, words=_plain: words)
        COMMANDS[_name] = Command(_name, _positional, _known, _files, _again)
