"""Worlds with a wrong and a wild model, and rows that follow what is measured in them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import gradlab
from gradlab.systems import from_function
from gradlab.training.algorithms import find, measured, with_horizons
from gradlab.training.measured import weights as measured_weights
from gradlab.training.parts.context import FixedWeights
from gradlab.training.run import collect
from gradlab.training.settings import Settings
from gradlab.training.state import begin

GAMMA = 0.8
SMALL = dict(
    iterations=40, agents=4, interval=2, warmup=64, episode=20, evaluate_every=30,
    evaluation_starts=8, log_every=10, checkpoint_every=15, termination="ignore",
    at_end="restart", keep=(0.0, 1.0), precision="float64", measure_every=20, measure_starts=16,
)  # fmt: skip
FOLLOWED = ["weights", pytest.param("horizon", marks=pytest.mark.slow)]


def push(state, action, pull=0.9):
    moved = pull * state + 0.2 * torch.sin(state.roll(1, 1))
    moved = moved + torch.stack([action[:, 0], action[:, 1], action[:, 0]], 1)
    return moved, -(state**2).sum(1) - 0.1 * (action**2).sum(1)


def wrong(state, action):
    moved, reward = push(state, action, pull=0.2)
    return -moved, reward


def wild(state, action):
    """Wrong in every state alike, so that few starts tell."""
    moved, _ = push(state, action, pull=4.0)
    return moved, -(moved**2).sum(1)


def task(model=push):
    world, prior = (from_function(step, state_dim=3, action_dim=2) for step in (push, model))

    def starts(n, generator):
        return torch.randn(n, 3, generator=generator, dtype=torch.float64)

    return gradlab.Task("push", world, prior, starts, GAMMA, 5, action_limit=(2.0, 1.0))


def row(name="mpg-v2", horizons=(0, 5)):
    return replace(with_horizons(find(name), horizons), hidden=(8, 8), batch=16)


def misled(horizons=(0, 5)):
    """The row whose rule follows the longest horizon alone: with a wrong model it is soon left."""
    last = tuple(float(h == max(horizons)) for h in horizons)
    return replace(row(horizons=horizons), weights=FixedWeights(last))


class Unrolled(nn.Module):
    """Q^π of the simulator by summing its rewards: an exact critic of whatever policy."""

    def __init__(self, policy):
        super().__init__()
        self.policy = policy

    def forward(self, state, action):
        total = 0.0
        for t in range(60):
            state, reward = push(state, action)
            total = total + GAMMA**t * reward
            action = self.policy(state)
        return total


def first_row(name, follow, model, exact, monkeypatch, horizons=(0, 5), by="mse"):
    """One measurement of a fresh run, in one dictionary."""
    settings = Settings(**SMALL | {"iterations": 100, "measure_starts": 64})
    chosen = measured(row(name, horizons), **{follow: "measured"}, by=by)
    run = begin(chosen, task(model), settings)
    collect(run)
    run.iteration = 20
    if exact:
        policy = run.learner.policy_of(0).double()
        monkeypatch.setattr(run.learner, "critic_of", lambda seed: Unrolled(policy))
    return run, measured_weights.row(run)
