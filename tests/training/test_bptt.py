"""Backpropagation through time: no critic, from states in which episodes begin."""

from dataclasses import replace

import pytest
import torch

import gradlab
from gradlab.data.noise import stream
from gradlab.data.replay import Batch
from gradlab.gradients.rollout import rollout
from gradlab.gradients.starts import as_starts
from gradlab.storage.journal import read
from gradlab.training.algorithms import with_horizons
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from gradlab.training.parts.policy_losses import FromStarts, Term
from gradlab.training.parts.targets import NoCritic
from gradlab.training.settings import Settings
from tests.training.small_runs import MODEL, SMALL, flattened, row, task

HORIZON = 4


def learner_of(**changes):
    small = replace(row("bptt"), terms=(Term(HORIZON, "all"),), activation="tanh", **changes)
    return Learner(small, task(), Settings(precision="float64", seeds=2, termination="ignore"))


def batch_of(state):
    nothing = state.new_zeros(state.shape[:2])
    return Batch(state, state[..., :2], nothing, state, nothing)


def drawn(iteration, count):
    """The starts of an update, each seed's from a stream of its own, [2, count, 3]."""
    streams = [stream(seed, "training policy starts", iteration) for seed in range(2)]
    return torch.stack([task().starts(count, generator) for generator in streams])


class Along:
    """Model noise of given paths; all else as a run draws it."""

    def __init__(self, draws, paths):
        self.device, self.dtype, self.generators = draws.device, draws.dtype, draws.generators
        self.noise = torch.stack([path.dynamics_noise for path in paths])

    def normal(self, name, iteration, shape):
        assert name == "model noise" and self.noise.shape[1:] == shape
        return self.noise


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_the_gradient_is_that_of_the_estimator_without_a_tail_from_its_starts(share):
    learner = learner_of(loss=FromStarts(share))
    replayed = torch.randn(2, 16, 3, dtype=torch.float64)
    fresh = drawn(0, round(16 * share))
    state = torch.cat([fresh, replayed[:, round(16 * share) :]], dim=1)
    policies = [learner.policy_of(seed).double() for seed in range(2)]
    paths = [
        rollout(learner.task.prior, policy, as_starts(rows, 3), HORIZON, seed=7)
        for policy, rows in zip(policies, state, strict=True)
    ]
    gradients = learner.policy_gradients(0, batch_of(replayed), Along(learner.draws, paths))
    tail = gradlab.Tail(HORIZON, None, learner.task.discount)
    for seed, policy in enumerate(policies):
        prior = learner.task.prior
        estimator = gradlab.Estimator(prior, prior, "all", tail)
        wanted = estimator.mean_gradient(policy, state[seed], seed=7)
        torch.testing.assert_close(-flattened(gradients, seed), wanted, rtol=1e-9, atol=1e-11)


def test_nothing_of_a_critic_is_trained_saved_or_recorded(tmp_path):
    path = train(row("bptt"), task(), tmp_path / "run.h5", **SMALL, seeds=2)
    kept = {file.name for file in (tmp_path / "run-checkpoints" / "000060").iterdir()}
    assert kept == {"seed0-policy.safetensors", "seed1-policy.safetensors", "states.h5"}
    updates = read(path).groups["updates"]
    assert (updates["critic_norm"].values == 0).all() and (updates["nonfinite"].values == 0).all()
    assert (updates["policy_norm"].values > 0).all()
    assert not any("critic" in name for name in learner_of().state())
    assert NoCritic()(None, batch_of(torch.ones(2, 3, 3))).tolist() == [[0.0] * 3] * 2


def test_the_row_takes_other_horizons_and_learned_models(tmp_path):
    short = replace(with_horizons(row("bptt"), (3,)), model=MODEL)
    path = train(short, replace(task(), prior=None), tmp_path / "run.h5", **SMALL)
    assert (read(path).groups["updates"]["realised_horizon"].values == 3).all()
