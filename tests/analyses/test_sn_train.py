"""The claim on training with spectral norms, on planted and small runs."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.utils import parametrize

from analyses.remedies import sn_train
from analyses.remedies.spectral_arms import initial_policy, plain, tasks
from gradlab.runs.training.results import Training


def test_a_copy_of_a_normalised_policy_bakes_to_the_same_actions():
    policy = initial_policy(tasks()["pendulum"][0], 1, normalised=True)
    state, noise = torch.randn(5, 2).double(), torch.randn(5, 1).double()
    again = copy.deepcopy(policy).double()
    torch.testing.assert_close(plain(policy)(state, noise), again(state, noise))
    assert not any(parametrize.is_parametrized(each) for each in plain(policy).modules())


def trained(final):
    """A run of 5 seeds from return −10 to `final` in two evaluations."""
    scatter = 0.01 * np.arange(5)
    returns = np.stack([-10 + 0 * scatter, final + scatter])
    empty = np.zeros((2, 5))
    return Training(
        config={}, environment={}, attributes={}, seeds=np.arange(5), iteration=np.array([0, 9]),
        seconds=np.zeros(2), returns=returns, errors=empty, ends=empty, rms=empty[..., None],
        updates={}, horizons=(3,), events=(), model={}, gradients={},
    )  # fmt: skip


def arms(plain, gain):
    """Runs of both arms by unroll: where plain training ends, and what normalising adds."""
    return {
        (h, arm): trained(plain[h] + (gain[h] if arm == "normalised" else 0))
        for h in sn_train.UNROLLS
        for arm in sn_train.ARMS
    }


def test_where_plain_training_does_not_fail_the_claim_is_not_tested():
    verdict = sn_train.judge(arms(dict.fromkeys(sn_train.UNROLLS, -5.0), {3: 0.0, 10: 0, 15: 3.0}))
    assert not verdict.holds
    assert verdict.sentence.startswith("Not tested: the premise did not occur")


@pytest.mark.parametrize(
    ("short", "long", "holds"),
    [(0.0, 3.0, True), (-0.5, 3.0, True), (-2.0, 3.0, False), (0.0, 0.0, False), (0.0, -3, False)],
)
def test_sn_train_asks_for_help_at_long_unrolls_and_no_harm_at_short_ones(short, long, holds):
    runs = arms({3: -5.0, 10: -5.0, 15: -8.0}, {3: short, 10: -1.0, 15: long})
    assert sn_train.judge(runs).holds == holds
    judged = {key: run for key, run in runs.items() if key[0] in (3, 15)}
    assert sn_train.judge(judged).holds == holds


def test_the_arms_of_training_differ_in_their_norms_alone():
    plain_row, held = (sn_train.algorithm(10, arm) for arm in sn_train.ARMS)
    assert held.policy_spectral == "all"
    assert held.model.spectral == "all_but_last"
    assert replace(
        held, name=plain_row.name, policy_spectral=None, model=replace(held.model, spectral=None)
    ) == plain_row  # fmt: skip
