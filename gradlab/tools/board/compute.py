"""Cells of the board: estimators followed from one policy, and rehearsed from it.

    group   a task at one stage of one training (a seed): one policy, critic and model for all
    cell    an estimator in a group

A folder holds what is compared, and what was found:

    tasks/NAME.py         STAGES, UPDATE (gradlab's `Update`) and make(stage, seed) → task, policy,
                          critic; UPDATES, SEEDS, STARTS where they differ from those here
    estimators/NAME.py    make(task, critic) → a candidate of `gradlab.race`, or in words why it is
                          none there
    cells/TASK.jsonl                a line for each cell, written as soon as it is known

Every cell of a group meets the same starts and noise, and knows nothing of the others: one that is
added later stands beside those that are there.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

import gradlab
from gradlab import provenance
from gradlab.data.noise import child, stream
from gradlab.errors import InputError
from gradlab.gradients.bptt import mean_gradient
from gradlab.gradients.estimator import Estimator
from gradlab.networks.interface import double_copy
from gradlab.networks.mlp import as_critic
from gradlab.tools.board.result import CELLS, Cell, Group, ReturnChange, cells_of, computed, load
from gradlab.user_code.loading import load_object

UPDATES, SEEDS, STARTS, BATCH = 100, (0, 1, 2, 3, 4), 256, 256
_BATCHES = 8  # gradients behind the signal-to-noise ratio of one
_Batch = tuple[float, float | None]


@dataclass(frozen=True)
class BoardTask:
    """What a task's file says."""

    file: Path
    stages: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        return self.file.stem

    def groups(self) -> list[Group]:
        return [Group(self.name, stage, seed) for seed in self.seeds for stage in self.stages]


def sources(folder: Path) -> dict[str, BoardTask]:
    """Tasks of the board by name, as their files have them.

    Raises:
        InputError: the folder has none, or a file lacks what it must have.
    """
    found = {}
    for file in _files(folder, "tasks"):
        stages = tuple(load_object(f"{file}:STAGES"))
        seeds = tuple(_optional(file, "SEEDS", SEEDS))
        found[file.stem] = BoardTask(file, stages, seeds)
    return found


def estimators(folder: Path) -> dict[str, Path]:
    """Files of estimators by name."""
    return {file.stem: file for file in _files(folder, "estimators")}


def _files(folder: Path, kind: str) -> list[Path]:
    files = sorted((folder / kind).glob("*.py"))
    if not files:
        raise InputError(f"{folder / kind} has no .py file: a board has one for each of its {kind}")
    return files


def _optional(file: Path, name: str, default: Any) -> Any:
    try:
        return load_object(f"{file}:{name}")
    except InputError:
        if name in file.read_text(encoding="utf-8"):
            raise
        return default


def missing(folder: Path, only: Sequence[str] = ()) -> dict[Group, tuple[str, ...]]:
    """Estimators that a group lacks, of groups that lack any.

    Args:
        only: words NAME or KIND=NAME (task, stage, seed, estimator); a group or an estimator stays
            where it has a name of each kind that is given.

    Raises:
        InputError: a name that the board does not have.
    """
    tasks, every = sources(folder), tuple(estimators(folder))
    groups = [group for source in tasks.values() for group in source.groups()]
    kinds: dict[str, set[str]] = {
        "task": set(tasks),
        "stage": {group.stage for group in groups},
        "seed": {str(group.seed) for group in groups},
        "estimator": set(every),
    }
    chosen: dict[str, set[str]] = {kind: set() for kind in kinds}
    for word in only:
        kind, equals, name = word.rpartition("=")
        places = [kind] if equals else [each for each, names in kinds.items() if name in names]
        if len(places) != 1 or name not in kinds.get(places[0], ()):
            known = "; ".join(f"{each} {', '.join(sorted(names))}" for each, names in kinds.items())
            raise InputError(f"only is {word!r}, which the board does not have: {known}")
        chosen[places[0]].add(name)

    def wanted(kind: str, name: object) -> bool:
        return not chosen[kind] or str(name) in chosen[kind]

    left = {}
    there = computed(load(folder).cells)
    for group in groups:
        if all(wanted(kind, getattr(group, kind)) for kind in ("task", "stage", "seed")):
            lacking = tuple(n for n in every if wanted("estimator", n) and (group, n) not in there)
            if lacking:
                left[group] = lacking
    return left


@final
class Builder:
    """Computes cells, in this process.

    Args:
        folder: the board; where: the working folder of who asks.
    """

    def __init__(self, folder: str, where: str) -> None:
        os.chdir(where)
        self._folder = Path(folder)

    def build(self, group: Group, names: Sequence[str]) -> float:
        """Compute some cells of a group and append each to its file; returns the seconds."""
        begun = time.monotonic()
        file = sources(self._folder)[group.task].file
        made = estimators(self._folder)
        task, policy, critic = load_object(f"{file}:make")(group.stage, group.seed)
        policy, critic = double_copy("policy", policy), double_copy("critic", as_critic(critic))
        path = self._folder / CELLS / f"{group.task}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        for name in names:
            if (group, name) not in computed(cells_of(path)):  # by another command, meanwhile
                _append(path, cell_of(group, file, name, made[name], task, policy, critic))
        return time.monotonic() - begun


def _append(path: Path, cell: Cell) -> None:
    """A line more, one command at a time, in the place of one that a kill cut short."""
    with path.open("ab+") as lines:
        fcntl.flock(lines, fcntl.LOCK_EX)
        lines.seek(0)
        lines.truncate(lines.read().rfind(b"\n") + 1)
        lines.write(json.dumps(asdict(cell)).encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())


def cell_of(
    group: Group, file: Path, name: str, made: Path, task: Any, policy: Any, critic: Any
) -> Cell:
    """One estimator followed and rehearsed; an empty cell, with its reason, where that fails."""
    begun = time.monotonic()
    version = provenance.environment()
    empty = Cell(
        group.task, group.stage, group.seed, name, starts=_optional(file, "STARTS", STARTS),
        version=version["gradlab"], commit=version["commit"],
    )  # fmt: skip
    common = {
        "updates": _optional(file, "UPDATES", UPDATES), "update": load_object(f"{file}:UPDATE"),
        "starts": empty.starts, "batch": BATCH,
        "termination": _optional(file, "TERMINATION", "ignore"), "drop": False,
    }  # fmt: skip
    try:
        candidate = load_object(f"{made}:make")(task, critic)
        if isinstance(candidate, str):
            return replace(empty, reason=candidate)
        # A loss of one's own may draw from torch's own stream.
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            torch.manual_seed(child(group.seed, f"board {name}") >> 1)
            # A rehearsal by the draws of what it predicts would be that, until the first refit.
            seed, other = child(group.seed, "board"), child(group.seed, "board, rehearsed")
            followed, rehearsed = (
                gradlab.race(
                    task, policy, critic, {name: candidate}, refit_critic=fit, seed=draws, **common
                )
                for fit, draws in ((True, seed), (False, other))
            )
            seconds, snr = _one_batch(candidate, task, policy, common | {"seed": seed})
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # a file of anybody's may raise anything
        return replace(empty, reason=f"{type(error).__name__}: {error}")
    return replace(
        empty, followed=outcomes(followed), rehearsed=outcomes(rehearsed), snr=snr,
        seconds=seconds, wall=time.monotonic() - begun,
    )  # fmt: skip


def outcomes(race: Any) -> tuple[ReturnChange, ...]:
    """Of a race of one candidate, after every number of updates that was looked at."""
    names = ("updates", "value", "ci_low", "ci_high")
    return tuple(ReturnChange(*(row[k] for k in names)) for row in race.table().to_dict("records"))


def _one_batch(candidate: Any, task: Any, policy: Any, common: Mapping[str, Any]) -> _Batch:
    """Seconds of the mean gradient of one batch, and its |mean|² / variance, both without bias.

    The ratio is None where batches do not vary.
    """
    parts = ((1.0, candidate),) if isinstance(candidate, Estimator) else candidate
    parameters = tuple(policy.parameters())
    drawn, took = [], []
    for k in range(_BATCHES):
        seed = child(common["seed"], f"board batch {k}")
        starts = task.starts(BATCH, stream(seed, "board starts")).double()
        begun = time.monotonic()
        if callable(candidate):
            pieces = torch.autograd.grad(candidate(policy, starts), parameters)
            total = -torch.cat([piece.reshape(-1) for piece in pieces])
        else:
            gradients = (
                weight * mean_gradient(part, policy, starts, seed, common["termination"])
                for weight, part in parts
            )
            total = torch.stack([*gradients]).sum(dim=0)
        took.append(time.monotonic() - begun)
        drawn.append(total)
    batches = torch.stack(drawn)
    variance = float(batches.var(dim=0).sum())
    signal = float(batches.mean(dim=0).square().sum()) - variance / _BATCHES
    return float(np.median(took)), signal / variance if variance > 0 else None
