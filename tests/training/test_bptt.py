"""Backpropagation through time: no critic, from states in which episodes begin."""

from dataclasses import replace

import pytest
import torch

from gradlab.data.replay import Batch
from gradlab.storage.journal import read
from gradlab.training.learner import Learner
from gradlab.training.loop import train
from gradlab.training.parts.policy_losses import FromStarts, Term
from gradlab.training.parts.targets import NoCritic
from gradlab.training.settings import Settings
from tests.training.estimated import assert_estimated
from tests.training.small_runs import SMALL, row, task

HORIZON = 4


def learner_of(**changes):
    small = replace(row("bptt"), terms=(Term(HORIZON, "all"),), activation="tanh", **changes)
    return Learner(small, task(), Settings(precision="float64", seeds=2, termination="ignore"))


def batch_of(state):
    nothing = state.new_zeros(state.shape[:2])
    return Batch(state, state[..., :2], nothing, state, nothing)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_the_gradient_is_that_of_the_estimator_without_a_tail_from_its_starts(share):
    terms = (Term(HORIZON, "all"),)
    smooth = replace(row("bptt"), terms=terms, activation="tanh", loss=FromStarts(share))
    assert_estimated(smooth, task(), fresh=share)


def test_nothing_of_a_critic_is_trained_saved_or_recorded(tmp_path):
    path = train(row("bptt"), task(), tmp_path / "run.h5", **SMALL, seeds=2)
    kept = {file.name for file in (tmp_path / "run-checkpoints" / "000060").iterdir()}
    assert kept == {"seed0-policy.safetensors", "seed1-policy.safetensors", "states.h5"}
    updates = read(path).groups["updates"]
    assert (updates["critic_norm"].values == 0).all() and (updates["nonfinite"].values == 0).all()
    assert (updates["policy_norm"].values > 0).all()
    assert not any("critic" in name for name in learner_of().state())
    assert NoCritic()(None, batch_of(torch.ones(2, 3, 3))).tolist() == [[0.0] * 3] * 2
