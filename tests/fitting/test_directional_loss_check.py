"""Whether neighbours are near enough, on systems whose Jacobians are known."""

from dataclasses import replace

import pytest
import torch

from gradlab.errors import InputError
from gradlab.fitting.collection import collect
from gradlab.fitting.directional_loss_check import (
    by_group,
    loss_check,
    target_errors,
)
from gradlab.fitting.fitted import fit_model
from gradlab.fitting.losses import OneStepError, split
from gradlab.fitting.model_settings import ModelSettings
from gradlab.tasks import linear_quadratic
from tests.fitting.small_models import random
from tests.systems.ensembles import by_jacrev

A, B = [[0.9, 0.2], [-0.1, 0.8]], [[0.3], [0.5]]
SETTINGS = ModelSettings(members=2, hidden=(16,), epochs=8, held_out=0.3, precision="float64")


@pytest.fixture(scope="module")
def quiet():
    """Transitions without noise, and a poor model of their states."""
    task = linear_quadratic(A, B, torch.eye(2), [[1.0]], noise_covariance=torch.zeros(2, 2))
    data = collect(task, 1500, length=20)
    return data, fit_model(data, replace(SETTINGS, reward=False), OneStepError("mse"))


@pytest.mark.parametrize("divided", [False, True])
def test_target_errors_of_a_noisy_linear_map_are_twice_the_noise(divided):
    v, J = random(3000, 16, 4), random(3, 4, seed=1)
    noise = 0.3 * random(3000, 17, 3, seed=2)
    change = v @ J.T + noise[:, 1:] - noise[:, :1]
    square = v.square().sum(dim=2) if divided else torch.ones_like(v[..., 0])
    wanted = float((2 * 0.3**2 / square).mean())
    found = float(target_errors(v, change, square).mean())
    assert wanted * 0.9 < found < wanted * 1.35


def test_target_errors_of_a_curved_map_are_its_curvature_or_a_little_more():
    # y = x², Δy − J v = v² whatever x. A symmetric neighbourhood hides none of it from the
    # regression, and studentising, which noise needs, adds to it.
    half = random(3000, 8, 1)
    v = torch.cat([half, -half], dim=1)
    square = torch.ones_like(v[..., 0])
    found = target_errors(v, v.square(), square).mean()
    assert 1 < found / v.pow(4).mean() < 1.35


def test_the_loss_can_help_a_poor_model_of_a_noiseless_system(quiet):
    found = loss_check(*quiet, neighbours=5)
    assert found.verdict == "can help" and found.target_error < 1e-20 < found.model_error


def test_the_loss_cannot_help_where_noise_drowns_the_differences():
    noisy = linear_quadratic(A, B, torch.eye(2), [[1.0]], noise_covariance=torch.eye(2))
    data = collect(noisy, 1500, length=20)
    fit = fit_model(data, replace(SETTINGS, epochs=20, reward=False), OneStepError("mse"))
    found = loss_check(data, fit, neighbours=5)
    assert found.verdict == "cannot help"
    assert found.gain[1] < found.gain[0] < found.gain[2] < 0
    assert found.target_error > found.model_error


def test_states_and_reward_are_asked_apart(quiet):
    """A reward of noise alone: its derivatives cannot be helped, those of the states can."""
    data, _ = quiet
    loud = replace(data, reward=random(len(data), seed=5))
    fit = fit_model(loud, SETTINGS, OneStepError("mse"))
    found = by_group(loud, fit, neighbours=5)
    assert found["state"].verdict == "can help" and found["reward"].verdict == "cannot help"
    assert found["state"].target_error < 1e-20 < found["state"].model_error
    whole = loss_check(loud, fit, neighbours=5)
    for name in ("target_error", "model_error"):
        parts = 2 * getattr(found["state"], name) + getattr(found["reward"], name)
        assert getattr(whole, name) == pytest.approx(parts / 3)
    assert whole.verdict == "cannot help"
    assert loss_check(loud, fit, neighbours=5, outputs="state") == found["state"]
    headless = fit_model(loud, replace(SETTINGS, epochs=1, reward=False), OneStepError("mse"))
    assert list(by_group(loud, headless, neighbours=5)) == ["state"]
    with pytest.raises(InputError, match="no head"):
        loss_check(loud, headless, neighbours=5, outputs="reward")


def test_the_models_own_error_is_that_of_its_jacobian(quiet):
    """D − T against ‖(J − J_m) v‖² / ‖v‖² with the true Jacobian."""
    data, fit = quiet
    ensemble, true = fit.ensemble, torch.cat([torch.tensor(A), torch.tensor(B)], dim=1).double()
    _, held = split(data, SETTINGS.held_out, SETTINGS.seed)
    d, f = ensemble.input_std[0, 0], ensemble.target_std[0, 0]
    x = torch.cat([data.state, data.action], dim=1) / d
    distance = torch.cdist(x[held], x)
    distance[torch.arange(len(held)), held] = torch.inf
    v = x[distance.topk(5, largest=False).indices] - x[held][:, None]
    wrong = by_jacrev(ensemble, data.state[held], data.action[held])[0] - true
    moved = torch.einsum("eroi,rni->erno", wrong * d / f[:, None], v)
    for divided in (True, False):
        square = v.square().sum(dim=2) if divided else torch.ones_like(v[..., 0])
        wanted = (moved.square() / square[None, ..., None]).mean()
        found = loss_check(data, fit, neighbours=5, divided=divided)
        assert found.model_error == pytest.approx(float(wanted), rel=1e-6)
    assert found.rows == len(held)
