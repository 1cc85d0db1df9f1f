"""The papers' networks and settings: what is made of them, piece by piece."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gradlab.fitting.collection import collect
from gradlab.fitting.fitted import prepared
from gradlab.fitting.losses import OneStepError
from gradlab.fitting.model_settings import MBPO, PRESETS, RP_PGM
from gradlab.networks import spectral
from gradlab.tasks import double_integrator

SMALL = dict(hidden=(8, 8), members=2, epochs=2)


@pytest.fixture(scope="module")
def record():
    return collect(double_integrator(), 300)


def made(record, name):
    return prepared(record, PRESETS[name], OneStepError())[0].ensemble


def test_rp_pgms_model_is_one_of_five_layers_of_relu_units_all_but_the_last_held(record):
    """RP-PGM B.1: "the number of layers … is 4 and 5"; all except the final layers."""
    ensemble = made(record, "rp-pgm").eval()
    norms = spectral.norms(ensemble)
    assert [len(layer.values) for layer in norms] == [1] * 5
    assert [layer.normalised for layer in norms] == [True] * 4 + [False]
    assert [layer.values[0] for layer in norms[:4]] == pytest.approx([1.0] * 4, rel=1e-5)
    assert RP_PGM.activation == "relu" and not RP_PGM.bootstrap


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("reward", [True, False])
def test_without_a_network_the_model_predicts_the_mean_of_its_targets(residual, reward, record):
    """Residual prediction adds the state; the reward's head is an output more."""
    settings = replace(MBPO, **SMALL, residual=residual, reward=reward, precision="float64")
    descent, _ = prepared(record, settings, OneStepError())
    ensemble, training = descent.ensemble, descent.training.rows
    for parameter in ensemble.network.parameters():
        nn.init.zeros_(parameter)
    mean = ensemble(record.state, record.action).mean[0]
    change = (record.next_state - record.state)[training].mean(dim=0)
    wanted = record.state + change if residual else record.next_state[training].mean(dim=0)
    torch.testing.assert_close(mean[:, :2], wanted.expand(len(record), 2))
    assert mean.shape[1] == 2 + reward
    if reward:
        torch.testing.assert_close(mean[:, 2], record.reward[training].mean().expand(len(record)))
