"""DDPPO's models and its ablations: who is fitted how."""

from dataclasses import replace

import pytest
import torch

from gradlab.fitting.collection import collect
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.model_settings import ModelSettings
from gradlab.fitting.models import RECIPES, Recipe, doubled, parameters
from gradlab.systems.learned import LearnedSystem, TwoModels
from gradlab.tasks import pendulum

RECIPE = Recipe(
    collect(pendulum(), 120),
    ModelSettings(members=2, hidden=(8, 8), epochs=1),
    DirectionalDerivative(3),
)


def test_recipes_differ_in_what_they_say_and_in_nothing_else():
    made = {name: recipe(RECIPE) for name, recipe in RECIPES.items()}
    losses = {
        name: {role: fit.loss.name for role, fit in models.fits.items()}
        for name, models in made.items()
    }
    assert losses == {
        "ddppo": {"prediction": "nll", "gradient": "dd"},
        "no_gradient_loss": {"prediction": "nll", "gradient": "nll"},
        "single_model": {"both": "dd"},
        "double_parameters": {"both": "nll"},
    }
    assert isinstance(made["ddppo"].system, TwoModels)
    assert isinstance(made["single_model"].system, LearnedSystem)
    gradient = made["ddppo"].fits["gradient"], made["single_model"].fits["both"]
    assert gradient[0].held_out_loss == gradient[1].held_out_loss
    predictions = made["ddppo"].fits["prediction"], made["no_gradient_loss"].fits["prediction"]
    assert predictions[0].held_out_loss == predictions[1].held_out_loss
    apart = made["no_gradient_loss"].fits.values()
    assert len({fit.held_out_loss for fit in apart}) == 2
    counts = [
        sum(p.numel() for p in made[name].fits["both"].ensemble.network.parameters())
        for name in ("single_model", "double_parameters")
    ]
    assert 2 <= counts[1] / counts[0] < 2.3


def test_the_tasks_reward_and_termination_reach_every_model():
    def reward(state, action, after):
        return 7 + 0 * state[:, 0]

    def alive(state):
        return state[:, 0] > 0

    given = replace(RECIPE, reward=reward, alive=alive)
    state = torch.tensor([[3.0, 0.0], [-3.0, 0.0]])
    for recipe in RECIPES.values():
        found = recipe(given).system.step(state, torch.zeros(2, 1))
        assert found.reward.tolist() == [7, 7] and found.alive.tolist() == [True, False]


def test_states_are_of_the_prediction_and_slopes_of_the_gradient_model():
    models = RECIPES["ddppo"](RECIPE)
    parts = {role: LearnedSystem(fit.ensemble) for role, fit in models.fits.items()}
    state, action = RECIPE.data.state[:9].float(), RECIPE.data.action[:9].float()
    stepped = models.system.step(state, action).state
    torch.testing.assert_close(stepped, parts["prediction"].step(state, action).state)
    slopes = models.system.linearize(state, action).A
    torch.testing.assert_close(slopes, parts["gradient"].linearize(state, action).A)


@pytest.mark.parametrize("hidden", [(200, 200, 200, 200), (64, 64), (30, 10)])
def test_doubled_widths_have_twice_the_parameters(hidden):
    count, wider = parameters((23, *hidden, 36)), doubled(hidden, (23, 36))
    assert 2 * count <= parameters((23, *wider, 36)) < 2.2 * count
