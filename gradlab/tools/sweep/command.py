"""`gradlab sweep FILE`: many runs of one command, by workers of this machine or of a cluster.

Progress of a sweep on standard error: one line per run at work, or a line per run that ends.

The commands of which a sweep can have many runs (`gradlab.tools.sweep.table`).
"""

from __future__ import annotations

import functools
import operator
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, final

from tyro.conf import Positional, arg, subcommand

from gradlab import validation
from gradlab.cli import arguments
from gradlab.cli.arguments import Document
from gradlab.cli.measure import Measure
from gradlab.cli.terminal.progress_bars import EVERY, standard_error
from gradlab.cli.train import Train
from gradlab.errors import InputError, imported
from gradlab.tools.sweep.table import CHOSEN, PARAMETERS, Command
from gradlab.wording import duration

if TYPE_CHECKING:
    from rich.live import Live

    from gradlab.tools.sweep.result import Row
    from gradlab.tools.sweep.result import Sweep as Runs
    from gradlab.tools.sweep.running import SweepProgress
    from gradlab.tools.sweep.table import Planned
    from gradlab.workers import Pool


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


def _replaced(run: Path) -> list[str]:
    """A certificate replaces an earlier one."""
    return []


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
    ("certify", "gradlab.tools.certify.command:Certify", _CERTIFICATE, _replaced, ("simulator",)),
)
COMMANDS: dict[str, Command] = {}
_classes: list[Any] = []
for _name, _class, _files, _again, _positional in _ROWS:
    with suppress(InputError):  # a tool that is not there
        _found = imported(_class) if isinstance(_class, str) else _class
        COMMANDS[_name] = _of(_name, _found, _files, _again, *_positional)
        _classes.append(Annotated[_found, subcommand(_name)])
Swept: Any = functools.reduce(operator.or_, _classes)


_NAMED = 32  # characters of a run's name on a terminal


@contextmanager
def lines() -> Iterator[SweepProgress]:
    """Yields what shows a sweep: a view that is redrawn on a terminal, else lines."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
            yield LiveLines(live)
        return
    yield SweepLines()


def _ending(row: Row) -> str:
    """What became of a run, in one line."""
    after = "" if row.seconds is None else f" after {duration(row.seconds)}"
    more = row.sentence or row.error
    return f"{row.name}: {row.state}{after}" + (f": {more}" if more else "")


@final
class Silent:
    """Shows nothing."""

    def ended(self, row: Row, done: int, total: int) -> None:
        pass

    def at_work(self, lines: Mapping[str, str], done: int, total: int) -> None:
        pass


@final
class SweepLines:
    """A line for each run that ends, and every 15 s one for each run at work."""

    def __init__(self) -> None:
        self._begun = self._written = time.monotonic()

    def ended(self, row: Row, done: int, total: int) -> None:
        self._line(f"{done} of {total}: {_ending(row)}")

    def at_work(self, lines: Mapping[str, str], done: int, total: int) -> None:
        if time.monotonic() - self._written >= EVERY:
            for name, line in lines.items():
                self._line(f"{name}: {line or 'begins'}")

    def _line(self, text: str) -> None:
        self._written = time.monotonic()
        minutes, seconds = divmod(int(self._written - self._begun), 60)
        standard_error(f"[{minutes}:{seconds:02d}] {text}")


@final
class LiveLines:
    """Runs that ended stay above; below them a line for each run at work, and the count."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def ended(self, row: Row, done: int, total: int) -> None:
        self._live.console.print(_ending(row), markup=False, highlight=False)

    def at_work(self, lines: Mapping[str, str], done: int, total: int) -> None:
        from rich.text import Text

        shown = [f"  {name[:_NAMED]:{_NAMED}} {line}" for name, line in lines.items()]
        text = "\n".join([*shown, f"{done} of {total} runs have ended"])
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)


RUNNER = "gradlab.tools.sweep.runner:Runner"


@dataclass(frozen=True)
class SweepCommand:
    """What comes out of many runs of one command, over tasks, seeds and settings?

    The file names a command (measure, train, remedies or certify), the fields of all runs in
    [settings], those of which every combination is made in [grid], and further differences as
    [[run]]. A run that fails keeps its error while the others go on. Ctrl-C lets the runs at work
    save what they have: the same command with --resume does what is missing.

        gradlab sweep table.toml --workers 4
        gradlab sweep table.toml --ray 10.0.0.1:6379 --resume
    """

    file: Annotated[Positional[Path], arg(metavar="FILE.toml")]
    """The table of runs."""
    workers: int | None = None
    """Runs at the same time. Default: one per processor."""
    ray: Annotated[str | None, arg(metavar="ADDRESS|local")] = None
    """A cluster of Ray by its HOST:PORT, or one started on this machine. Default: processes of this
    machine, without Ray."""
    output: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Folder of the runs, their logs and the index, on a disk that all machines have. Default:
    runs/FILE."""
    resume: bool = False
    """Do what is missing in the folder: runs that failed, were interrupted or never began."""
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document: how many runs are done, and a row for each."""

    def run(self, command: str) -> Document:
        """Execute the runs, and write the page of the sweep."""
        from gradlab.cli.terminal.answer import of_screen
        from gradlab.reporting.output import report
        from gradlab.tools.sweep import table
        from gradlab.tools.sweep.command import lines
        from gradlab.tools.sweep.page import screen

        folder = self.output or Path("runs") / self.file.stem
        with lines() as shown:
            runs, interrupted = _executed(
                table.read(self.file), folder, self.workers, self.ray, self.resume, command,
                shown, lambda line: standard_error(f"gradlab: note: {line}"),
            )  # fmt: skip
        document = of_screen(screen(runs)) | {
            "run": str(folder),
            "report": str(report(folder, quiet=True)),
            "passed": not runs.count("failed"),
            "runs": [asdict(row) for row in runs.rows],
        }
        if interrupted:
            document["interrupted"] = "the runs at work have saved what they have"
        return document


def sweep(
    table: Mapping[str, Any],
    output: str | Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    resume: bool = False,
) -> Runs:
    """Execute a table of runs, as `gradlab sweep` does with a file.

        gradlab.sweep({"command": "measure", "settings": {"task": "pendulum"},
                       "grid": {"seed": [0, 1, 2]}}, "runs/seeds")

    Args:
        table: "command" (measure, train, remedies or certify), "settings" of all runs, "grid" of
            lists of which every combination is made, "run", a list of further differences.
        output: folder of the runs.
        workers: runs at the same time; None: one per processor.
        ray: a cluster of Ray by its HOST:PORT, or "local"; None: processes of this machine.
        resume: do what is missing in the folder.

    Returns:
        The runs with their states, errors and files; `.table()` has a row for each.

    Raises:
        InputError: a table, a folder or a cluster that cannot be used.
        Failure: the index of the folder cannot be written.
        KeyboardInterrupt: after Ctrl-C, once the runs at work have saved what they have.
    """
    from gradlab.tools.sweep.command import Silent

    folder = validation.path("output", output)
    runs, interrupted = _executed(table, folder, workers, ray, resume, "", Silent(), warnings.warn)
    if interrupted:
        raise KeyboardInterrupt
    return runs


def _executed(
    table: Mapping[str, Any],
    folder: Path,
    workers: int | None,
    ray: str | None,
    resume: bool,
    command: str,
    shown: SweepProgress,
    note: Callable[[str], object],
) -> tuple[Runs, bool]:
    """The sweep after its runs, and whether it was interrupted."""
    from gradlab.tools.sweep.command import COMMANDS
    from gradlab.tools.sweep.running import Folder, Running
    from gradlab.tools.sweep.table import planned

    if workers is not None:
        validation.whole("workers", workers, 1)
    if ray is not None:
        validation.instance("ray", ray, str, '"local" or HOST:PORT of a cluster')
    runs = planned(table, COMMANDS)
    swept = COMMANDS[table["command"]]
    _check(runs, swept, folder)
    # The pool first: a cluster that cannot be used must not leave a folder to resume.
    with (
        _pool(ray, workers) as pool,
        Folder(folder, runs, swept.suffix, resume, command) as kept,
    ):
        if workers is not None and workers > pool.cores:
            note(f"{workers} workers share {pool.cores} processors: each run takes longer")
        most = min(workers or pool.cores, kept.sweep.count("waiting"))
        running = Running(
            kept, pool, most, RUNNER, (os.getcwd(),),
            lambda row, again: _words(swept, folder, row, again), shown,
        )  # fmt: skip
        interrupted = running.go()
        return kept.sweep, interrupted


def _check(runs: list[Planned], swept: Command, folder: Path) -> None:
    """Parse every run before the first one begins."""
    from gradlab.cli import refusals
    from gradlab.cli.terminal import usage
    from gradlab.tools.sweep.command import Swept

    for run in runs:
        try:
            words = [*run.words, *swept.outputs(folder / (run.name + swept.suffix))]
            refusals.check_words(words)
            refusals.check(usage.parsed(Swept, words))
        except InputError as error:
            raise InputError(f"run {run.name} of the sweep: {error}") from None


def _words(swept: Command, folder: Path, row: Row, again: bool) -> list[str]:
    run = folder / row.file
    return [*row.words, *swept.outputs(run), *(swept.again(run) if again else ())]


def _pool(ray: str | None, workers: int | None) -> Pool:
    if ray is None:
        from gradlab.workers.local import LocalPool

        return LocalPool()
    from gradlab.workers.cluster import ClusterPool

    return ClusterPool(ray, workers=workers)
