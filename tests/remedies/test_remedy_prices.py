"""What a remedy costs, as the fit itself and its clock told it."""

import pytest

import gradlab
from gradlab.fitting.collection import collect
from gradlab.fitting.losses import BOUNDS, OneStepError
from gradlab.fitting.model_settings import ModelSettings
from gradlab.fitting.models import fit_model
from gradlab.tools.remedies.fits import FitRecipe, FittedModel, price_values
from gradlab.tools.remedies.result import Key

SETTINGS = ModelSettings(members=2, hidden=(8,), epochs=3, batch=64, precision="float64")


@pytest.mark.parametrize("half", [False, True])
def test_prices_are_what_the_fit_and_its_clock_told(half):
    data = collect(gradlab.tasks.double_integrator(), 400)
    recipe = FitRecipe(SETTINGS, OneStepError(), half)
    fit = fit_model(recipe.rows(data), SETTINGS)
    parts = [
        FittedModel(fit.ensemble, {"seconds": 2.0}),
        FittedModel(fit.ensemble, {"seconds": 3.0}),
    ]
    found = {v.key: v.value for v in price_values("pair", parts, recipe, data, 2.5)}
    low, high = fit.ensemble.low, fit.ensemble.high
    pull = BOUNDS * float((high - low).sum(dim=(1, 2)).mean())
    assert found == {
        Key("held_out_nll"): pytest.approx(sum(fit.held_out_loss) / 2 - pull, rel=1e-9),
        Key("held_out_mse"): pytest.approx(float(1 - fit.explained.mean()), rel=1e-9),
        Key("fit_seconds"): 5.0,
        Key("step_cost"): 2.5,
    }
