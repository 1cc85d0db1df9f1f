"""Runs of a study: trained into a file, gone on with where they stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradlab.cli.terminal.progress_bars import bars
from gradlab.runs.training.results import load
from gradlab.tasks import Task
from gradlab.training.algorithm import Algorithm
from gradlab.training.checkpoints import resume_file
from gradlab.training.loop import train


def trained(row: Algorithm, task: Task, path: Path, **settings: Any) -> Path:
    """Train a row, or go on with it, under a bar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    resume = resume_file(path).exists()
    with bars() as progress:
        return train(row, task, path, resume=resume, progress=progress, **settings)


def ended(path: Path, iterations: int) -> bool:
    """The run is there, and at its last iteration."""
    return path.exists() and int(load(path).iteration[-1]) == iterations
