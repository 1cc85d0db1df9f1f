"""Trains what an item of a paper lacks."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradlab import validation
from gradlab.cli.train import Train
from gradlab.errors import InputError
from gradlab.runs.training.results import Training, load
from gradlab.tasks import Task, task_from_name
from gradlab.tools.papers.published import Item, ItemPart, hours
from gradlab.training.algorithms import find
from gradlab.training.checkpoints import resume_file
from gradlab.training.loop import settings_of

_EVALUATIONS = 20  # of a row on policy
_BYTES = 8  # of a number in replay, its copy while a state is saved included


@dataclass(frozen=True)
class ItemRun:
    """One run of an item: one row on one task, all of its seeds.

    Attributes:
        transitions: per seed; hours: of one core, for what is missing; done: iterations made.
    """

    part: ItemPart
    task: Task
    row: str
    path: Path
    seeds: int
    iterations: int
    transitions: int
    done: int

    @property
    def hours(self) -> float:
        algorithm, options = self.part.trained(self.row)
        usual = max(find(algorithm).horizons)
        longer = max(options.get("horizons", (usual,))) / max(usual, 1)
        return hours(algorithm, self.iterations - self.done, self.seeds, longer)


def planned(item: Item, folder: Path, seeds: int, share: float) -> list[ItemRun]:
    """Every run of the item, cheapest first within a task. `share`: of the paper's length that is
    trained."""
    validation.number("share", share, above=0, most=1)
    validation.whole("seeds", seeds, 1)
    due = []
    for part in item.parts:
        task = task_from_name(part.task, dict(pair.split("=", 1) for pair in part.settings))
        own = [_due(part, task, row, folder, seeds, share) for row in part.rows]
        due += sorted(own, key=lambda each: each.hours)
    return due


def _due(part: ItemPart, task: Task, row: str, folder: Path, seeds: int, share: float) -> ItemRun:
    algorithm = find(part.trained(row)[0])
    chosen = settings_of(algorithm, task, None, {})
    # Transitions an iteration: of a row on policy a window.
    each = chosen.agents * (algorithm.source.steps or 1 / chosen.interval)
    whole = part.iterations or round((part.transitions or 0) / each)
    iterations = max(1, round(share * whole))
    path = _path(part, row, folder)
    done = 0
    if path.exists():
        run = load(path)
        asked, trained = run.config["settings"]["iterations"], len(run.seeds)
        if (asked, trained) != (iterations, seeds):
            raise InputError(
                f"folder has {path}, a run of {asked} iterations and {trained} seeds, expected "
                f"{iterations} and {seeds}: name another folder, or the share and seeds of that run"
            )
        done = int(run.iteration[-1]) if len(run.iteration) else 0
    return ItemRun(part, task, row, path, seeds, iterations, round(iterations * each), done)


def _path(part: ItemPart, row: str, folder: Path) -> Path:
    return folder / f"{row}-{part.task}.h5"


def check_disk(due: Sequence[ItemRun], folder: Path) -> None:
    """Raises InputError where the states from which runs go on would not fit on the disk."""
    largest = 0.0
    for each in due:
        width = 2 * len(each.task.state_names) + each.task.simulator.action_dim + 3
        largest = max(largest, _BYTES * width * each.seeds * min(each.transitions, 500_000))
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    need = largest + 5e6 * len(due)
    if need > free:
        raise InputError(
            f"folder is on a disk with {free / 1e9:.1f} GB free, and runs need up to "
            f"{need / 1e9:.1f} GB while they go on: free some, or name another folder"
        )


def run_missing(
    due: Sequence[ItemRun],
    most_hours: float | None = None,
    command: str = "",
) -> list[ItemRun]:
    """Trains what is missing, one run after the other; a run that was begun goes on.

    Args:
        most_hours: no run begins that is not expected to end by then.

    Returns:
        Those that were left.
    """  # fmt: skip
    begun, left = time.monotonic(), []
    for each in due:
        if each.done >= each.iterations:
            continue
        spent = (time.monotonic() - begun) / 3600
        if most_hours is not None and spent + each.hours > most_hours:
            left.append(each)
            continue
        each.path.parent.mkdir(parents=True, exist_ok=True)
        resume = resume_file(each.path).exists()
        algorithm, options = each.part.trained(each.row)
        if each.part.measured:
            every = max(1, each.iterations // each.part.measured)
            options = {**options, "gradient_every": every}
        if find(algorithm).source.steps:  # an iteration is a window of many transitions
            options = {**options, "evaluate_every": max(1, each.iterations // _EVALUATIONS)}
        Train(
            algorithm=algorithm, task=each.part.task, settings=(each.part.settings,),
            seeds=each.seeds, iterations=each.iterations, output=each.path, no_report=True,
            resume=resume, overwrite=each.path.exists() and not resume, **options,
        ).run(command)  # fmt: skip
    return left


def runs_of(part: ItemPart, folder: Path) -> dict[Path, Training]:
    """The part's runs that hold an evaluation, in the order of its rows."""
    paths = [path for row in part.rows if (path := _path(part, row, folder)).exists()]
    runs = {path: load(path) for path in paths}
    return {path: run for path, run in runs.items() if len(run.iteration)}
