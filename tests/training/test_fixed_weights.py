"""Mixtures whose weights are given, such as those that a measurement has chosen."""

import torch

from gradlab.networks import checkpoint
from gradlab.training.algorithms import find, with_weights
from gradlab.training.loop import train
from gradlab.training.parts.context import FixedWeights
from gradlab.training.parts.policy_losses import Term
from tests.training.small_runs import SMALL, row, task


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
