"""Mixtures whose weights are given, such as those that a measurement has chosen."""

import pytest
import torch

from gradlab.cli import program
from gradlab.cli.train import Train
from gradlab.errors import InputError
from gradlab.networks import checkpoint
from gradlab.training.algorithms import find, with_horizons, with_weights
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


def test_one_weight_of_a_row_with_one_gradient_is_the_row_itself():
    assert with_weights(find("td3"), (1.0,)) == find("td3")
    alone = find("n-step-adp")
    assert with_weights(alone, (1.0,), (7,)) == with_horizons(alone, (7,))


def test_the_command_takes_words_or_numbers():
    words = ["train", "mpg-v2", "double_integrator", "--horizons", "0", "5", "--weights"]
    assert program.parsed([*words, "measured"]).weights == "measured"
    command = program.parsed([*words, "0.3", "0.7"])
    assert isinstance(command, Train) and command.weights == (0.3, 0.7)
    assert command._row("double_integrator").weights == FixedWeights((0.3, 0.7))
    with pytest.raises(InputError, match=r"expected rule, measured or FLOAT \.\.\., got 'most'"):
        program.parsed([*words, "most"])


def test_the_rate_of_the_policy_can_be_chosen():
    def rates(rate):
        return Train("mpg-v2", "path_tracking", policy_rate=rate)._row("path_tracking").policy_rate

    assert rates(1e-6) == (1e-6, 1e-6) and rates(None) == find("mpg-v2").policy_rate
    for rate in (0.0, -1e-3, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"policy_rate is .*, expected a positive number"):
            rates(rate)
