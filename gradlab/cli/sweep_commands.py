"""The commands of which a sweep can have many runs (`gradlab.sweeps.table`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated

from tyro.conf import subcommand

from gradlab.cli.certify import SUFFIXES, Certify
from gradlab.cli.measure import Measure
from gradlab.cli.remedies import RemediesCommand
from gradlab.cli.train import Train
from gradlab.sweeps.table import CHOSEN, PARAMETERS, Command

_Again = Callable[[Path], list[str]]
_RUN = {"output": ".h5"}
Swept = (
    Annotated[Measure, subcommand("measure")]
    | Annotated[Train, subcommand("train")]
    | Annotated[RemediesCommand, subcommand("remedies")]
    | Annotated[Certify, subcommand("certify")]
)


def _of(
    name: str, command: type, files: dict[str, str], again: _Again, *positional: str
) -> Command:
    """What a sweep has to know of a command, from its class."""
    names = {"settings": PARAMETERS}
    options = [names.get(field.name, field.name) for field in fields(command)]
    known = tuple(option for option in options if option not in CHOSEN)
    return Command(name, positional, known, files, again)


def _anew(run: Path) -> list[str]:
    return ["--overwrite"]


def _trained(run: Path) -> list[str]:
    """Go on from the saved state where there is one."""
    from gradlab.training.checkpoints import resume_file

    return ["--resume"] if resume_file(run).is_file() else _anew(run)


def _compared(run: Path) -> list[str]:
    """Go on where models were fitted."""
    from gradlab.remedies.compare import PLAN, models_folder

    return ["--resume"] if (models_folder(run) / PLAN).is_file() else _anew(run)


def _replaced(run: Path) -> list[str]:
    """A certificate replaces an earlier one."""
    return []


_CERTIFICATE = {"output": SUFFIXES["output"], "html": SUFFIXES["html"]}
COMMANDS = {
    "measure": _of("measure", Measure, _RUN, _anew, "task"),
    "train": _of("train", Train, _RUN, _trained, "algorithm", "task"),
    "remedies": _of("remedies", RemediesCommand, _RUN, _compared, "task"),
    "certify": _of("certify", Certify, _CERTIFICATE, _replaced, "simulator"),
}
