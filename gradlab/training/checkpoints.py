"""Saved states, from which a killed run goes on, and networks that later analyses measure.

NAME.resume.safetensors        everything the next iteration depends on, replaced as it ages
NAME-checkpoints/000500/       seedK-{policy,critic,prediction,gradient}.safetensors and states.h5
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from gradlab.data.replay import Batch
from gradlab.data.trajectories import stream
from gradlab.errors import Failure, InputError
from gradlab.networks import checkpoint
from gradlab.storage import records
from gradlab.storage.journal import discard, journal_of
from gradlab.storage.records import Array
from gradlab.storage.whole_files import sync
from gradlab.training.measured import weights as weighing
from gradlab.training.members import under
from gradlab.training.state import Run

_KEY = "gradlab.training"
_SAMPLE = 1024  # states kept per seed
_SPARE = 10_000_000  # bytes beside a file of states that must be free


def sound(run: Run) -> bool:
    """Whether a seed that is not lost has finite networks."""
    return bool((run.learner.finite() & ~run.lost).any())


def resume_file(path: Path) -> Path:
    return path.with_name(path.stem + ".resume.safetensors")


def folder(path: Path, iteration: int) -> Path:
    return path.with_name(path.stem + "-checkpoints") / f"{iteration:06d}"


def check_place(path: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse where there is nothing to resume or a run would be replaced. Changes nothing."""
    there = path.exists() or journal_of(path).exists()
    if resume:
        if not resume_file(path).is_file():
            hint = "start it with overwrite=True" if there else "start it with resume=False"
            raise InputError(f"{resume_file(path)}: no such file, nothing to resume: {hint}")
        return
    if there and not overwrite:
        raise InputError(
            f"{path} exists: go on with resume=True, or replace it with overwrite=True"
        )
    records.check_output(path, overwrite=overwrite)


def clear(path: Path) -> None:
    """Remove an earlier run: its records, its saved state, and the networks it kept."""
    discard(path)
    resume_file(path).unlink(missing_ok=True)
    places = list(folder(path, 0).parent.glob("[0-9]*"))
    for file in (file for place in places for file in place.glob("seed*-*.safetensors")):
        file.unlink()
    for place in places:
        (place / "states.h5").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not ours alone, or not there
            place.rmdir()


def save(path: Path, run: Run, config: Mapping[str, object]) -> None:
    """Replace the saved state in one step; it is on disk when this returns.

    A state in which no seed is good replaces none that was.
    """
    if not sound(run):
        return
    place = resume_file(path)
    state = {name: value.detach().cpu().contiguous() for name, value in tensors_of(run).items()}
    # Of one name, so that a killed run leaves one of these large files behind, not many.
    temporary = place.with_name(f".{place.name}.tmp")
    try:
        save_file(state, temporary, checkpoint.metadata(_KEY, config, state))
        sync(temporary)
        os.replace(temporary, place)
        sync(place.parent)
        run.kept = run.iteration
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        message = f"{place} cannot be written ({error}); the one before is kept: free space, resume"
        raise Failure(message) from error


def load(path: Path, run: Run, config: Mapping[str, object]) -> None:
    """Put the state saved for the run at `path` into `run`."""
    place = resume_file(path)
    damaged = InputError(f"{place} is damaged or foreign: start again with overwrite=True")
    try:
        state, theirs = checkpoint.read(place, _KEY)
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise damaged from error
    changed = _differences(theirs, config)
    if changed:
        raise InputError(f"{path} was made with other settings: {'; '.join(changed)}")
    try:
        _put_back(run, state)
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError, OverflowError) as error:
        raise damaged from error


def tensors_of(run: Run) -> dict[str, Tensor]:
    """Everything that the next iteration depends on, as "part/name"."""
    parts = {
        "learner": run.learner.state(),
        "environments": run.environments.saved(),
        "replay": run.replay.state(),
        "dynamics": {} if run.dynamics is None else run.dynamics.state(),
        "branches": {} if run.branches is None else run.branches.state(),
        "run": {
            "iteration": torch.tensor(run.iteration),
            "seconds": torch.tensor(run.seconds, dtype=torch.float64),
            "lost": torch.from_numpy(run.lost),
            "excessive": torch.from_numpy(run.excessive),
        },
        "weights": weighing.state(run),
        "window": run.window.state(),
        "batch": {} if run.batch is None else run.batch.tensors,
        "work": {} if run.work is None else run.work.state(),
    }
    return {
        f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()
    }


def _put_back(run: Run, state: Mapping[str, Tensor]) -> None:
    iteration, lost = int(state["run/iteration"]), state["run/lost"].numpy()
    if not 0 <= iteration <= run.settings.iterations or lost.shape != run.lost.shape:
        raise InputError(f"saved iteration is {iteration} for {len(lost)} seeds")
    run.learner.load(under(state, "learner/"))
    run.environments.load(under(state, "environments/"))
    run.replay.load(under(state, "replay/"))
    if run.branches is not None:
        run.branches.load(under(state, "branches/"))
    run.window.load(under(state, "window/"))
    if run.work is not None:
        run.work.load(under(state, "work/"))
    weighing.load(run, under(state, "weights/"))
    if run.dynamics is not None:
        run.dynamics.load(under(state, "dynamics/"))
        run.learner.model = run.dynamics.rollout() if run.dynamics.fitted else None
    run.iteration, run.kept, run.lost = iteration, iteration, lost.copy()
    run.excessive = state["run/excessive"].numpy().copy()
    run.seconds = float(state["run/seconds"])
    run.batch = _batch(run, under(state, "batch/"))


def _batch(run: Run, saved: Mapping[str, Tensor]) -> Batch | None:
    batch = {name: value.to(run.replay.rows) for name, value in saved.items()}
    size = run.settings.seeds, run.algorithm.batch
    if any(value.shape[:2] != size for value in batch.values()):
        raise InputError(f"saved batch is not {size[0]} × {size[1]}")
    return Batch(**batch) if batch else None


def _differences(theirs: object, ours: object, name: str = "") -> list[str]:
    """Every leaf in which two configurations differ, as "name: saved … now …"."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        return [
            line
            for key in sorted({*theirs, *ours})
            for line in _differences(theirs.get(key), ours.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if theirs == ours else [f"{name} was {theirs!r}, now {ours!r}"]


def keep(path: Path, run: Run, iteration: int) -> None:
    """Policy, critic and a sample of replay's states of every seed."""
    place, states = folder(path, iteration), _states(run)
    free = shutil.disk_usage(path.parent).free
    if free < 3 * states.nbytes + _SPARE:
        raise Failure(
            f"{path.parent} has {free / 1e6:.0f} MB left, too little for a checkpoint; what was "
            f"saved before is kept: free space, then resume"
        )
    learner = run.learner
    for member in range(len(learner.seeds)):
        networks: dict[str, nn.Module | None]
        networks = {"policy": learner.policy_of(member), "critic": learner.critic_of(member)}
        if run.dynamics is not None and run.dynamics.fitted:
            networks |= run.dynamics.ensembles_of(member)
        _put(run, member, networks, place)
    rows, width = states.shape[1:]
    arrays = {
        "seed": Array(np.array(run.learner.seeds), ("seed",)),
        "sample": Array(np.arange(rows), ("sample",)),
        "coordinate": Array(np.arange(width), ("coordinate",)),
        "state": Array(states, ("seed", "sample", "coordinate")),
    }
    about: dict[str, records.Attribute] = {"kind": "states", "iteration": iteration}
    kept = records.Record(about, {"states": arrays})
    _saved(lambda: records.write(place / "states.h5", kept, overwrite=True))


def _put(run: Run, member: int, networks: Mapping[str, nn.Module | None], place: Path) -> None:
    seed = run.learner.seeds[member]
    for kind, network in networks.items():
        if network is None:
            continue
        file = place / f"seed{seed}-{kind}.safetensors"
        _saved(partial(checkpoint.save, network, file))


def _saved(save: Callable[[], object]) -> None:
    try:
        save()
    except (InputError, OSError) as error:
        raise Failure(f"{error}; what was saved before is kept: free space, then resume") from error


def _states(run: Run) -> np.ndarray:
    """Up to SAMPLE states per seed from replay, [E, S, ds]; the task's starts where it is empty."""
    if len(run.replay) == 0:
        return run.environments.state.double().numpy()
    drawn = torch.rand(min(_SAMPLE, len(run.replay)), generator=stream(0, "kept states"))
    batch = run.replay.sample(drawn.expand(run.settings.seeds, -1))
    return batch.state.double().cpu().numpy()
