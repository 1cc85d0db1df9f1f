"""RP-PGM's rows: a mixture of first states, h steps of the model, spectral norms."""

from dataclasses import replace

import pytest

from gradlab.networks import checkpoint, spectral
from gradlab.training.algorithms import find, with_horizons, with_starts
from gradlab.training.loop import train
from tests.training.estimated import assert_estimated
from tests.training.small_runs import SMALL, row, task

ALPHA = find("rp-dp").target.temperature


def smooth(name, horizon, beta):
    """A row on the prior, smooth, with another horizon and law of first states."""
    changed = with_starts(with_horizons(row(name), (horizon,)), beta)
    return replace(changed, model=None, activation="tanh", policy_spectral=None)


@pytest.mark.parametrize(("beta", "horizon"), [(0.5, 3), (1.0, 2), (0.0, 1), (0.5, 0)])
def test_the_gradient_is_that_of_the_estimator_from_the_mixture_of_laws(beta, horizon):
    assert_estimated(smooth("rp-dp", horizon, beta), task(), fresh=1 - beta, alpha=ALPHA)


def test_layers_are_those_of_the_paper_and_held_at_norm_one_where_they_are_normalised(tmp_path):
    plain, held = find("rp-dp"), find("rp-dp-sn")
    assert plain.activation == plain.model.activation == "relu"
    assert len(plain.hidden) + 1 == 4 and len(plain.model.hidden) + 1 == 5
    assert replace(held, name="rp-dp", policy_spectral=None, model=plain.model) == plain
    train(row("rp-dp-sn"), replace(task(), prior=None), tmp_path / "run.h5", **SMALL)
    folder = tmp_path / "run-checkpoints" / "000060"
    policy, model = (
        spectral.norms(checkpoint.load(folder / f"seed0-{kind}.safetensors"))
        for kind in ("policy", "prediction")
    )
    # The policy's norms are power iterations', which follow the weights.
    assert [max(layer.values) for layer in policy] == pytest.approx([1.0] * len(policy), rel=0.02)
    sizes = [value for layer in model[:-1] for value in layer.values]
    assert sizes == pytest.approx([1.0] * len(sizes), rel=1e-6)
