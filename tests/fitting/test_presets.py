"""The papers' networks and settings: what is made of them, piece by piece."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gradlab.fitting.collection import collect
from gradlab.fitting.losses import OneStepError
from gradlab.fitting.model_settings import MBPO, PRESETS, RP_PGM
from gradlab.fitting.models import fit_model, prepared
from gradlab.networks import spectral
from gradlab.networks.gaussian_ensemble import LOG_VARIANCE
from gradlab.tasks import double_integrator

SMALL = dict(hidden=(8, 8), members=2, epochs=2)


@pytest.fixture(scope="module")
def record():
    return collect(double_integrator(), 300)


def made(record, name):
    return prepared(record, PRESETS[name], OneStepError())[0].ensemble


def test_mbpos_network_is_seven_members_of_four_layers_of_200_and_two_heads(record):
    """MBPO, and DDPPO B.2.2 and MAAC, which say that theirs is the same."""
    ensemble = made(record, "mbpo")
    shapes = [tuple(each.weight.shape) for _, each in spectral.linear_layers(ensemble)]
    assert shapes == [(7, 3, 200), *[(7, 200, 200)] * 3, (7, 200, 6)]
    assert MBPO.activation == "silu" and MBPO.spectral is None
    assert MBPO.bootstrap and MBPO.residual and MBPO.reward and MBPO.patience == 5


def test_rp_pgms_model_is_one_of_five_layers_of_relu_units_all_but_the_last_held(record):
    """RP-PGM B.1: "the number of layers … is 4 and 5"; all except the final layers."""
    ensemble = made(record, "rp-pgm").eval()
    norms = spectral.norms(ensemble)
    assert [len(layer.values) for layer in norms] == [1] * 5
    assert [layer.normalised for layer in norms] == [True] * 4 + [False]
    assert [layer.values[0] for layer in norms[:4]] == pytest.approx([1.0] * 4, rel=1e-5)
    assert RP_PGM.activation == "relu" and not RP_PGM.bootstrap


def test_bounds_of_the_log_variance_are_learned_with_the_rest(record):
    ensemble = fit_model(record, replace(MBPO, **SMALL)).ensemble
    low, high = LOG_VARIANCE
    assert bool((ensemble.low != low).all()) and bool((ensemble.high != high).all())
    with torch.no_grad():
        layer = ensemble.network.linear[-1]
        layer.bias[:, :, 3:] = 1e4
    std = ensemble(record.state.float(), record.action.float()).std / ensemble.target_std
    torch.testing.assert_close(std, (ensemble.high / 2).exp().expand_as(std), rtol=1e-3, atol=0)


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


def test_elites_are_five_of_seven_by_held_out_loss(record):
    fit = fit_model(record, replace(MBPO, hidden=(4,), epochs=2))
    elites = fit.elite_ensemble()
    assert elites.members == 5 and elites.network.members == 5
    order = sorted(range(7), key=lambda k: fit.held_out_loss[k])
    for name, value in elites.state_dict().items():
        assert torch.equal(value, fit.ensemble.state_dict()[name][sorted(order[:5])])
