"""What lets a killed run go on, and what later analyses measure.

NAME.resume.safetensors        everything the next iteration depends on, replaced as it ages
NAME-checkpoints/000500/       seedK-policy.safetensors, seedK-critic.safetensors for
                               `gradlab measure`, and states.h5: a sample of the states in replay
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gradlab import records
from gradlab.data.noise import stream
from gradlab.errors import Failure, InputError
from gradlab.journal import journal_of
from gradlab.networks import checkpoint
from gradlab.records import Array

if TYPE_CHECKING:
    from gradlab.training.loop import Run

KEY = "gradlab.training"
SAMPLE = 1024  # states kept per seed


def resume_file(path: Path) -> Path:
    return path.with_name(path.stem + ".resume.safetensors")


def folder(path: Path, iteration: int) -> Path:
    return path.with_name(path.stem + "-checkpoints") / f"{iteration:06d}"


def check_place(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Is there something to resume, or is the place free?

    Raises:
        InputError: says what is there and which option to use.
    """
    there = path.exists() or journal_of(path).exists()
    if resume:
        if not resume_file(path).is_file():
            raise InputError(f"{resume_file(path)}: no such file; there is no run to resume")
        return
    if there and not overwrite:
        raise InputError(f"{path} exists: go on with --resume, or replace it with --overwrite")
    records.check_output(path, overwrite=overwrite)
    for old in (path, journal_of(path), resume_file(path)):
        old.unlink(missing_ok=True)


def save(path: Path, run: Run, config: Mapping[str, object]) -> None:
    """Replace the saved state in one step; it is on disk when this returns."""
    place = resume_file(path)
    tensors = {name: value.detach().cpu().contiguous() for name, value in run.state().items()}
    temporary = place.with_name(f".{place.name}.tmp")
    try:
        save_file(tensors, temporary, {KEY: json.dumps(config)})
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        message = f"{place} cannot be written ({error}); the one before is kept: free space, resume"
        raise Failure(message) from error


def restore(path: Path, config: Mapping[str, object]) -> dict[str, Tensor]:
    """The state saved for the run at `path`.

    Raises:
        InputError: it belongs to another configuration (shows the difference), or is damaged.
    """
    place = resume_file(path)
    try:
        with safe_open(place, framework="pt") as file:
            theirs = json.loads((file.metadata() or {})[KEY])
            state = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{place} is damaged or foreign: start again with --overwrite") from error
    changed = differences(theirs, config)
    if changed:
        raise InputError(f"{path} was made with other settings: {'; '.join(changed)}")
    return state


def differences(theirs: object, ours: object, name: str = "") -> list[str]:
    """Every leaf in which two configurations differ, as "name: saved … now …"."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        return [
            each
            for key in sorted({*theirs, *ours})
            for each in differences(theirs.get(key), ours.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if theirs == ours else [f"{name} was {theirs!r}, now {ours!r}"]


def keep(path: Path, run: Run, iteration: int) -> None:
    """Policy, critic and a sample of replay's states of every seed."""
    place = folder(path, iteration)
    for member, seed in enumerate(run.learner.seeds):
        checkpoint.save(run.learner.policy_of(member), place / f"seed{seed}-policy.safetensors")
        checkpoint.save(run.learner.critic_of(member), place / f"seed{seed}-critic.safetensors")
    states = _states(run)
    rows, width = states.shape[1:]
    arrays = {
        "seed": Array(np.array(run.learner.seeds), ("seed",)),
        "sample": Array(np.arange(rows), ("sample",)),
        "coordinate": Array(np.arange(width), ("coordinate",)),
        "state": Array(states, ("seed", "sample", "coordinate")),
    }
    about: dict[str, records.Attribute] = {"kind": "states", "iteration": iteration}
    records.write(place / "states.h5", records.Record(about, {"states": arrays}), overwrite=True)


def _states(run: Run) -> np.ndarray:
    """Up to SAMPLE states per seed from replay, [E, S, ds]; the task's starts where it is empty."""
    if len(run.replay) == 0:
        return run.environments.state.double().numpy()
    drawn = torch.rand(min(SAMPLE, len(run.replay)), generator=stream(0, "kept states"))
    batch = run.replay.sample(drawn.expand(run.settings.seeds, -1))
    return batch.state.double().cpu().numpy()
