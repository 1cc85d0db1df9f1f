"""Every kind of run: how its file is read, its page, its first screen, how several are compared.

    KINDS[journal.kind(path)]   a run of a new kind is a row here

The kind is an attribute of the file and costs no read of its rows, so that a run is opened once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.errors import InputError, imported
from gradlab.reporting import comparison_page, probe_page, profile_page, training_page
from gradlab.reporting.page import Page, PageSource
from gradlab.runs.probe import results as probe_results
from gradlab.runs.probe.schema import KIND as PROBE
from gradlab.runs.profile import load as load_profile
from gradlab.runs.training import results as training_results
from gradlab.storage import journal, records
from gradlab.verdicts.measurement.verdict import first_screen
from gradlab.verdicts.probe.first_screen import screen as probe_screen
from gradlab.verdicts.screen import Screen
from gradlab.verdicts.training.first_screen import screen as training_screen

PROFILE, TRAINING = "profile", training_results.KIND


@dataclass(frozen=True)
class Kind:
    """How a run of one kind is read and shown.

    Attributes:
        load: the run of a path.
        page: the page of a run, its source, and a name for it.
        screen: the first screen of a run, without its figures.
        compared: the page of several files and the table of their differences; None: runs of this
            kind are not compared, `alone` has what to do instead.
    """

    load: Callable[[str | Path], Any]
    page: Callable[[Any, PageSource, str], Page]
    screen: Callable[[Any], Screen]
    compared: Callable[[Sequence[str | Path]], tuple[Page, pd.DataFrame]] | None = None
    alone: str = ""


# A row of a tool is named, and its runs are not shown where the folder of the tool is not.
KINDS: Mapping[str, Kind | str] = {
    PROFILE: Kind(load_profile, profile_page.page, first_screen, comparison_page.of_files),
    TRAINING: Kind(
        training_results.load, training_page.page, lambda run: training_screen({run.name: run}),
        training_page.of_files,
    ),
    PROBE: Kind(
        probe_results.load, probe_page.page, probe_screen,
        alone="is a probe's run, of one loop at its own steps: look at each with `gradlab report`, "
        "and compare what `gradlab measure` finds of their policies",
    ),
    "jacobians": "gradlab.tools.jacobians.page:KIND",
    "remedies": "gradlab.tools.remedies.page:KIND",
    "logs": "gradlab.tools.logs.page:KIND",
    "race": "gradlab.tools.race.page:KIND",
}  # fmt: skip
_FOLDER = "gradlab.tools.sweep.page:KIND"  # of a sweep's runs


def page_of(path: Path) -> Page:
    """The page of the run at `path`, or of the sweep in that folder; a run that cannot be read is
    refused with the command that makes it again."""
    kind = _kind(path)
    try:
        run = kind.load(path)
        config, attributes = getattr(run, "config", {}), getattr(run, "attributes", {})
        command = str(config.get("command") or attributes.get("command") or "")
        return kind.page(run, PageSource(str(path), command), path.stem)
    except InputError as error:
        raise InputError(f"{error}{_again(path)}") from error


def _again(path: Path) -> str:
    """The command that makes the run again; "" where the file does not know it."""
    try:
        command = "" if path.is_dir() else str(records.attributes(path).get("command", ""))
    except InputError:
        return ""
    return f": make it again with `{command}`" if command else ""


def screen_of(path: str | Path) -> Screen:
    """The first screen of the run at `path`."""
    kind = _kind(path := Path(path))
    return kind.screen(kind.load(path))


def compared(paths: Sequence[str | Path]) -> tuple[Page, pd.DataFrame]:
    """The page of several runs of one kind, and the table of their differences.

    A folder stands for the runs of its sweep that are done.
    """
    paths = [file for path in paths for file in files(Path(path))]
    words = {str(path): journal.kind(path) for path in paths}
    if len(set(words.values())) > 1:
        listing = ", ".join(f"{path}: {word}" for path, word in words.items())
        raise InputError(f"runs are of different kinds ({listing}): compare runs of one kind")
    word = next(iter(words.values()), TRAINING)
    kind = _row(TRAINING) if not paths else _kind(Path(paths[0]))
    if kind.compared is None:
        default = f"is a run of {word}: compare training runs or measurements"
        raise InputError(f"{paths[0]} {kind.alone or default}")
    return kind.compared(paths)


def files(path: Path) -> list[Path]:
    """The file itself, or the runs that are done of the sweep in that folder."""
    if not path.is_dir():
        return [path]
    done: list[Path] = _kind(path).load(path).files()
    if not done:
        raise InputError(f"{path} has no run that is done: go on with resume=True")
    return done


def _kind(path: Path) -> Kind:
    if path.is_dir():
        sweep: Kind = imported(_FOLDER)
        return sweep
    if (name := journal.kind(path)) not in KINDS:
        raise InputError(
            f"{path} holds {name!r}, expected a run of gradlab: one of {', '.join(KINDS)}"
        )
    return _row(name)


def _row(name: str) -> Kind:
    row = KINDS[name]
    kind: Kind = imported(row) if isinstance(row, str) else row
    return kind
