"""Trains what an item of a paper lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gradlab import validation
from gradlab.cli.train import Train
from gradlab.errors import InputError
from gradlab.runs.training.results import Training, load
from gradlab.tasks import Task, task_from_name
from gradlab.tools.papers.published import Item, ItemPart
from gradlab.training.algorithms import find, known
from gradlab.training.checkpoints import resume_file
from gradlab.training.loop import describe, settings_of

_EVALUATIONS = 20  # of a row on policy
_Preset = Literal["paper", "none"]


@dataclass(frozen=True)
class _ItemRun:
    """One run of an item: one row on one task, all of its seeds.

    Attributes:
        command: with the paper's settings, where it prints some; without iterations and output.
        transitions: per seed; done: iterations made.
    """

    part: ItemPart
    row: str
    path: Path
    command: Train
    iterations: int
    transitions: int
    done: int

    @property
    def whose(self) -> str:
        """Whose settings it has, where a paper might have some."""
        if not self.part.preset:
            return ""
        return "the paper's settings" if self.command.preset else "gradlab's settings"


def planned(
    item: Item, folder: Path, seeds: int, share: float, preset: _Preset = "paper",
    device: str | None = None,
) -> list[_ItemRun]:  # fmt: skip
    """Every run of the item.

    Args:
        share: of the paper's length that is trained.
        preset: "paper": with what it prints for a row on a task; "none": rows as they are listed.
    """
    validation.number("share", share, above=0, most=1)
    validation.whole("seeds", seeds, 1)
    due = []
    for part in item.parts:
        task = task_from_name(part.task, dict(pair.split("=", 1) for pair in part.settings))
        for row in part.rows:
            algorithm, options = part.trained(row)
            command = Train(
                algorithm=algorithm, task=part.task, settings=(part.settings,),
                seeds=seeds, device=device, no_report=True, **options,
            )  # fmt: skip
            if part.preset and preset == "paper" and known(algorithm, task.name):
                command = replace(command, preset="paper")
            due.append(_due(part, task, row, command, path_of(part, row, folder), share))
    return due


def _due(
    part: ItemPart, task: Task, row: str, command: Train, path: Path, share: float
) -> _ItemRun:  # fmt: skip
    """The run of a row, with as many iterations as make the paper's length, and those made."""
    full = command.printed(task.name)[0] if command.preset else command
    algorithm = full._row()
    agents = {} if full.agents is None else {"agents": full.agents}
    chosen = settings_of(algorithm, task, None, agents)
    # Transitions an iteration: of a row on policy a window.
    each = chosen.agents * (algorithm.source.steps or 1 / chosen.interval)
    whole = part.iterations or round((part.transitions or 0) / each)
    iterations = max(1, round(share * whole))
    done = 0
    if path.exists():
        run = load(path)
        asked, trained = run.config["settings"]["iterations"], len(run.seeds)
        if (asked, trained) != (iterations, command.seeds):
            raise InputError(
                f"folder has {path}, a run of {asked} iterations and {trained} seeds, expected "
                f"{iterations} and {command.seeds}: name another folder"
            )
        if run.config["algorithm"] != describe(algorithm, task, chosen)["algorithm"]:
            raise InputError(f"folder has {path}, a run of other settings: name another folder")
        done = int(run.iteration[-1]) if len(run.iteration) else 0
    return _ItemRun(part, row, path, command, iterations, round(iterations * each), done)


def path_of(part: ItemPart, row: str, folder: Path) -> Path:
    return folder / f"{row}-{part.task}.h5"


def run_missing(due: Sequence[_ItemRun], command: str = "") -> None:
    """Trains what is missing, one run after the other; a run that was begun goes on."""
    for each in (run for run in due if run.done < run.iterations):
        each.path.parent.mkdir(parents=True, exist_ok=True)
        resume = resume_file(each.path).exists()
        changes: dict[str, Any] = {}
        if each.part.measured:
            changes["gradient_every"] = max(1, each.iterations // each.part.measured)
        row = find(each.command.algorithm)
        if row.source.steps:  # an iteration is a window of many transitions
            changes["evaluate_every"] = max(1, each.iterations // _EVALUATIONS)
        changes |= {"iterations": each.iterations, "output": each.path, "resume": resume}
        train = replace(
            each.command, overwrite=each.path.exists() and not resume, **changes,
        )  # fmt: skip
        try:
            train.run(command)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on with what was stopped") from None


def runs_of(part: ItemPart, folder: Path) -> dict[str, Training]:
    """The part's runs that hold an evaluation, by row and in the order of its rows."""
    paths = {row: path_of(part, row, folder) for row in part.rows}
    runs = {row: load(path) for row, path in paths.items() if path.exists()}
    return {row: run for row, run in runs.items() if len(run.iteration)}
