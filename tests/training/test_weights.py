"""The papers' weights, at the iterations where their values are known in closed form."""

import math

import numpy as np
import pytest
import torch

from gradlab.networks import checkpoint
from gradlab.statistics.mixing import MpgJournalWeights, MpgWeights
from gradlab.training.algorithms import find, with_weights
from gradlab.training.loop import train
from gradlab.training.parts.context import FixedWeights
from gradlab.training.parts.policy_losses import Term
from tests.training.small_runs import SMALL, row, task

ENDS = (0, 25)


@pytest.mark.parametrize("ramp", [9000, 4000])
def test_mpg_begins_with_the_model_and_ends_with_the_data(ramp):
    rule = MpgWeights(eta=0.1, ramp=ramp)
    model = 1 / (1 + math.exp(1 - 0.9**-25))
    assert rule(0, ENDS)[1] == pytest.approx(model, abs=1e-12)
    assert model == pytest.approx(0.9999976, abs=1e-7)
    assert rule(ramp // 2, ENDS) == pytest.approx([0.5, 0.5], abs=1e-9)
    assert rule(ramp, ENDS)[0] == pytest.approx(model, abs=1e-12)
    assert rule(10 * ramp, ENDS)[0] == pytest.approx(model, abs=1e-12)


@pytest.mark.parametrize("iteration", range(0, 9000, 450))
def test_the_journal_version_is_the_same_rule_while_it_ramps(iteration):
    journal = MpgJournalWeights(eta=0.1, iterations=9000)
    # λ falls back where MPG's goes on: (2 − λ) of the one is λ of the other.
    assert journal(iteration, ENDS) == pytest.approx(MpgWeights(0.1, 9000)(iteration, ENDS))


def test_weights_of_many_horizons_sum_to_one_and_change_sides():
    rule = MpgWeights(eta=0.1, ramp=100)
    early, late = rule(0, (0, 5, 10, 25)), rule(100, (0, 5, 10, 25))
    assert early.sum() == pytest.approx(1) and late.sum() == pytest.approx(1)
    assert (np.diff(early) > 0).all() and (np.diff(late) < 0).all()


def test_the_published_rule_goes_on_to_one_and_a_half():
    rule = MpgWeights(eta=0.1, ramp=100, published=True)
    assert rule(10_000, ENDS)[0] == 1.0
    assert np.isfinite(rule(10_000, ENDS)).all()


# Mixtures whose weights are given, such as those that a measurement has chosen.


def trained(row, path):
    train(row, task(), path, **SMALL)
    (policy,) = path.with_name(f"{path.stem}-checkpoints").glob("*60/seed0-policy.safetensors")
    return torch.cat([p.flatten() for p in checkpoint.load(policy).parameters()])


def test_the_mixture_follows_the_given_weights(tmp_path):
    """All weight on h = 0 is the row of one term, whose loss is written down elsewhere."""
    mixed = trained(with_weights(row("mpg-v2"), (1.0, 0.0), (0, 3)), tmp_path / "mixed.h5")
    alone = trained(with_weights(row("mpg-v2"), (1.0,), (0,)), tmp_path / "alone.h5")
    other = trained(with_weights(row("mpg-v2"), (0.0, 1.0), (0, 3)), tmp_path / "other.h5")
    assert torch.allclose(mixed, alone, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(mixed, other, rtol=1e-3)


def test_one_horizon_without_0_can_be_followed():
    chosen = with_weights(find("mpg-v2"), (1,), (14,))
    assert chosen.terms == (Term(14, "first"),) and chosen.weights == FixedWeights((1.0,))
