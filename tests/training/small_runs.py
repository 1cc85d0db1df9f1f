"""A small world and short runs in it, for the tests of whole runs.

The gradient that a row's loss follows, beside the estimator that the row claims to be.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.data.replay import Batch
from gradlab.data.trajectories import stream
from gradlab.gradients.rollout import rollout
from gradlab.gradients.setting import as_starts
from gradlab.networks import checkpoint
from gradlab.storage.journal import read
from gradlab.systems import from_function
from gradlab.training.algorithm import LearnedModel
from gradlab.training.algorithms import find
from gradlab.training.learner import Learner
from gradlab.training.members import unstacked
from gradlab.training.parts.context import Branching, Newest, Passes
from gradlab.training.parts.duals import Stiffness
from gradlab.training.parts.policy_losses import Term
from gradlab.training.settings import Settings

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
        branching = Branching(every=20, rollouts=30, lengths=(1, 3, 0, 40))
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


N = 16


class Least(nn.Module):
    """The smaller of two critics."""

    def __init__(self, critics):
        super().__init__()
        self.critics = nn.ModuleList(critics)

    def forward(self, state, action):
        return torch.minimum(*(critic(state, action) for critic in self.critics))


class Drawn:
    """The noise of given paths, one for each member; starts as a run draws them."""

    def __init__(self, draws, paths):
        self.device, self.dtype, self.generators = draws.device, draws.dtype, draws.generators
        policy = torch.stack([path.policy_noise for path in paths], dim=1)
        model = torch.stack([path.dynamics_noise for path in paths], dim=2)
        self.noise = {"action": policy[0], "later actions": policy[1:].transpose(0, 1)}
        self.noise["model noise"] = model.permute(2, 0, 1, 3)

    def normal(self, name, iteration, shape):
        assert self.noise[name].shape[1:] == shape
        return self.noise[name]


def other(state, action, noise):
    """A model that errs in states and Jacobians."""
    after, reward = push(state, action, noise)
    return after + 0.2 * torch.cos(state) * action[:, :1], reward + 0.3 * state[:, 0] * action[:, 1]


def critics_of(learner, seed):
    """The smaller of a seed's critics, or None of a row that has none."""
    if learner.critic is None or not learner.critic.parameters:
        return None
    module = learner.critic_module
    pair = [unstacked(learner.critic, 2 * seed + k, module).double() for k in range(2)]
    return Least(pair)


def first_states(task, replayed, share):
    """Of each seed, this share of states in which episodes begin, before those of replay."""
    count = round(share * N)
    streams = [stream(seed, "training policy starts", 0) for seed in range(2)]
    fresh = torch.stack([task.starts(count, generator) for generator in streams])
    return torch.cat([fresh, replayed[:, count:]], dim=1)


def assert_estimated(
    row, task, fresh=0.0, alpha=0.0, samples=1, systems=None, termination="ignore", apart=0.0
):
    """A row of one term with θ in all actions; its critics' rows may be `apart` from its starts."""
    learner = Learner(row, task, Settings(precision="float64", seeds=2, termination=termination))
    states, jacobians = systems or (task.prior, task.prior)
    replayed, horizon = torch.randn(2, N, 3, dtype=torch.float64), row.terms[0].horizon
    first = first_states(task, replayed, fresh)
    begins = [as_starts(rows.repeat_interleave(samples, dim=0), 3) for rows in first]
    policies = [learner.policy_of(seed).double() for seed in range(2)]
    paths = [
        rollout(states, policy, begin, max(horizon, 1), seed=7)
        for policy, begin in zip(policies, begins, strict=True)
    ]
    nothing, at = replayed.new_zeros(2, N), replayed + apart
    starts = replayed if apart else None
    batch = Batch(at, at[..., :2], nothing, at, nothing, starts=starts)
    gradients = policy_gradients(learner, 0, batch, Drawn(learner.draws, paths))
    for seed, (policy, begin) in enumerate(zip(policies, begins, strict=True)):
        tail = gradlab.Tail(horizon, critics_of(learner, seed), task.discount)
        estimator = gradlab.Estimator(states, jacobians, "all", tail, entropy=alpha)
        wanted = estimator.mean_gradient(policy, begin.states, seed=7, termination=termination)
        torch.testing.assert_close(-flattened(gradients, seed), wanted, rtol=1e-9, atol=1e-11)
