"""Short runs whose probe is tested, and what is compared of them."""

from dataclasses import replace

import safetensors.torch
import torch

import gradlab
from gradlab.progress import silent
from gradlab.storage.journal import Journal, read
from gradlab.systems import from_function
from gradlab.training.algorithms import find, with_horizons
from gradlab.training.models.model_choice import LearnedModel
from gradlab.training.recording import tables
from gradlab.training.run import go
from gradlab.training.settings import Settings
from gradlab.training.state import begin
from tests.training.small_runs import push, same_tables

SMALL = dict(
    iterations=60, agents=8, interval=4, warmup=128, episode=20, evaluate_every=1000,
    evaluation_starts=4, log_every=5, checkpoint_every=40, termination="mask",
    at_end="restart", keep=(0.0, 1.0), seeds=2, gradient_every=0,
)  # fmt: skip
MODEL = LearnedModel(members=2, hidden=(8,), every=50, first_steps=15, steps=5, batch=16)
TABLES = ("updates", "evaluations", "events", "model")


def task(far=4.0):
    def alive(state):
        return state[:, 0].abs() < far

    world = from_function(push, state_dim=3, action_dim=2, noise_dim=3, alive=alive)

    def starts(n, generator):
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    return gradlab.Task("push", world, world, starts, 0.9, 3, action_limit=(2.0, 1.0), alive=alive)


def row(name, **changes):
    found = find(name)
    if max(found.horizons):
        found = with_horizons(found, (0, 3))
    small = {"hidden": (8, 8), "batch": 16, "value_rate": (1e-2, 1e-3), "replay": 4096}
    return replace(found, **(small | changes))


ARMS = {
    "mpg-v2": row("mpg-v2"),
    "learned": row("mpg-v2", model=MODEL),
    "td3": row("td3", clip=0.5),
    "sac": row("sac"),
    "spectral": row("mpg-v2", policy_spectral="all", critic_spectral="all"),
}


def state_of(path):
    """All that a run's next update would depend on, but for what a clock has said."""
    found = safetensors.torch.load_file(path.with_name(path.stem + ".resume.safetensors"))
    return {k: v for k, v in found.items() if k not in ("run/seconds", "window/taken")}


def same_runs(first, second):
    ours, theirs = state_of(first), state_of(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value.nan_to_num(7.5), theirs[name].nan_to_num(7.5)), name
    same_tables(first, second, [table for table in TABLES if table in read(first).groups])


def filled(tmp_path, batch=16, **settings):
    """A run with a replay, somewhat trained."""
    chosen = Settings(**(SMALL | {"precision": "float64"} | settings))
    run = begin(row("td3", batch=batch), task(), chosen)
    with Journal(tmp_path / "run.h5", tables(run.algorithm, run.task, chosen), {}) as journal:
        go(run, tmp_path / "run.h5", journal, {}, silent)
    return run


def wild(monkeypatch, seed, change):
    """Another beginning for the policy of one seed."""
    from gradlab.training import learner

    made = learner.networks

    def changed(algorithm, chosen, number, *more):
        policy, critics = made(algorithm, chosen, number, *more)
        if number == seed:
            with torch.no_grad():
                change(policy)
        return policy, critics

    monkeypatch.setattr(learner, "networks", changed)
