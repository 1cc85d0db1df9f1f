"""A small world and short runs in it, for the tests of whole runs."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.networks import checkpoint
from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.training.algorithm import LearnedModel
from gradlab.training.algorithms import find
from gradlab.training.collection import Branching
from gradlab.training.parts.context import Passes
from gradlab.training.parts.duals import Stiffness
from gradlab.training.parts.policy_losses import Term
from gradlab.training.parts.sources import Newest

SMALL = dict(
    iterations=60, agents=4, interval=2, warmup=64, episode=20, evaluate_every=30,
    evaluation_starts=8, log_every=10, checkpoint_every=20, termination="ignore",
    at_end="restart", keep=(0.0, 1.0),
    precision="float64",
)  # fmt: skip
MODEL = LearnedModel(members=2, hidden=(8,), every=20, first_steps=15, steps=10, batch=16)


def push(state, action, noise):
    moved = 0.9 * state + 0.2 * torch.sin(state.roll(1, 1)) + 0.1 * noise
    moved = moved + torch.stack([action[:, 0], action[:, 1], action[:, 0]], 1)
    return moved, -(state**2).sum(1) - 0.1 * (action**2).sum(1)


def task():
    """Three coordinates, two actions; episodes end far out."""
    world = from_function(
        push, state_dim=3, action_dim=2, noise_dim=3, alive=lambda state: state[:, 0].abs() < 2.5
    )

    def starts(n, generator):
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    return gradlab.Task("push", world, world, starts, 0.9, 5, action_limit=(2.0, 1.0))


def row(name):
    """A row of the table with small networks and few rollouts."""
    whole = find(name)
    small = replace(
        whole, hidden=(8, 8), batch=whole.batch // 16, value_rate=(1e-2, 1e-3), replay=4096
    )
    if small.source.branching is not None:
        branching = Branching(every=20, rollouts=30, last=3, end=40)
        small = replace(small, source=replace(small.source, branching=branching))
    if small.source.steps:
        terms = (Term(4, "all"),) if small.loss.paths else small.terms
        fit = small.fit if small.fit == Passes() else Passes(2, 2)
        small = replace(small, source=Newest(4), terms=terms, fit=fit)
    if small.adaptive is not None:
        small = replace(small, adaptive=Stiffness(threshold=1.5, shortest=2, rate=0.1))
    return small if small.model is None else replace(small, model=shrunk(small.model))


def shrunk(model):
    """A model of the same kind with small networks and few steps."""
    deep = tuple(8 * width // 64 for width in model.hidden[1:])
    members, elites = (2, None) if model.elites is None else (3, 2)
    return replace(
        MODEL, hidden=deep, activation=model.activation, loss=model.loss,
        two_models=model.two_models, spectral=model.spectral, members=members, elites=elites,
        bootstrap=model.bootstrap,
    )  # fmt: skip


class Stop(Exception):
    """Ends a run as a lost machine would: without a last word."""


def stopped(train, at, **options):
    """Call `train` until iteration `at`, where it is stopped, and again to go on; the file."""

    def stop(stage, done, total):
        if stage == "training" and done >= at:
            raise Stop

    with pytest.raises(Stop):
        train(**options, progress=stop)
    torch.manual_seed(99)
    return train(**options, resume=True)


def numbers(path, seed=0):
    """All parameters of one seed's kept policy and critic at the end."""
    folders = sorted(path.with_name(path.stem + "-checkpoints").iterdir())
    files = [folders[-1] / f"seed{seed}-{kind}.safetensors" for kind in ("policy", "critic")]
    files = [file for file in files if file.exists()]  # a row without critics keeps none
    parts = [p.detach().flatten() for file in files for p in checkpoint.load(file).parameters()]
    return torch.cat(parts)


def same_tables(first, second, tables=("updates", "evaluations")):
    """Every number of two runs but the time that they took."""
    for table in tables:
        ours, theirs = (read(path).groups[table] for path in (first, second))
        for column in (name for name in ours if "seconds" not in name):
            np.testing.assert_array_equal(ours[column].values, theirs[column].values, column)


def policy_gradients(learner, iteration, batch, draws):
    """What an update of the policy on this batch would follow, as the policy's parameters."""
    loss, _ = learner.policy_loss(iteration, batch, learner.weights(iteration), draws)
    # What normalises the weights is a graph that the next update needs.
    return torch.autograd.grad(loss.sum(), learner.trained_policy.raw.parameters, retain_graph=True)


def flattened(gradients, member):
    """One member's gradients in the order of its module's parameters."""
    depth = len(gradients) // 2
    parts = [
        part
        for k in range(depth)
        for part in (gradients[k][member].T.flatten(), gradients[depth + k][member].flatten())
    ]
    return torch.cat(parts)
