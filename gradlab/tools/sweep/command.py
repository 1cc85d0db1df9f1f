"""`gradlab sweep FILE`: many runs of one command, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from gradlab import validation
from gradlab.cli import arguments
from gradlab.cli.streams import Document, standard_error
from gradlab.errors import InputError

if TYPE_CHECKING:
    from gradlab.tools.sweep.table import Sweep as Runs


@dataclass(frozen=True)
class SweepCommand:
    """What comes out of many runs of one command, over tasks, seeds and settings?

    The file names a command (measure, train, remedies or certify), options of all runs in
    [settings], values of which every combination is run in [grid], and further runs as [[run]]. A
    run that fails keeps its error while the others go on. After Ctrl-C, which lets runs save what
    they have, the same command with --resume does the rest.

        gradlab sweep table.toml --workers 4
        gradlab sweep table.toml --ray 10.0.0.1:6379 --resume
    """

    file: Annotated[Positional[Path], arg(metavar="FILE.toml")]
    """The table of runs."""
    workers: int | None = None
    """Runs at the same time. Default: one per processor."""
    ray: Annotated[str | None, arg(metavar="ADDRESS|local")] = None
    """A cluster of Ray by its HOST:PORT, or a local one. Default: no Ray."""
    output: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """Folder, on a disk that all machines have. Default: runs/FILE."""
    resume: bool = False
    """Do what is missing."""
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document."""

    def run(self, command: str) -> Document:
        """Execute the runs, and write the page of the sweep."""
        from gradlab.reporting.output import report
        from gradlab.tools.sweep import table
        from gradlab.tools.sweep.page import advice

        folder, interrupted = self.output or Path("runs") / self.file.stem, False
        try:
            _execute(
                table.read(self.file), folder, self.workers, self.ray, self.resume, command,
                standard_error,
            )  # fmt: skip
        except KeyboardInterrupt:
            interrupted = (folder / table.INDEX).is_file()
            if not interrupted:
                raise
        runs = table.load(folder)
        document = advice(runs).document | {
            "run": str(folder),
            "report": str(report(folder, quiet=True)),
            "passed": not runs.count("failed"),
            "runs": [asdict(row) for row in runs.rows],
        }
        if interrupted:
            document["interrupted"] = "the runs have saved what they have"
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
        ray: a cluster of Ray by its HOST:PORT, or "local"; None: this machine, without Ray.
        resume: do what is missing in the folder.

    Returns:
        The runs with their states, errors and files; `.table()` has a row for each.

    Raises:
        InputError: a table, a folder or a cluster that cannot be used.
        Failure: the index of the folder cannot be written.
        KeyboardInterrupt: after Ctrl-C, once the runs at work have saved what they have.
    """
    from gradlab.tools.sweep.table import load

    folder = validation.path("output", output)
    _execute(table, folder, workers, ray, resume, "", None)
    return load(folder)


def _execute(
    table: Mapping[str, Any], folder: Path, workers: int | None, ray: str | None, resume: bool,
    command: str, write: Callable[[str], object] | None,
) -> None:  # fmt: skip
    from gradlab.cli.program import parsed
    from gradlab.tools.sweep.running import held, place_of, run_all
    from gradlab.tools.sweep.table import planned

    if workers is not None:
        validation.whole("workers", workers, 1)
    if ray is not None:
        validation.instance("ray", ray, str, '"local" or HOST:PORT of a cluster')
    runs = planned(table)
    for run in runs:  # parsed before the first one begins
        try:
            words = [*run.words, "--output", str(folder / f"{run.name}.h5")]
            arguments.check_words(words)
            arguments.check_fields(parsed(words))
        except InputError as error:
            raise InputError(f"run {run.name} of the sweep: {error}") from None
    # The cluster first: one that cannot be used must not leave a folder to resume.
    with (
        place_of(ray, workers) as (cores, executed),
        held(folder, runs, resume, command) as begun,
    ):
        run_all(begun, executed, workers or cores, _again, write)


def _again(command: str, run: Path) -> list[str]:
    """The words that let a run begin anew at its file, or go on there."""
    from gradlab.cli.program import command_of

    found: Any = command_of(command)
    plain = ["--overwrite"] if hasattr(found, "overwrite") else []
    return found.again(run) if hasattr(found, "again") else plain
