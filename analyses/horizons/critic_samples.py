"""J_0 and J_H of one policy under ten critics, sample by sample, at every checkpoint.

    python -m analyses.horizons.critic_samples [--small] [--checkpoints reports/mpg-table-1/runs]

The critics that training kept belong to five policies, so ten are made for one: before training
they are ten initialisations, as MPG begins; later ten fits by one-step targets (MPG-v2's), each
with its own initialisation and its own simulated data, 2000 updates. What is there is not made
again. Kept are states and action gradients, as in `checkpoint_samples`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from analyses.horizons.checkpoint_samples import (
    CHECKPOINTS,
    HORIZON,
    ITERATIONS,
    KEPT,
    TASKS,
    Place,
    estimators,
    policy_at,
    starts_of,
)
from analyses.mpg_table_1.runs import task_of
from gradlab.data.noise import stream
from gradlab.fitting.critics import fit_critic
from gradlab.gradients.tail import Setting
from gradlab.measurement.moments.inner_products import first_action_gradients
from gradlab.networks.mlp import QCritic
from gradlab.storage import records
from gradlab.tasks import Task

CRITICS, BATCHES, PER_BATCH = 10, 10, 102


@dataclass(frozen=True, eq=False)
class CriticSamples:
    """Action gradients under C critics on common starts and noise.

    Attributes:
        states: [N, ds]; data, model: J_0 and J_H through the prior, [C, N, da], float64.
        fitted: the critics were fitted; else they are as initialised.
    """

    place: Place
    states: Tensor
    data: Tensor
    model: Tensor
    fitted: bool


def file_of(place: Place, folder: Path) -> Path:
    return folder / f"critics-{place.name}"


def critics_for(task: Task, policy: nn.Module, iteration: int, count: int) -> list[nn.Module]:
    if iteration == 0:
        return [untrained(task, k) for k in range(count)]
    return [fit_critic(task, policy, steps=1, seed=1000 + k) for k in range(count)]


def untrained(task: Task, k: int) -> QCritic:
    """One initialisation of MPG's critic."""
    seed = int(torch.randint(2**31, (1,), generator=stream(k, "untrained critic")))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        simulator = task.simulator
        return QCritic(simulator.state_dim, simulator.action_dim, scale=task.observation_scale)


def measured(
    place: Place, checkpoints: Path, count: int = CRITICS, n: int = BATCHES * PER_BATCH,
    horizon: int = HORIZON,
) -> CriticSamples:  # fmt: skip
    task, policy = task_of(place.task), policy_at(place, checkpoints)
    begin = starts_of(place, n, checkpoints)
    setting = Setting(task.simulator, policy, begin, task.discount, horizon, seed=place.seed)
    data, model = [], []
    for critic in critics_for(task, policy, place.iteration, count):
        through_prior = {"model": estimators(task, critic.double(), horizon)["model"]}
        found = first_action_gradients(through_prior, setting)["model"]
        data.append(found[0])
        model.append(found[horizon])
    return CriticSamples(
        place, begin.states, torch.stack(data), torch.stack(model), place.iteration > 0
    )


def save(samples: CriticSamples, path: Path) -> None:
    critics, n, da = samples.data.shape

    def axis(name: str, size: int) -> records.Array:
        return records.Array(np.arange(size), (name,))

    def kept(values: Tensor) -> records.Array:
        return records.Array(values.float().numpy(), ("critic", "sample", "action"))

    arrays = {
        "critic": axis("critic", critics),
        "sample": axis("sample", n),
        "action": axis("action", da),
        "coordinate": axis("coordinate", samples.states.shape[1]),
        "state": records.Array(samples.states.numpy(), ("sample", "coordinate")),
        "data": kept(samples.data),
        "model": kept(samples.model),
    }
    about: dict[str, records.Attribute] = {
        "kind": "action gradients under several critics",
        **vars(samples.place),
        "fitted": samples.fitted,
    }
    records.write(path, records.Record(about, {"gradients": arrays}), overwrite=True)


def load(path: Path) -> CriticSamples:
    """
    Raises:
        InputError: no such file, or a damaged one.
    """
    record = records.read(path)
    about, arrays = record.attributes, record.groups["gradients"]
    place = Place(*(about[name] for name in ("task", "iteration", "seed", "law")))  # type: ignore[arg-type]
    state, data, model = (
        torch.from_numpy(arrays[name].values).double() for name in ("state", "data", "model")
    )
    return CriticSamples(place, state, data, model, bool(about["fitted"]))


def places(tasks: Sequence[str] = TASKS) -> list[Place]:
    return [Place(task, iteration, 0, "visited") for iteration in ITERATIONS for task in tasks]


def main(small: bool = False, checkpoints: Path = CHECKPOINTS) -> None:
    """Make what is missing.

    Args:
        small: two critics of the first checkpoint alone, written nowhere.
        checkpoints: folder of the runs of `analyses.mpg_table_1 train`.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if small:
        print(measured(places()[0], checkpoints, 2, 8, 3).model.shape)
        return
    for place in places():
        path = file_of(place, KEPT)
        if path.exists() or not place.file("policy", checkpoints).exists():
            continue
        begun = time.monotonic()
        save(measured(place, checkpoints), path)
        print(f"{path.name}: {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    tyro.cli(main)
