"""Equal steps and equal time: who is fitted for how long."""

import pytest

import gradlab
from gradlab.errors import InputError
from gradlab.fitting.collection import collect
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.model_settings import ModelSettings
from gradlab.tools.remedies import fits
from gradlab.tools.remedies.fits import FittedPart, recipe
from gradlab.tools.remedies.result import (
    ABOUT,
    BASELINE,
    HALF,
    STEPS,
    TIME,
    ModelPair,
    called,
    longer,
)

STEPS_PER_EPOCH = {BASELINE: 20, "dd": 20, "multistep": 16, "spectral": 20, HALF: 10}
SETTINGS = ModelSettings(members=1, hidden=(8,), bootstrap=False, epochs=2)
SIMULATOR = gradlab.tasks.double_integrator().simulator


def plan(*arms, epochs=40, **costs):
    return fits.planned(arms, epochs, STEPS_PER_EPOCH, {"two-model": 3.0} | costs)


def made(name, settings=SETTINGS):
    return recipe(name, settings, DirectionalDerivative(), SIMULATOR)


def test_arms_take_as_many_steps_and_the_baseline_as_long_as_each():
    found = plan("dd", "spectral", dd=2.5, spectral=1.25)
    assert found.models["dd"] == (FittedPart("dd", 40),)
    assert found.models[longer("dd")] == (FittedPart(BASELINE, 100),)
    assert found.models[longer("spectral")] == (FittedPart(BASELINE, 50),)
    assert ModelPair("dd", TIME, longer("dd"), "dd") in found.pairs
    assert ModelPair("dd", STEPS, BASELINE, "dd") in found.pairs
    found = plan("multistep", multistep=3.0)
    assert found.models["multistep"] == (FittedPart("multistep", 50),)  # 40 · 20 = 50 · 16
    assert found.models[longer("multistep")] == (FittedPart(BASELINE, 120),)
    found = plan("dd", "two-model", dd=2.0)
    assert found.models["two-model"] == (FittedPart(BASELINE, 40), FittedPart("dd", 40))
    assert found.models[longer("two-model")] == (FittedPart(BASELINE, 120),)
    assert len(found.parts) == 4  # nll at 40, 80, 120; dd
    found = plan("more-data")
    assert found.models[HALF] == (FittedPart(HALF, 80),)
    assert {pair.first for pair in found.pairs} == {HALF}
    assert {pair.second for pair in found.pairs} == {BASELINE}


def test_every_arm_has_a_recipe_a_line_and_a_name():
    assert all(called(arm) != f"the loss {arm}" for arm in ABOUT)
    for arm in ABOUT:
        for name in fits.fits_of(arm):
            assert made(name).settings.epochs == 2
    with pytest.raises(InputError, match="arm 'magic' is unknown"):
        fits.fits_of("magic")


@pytest.mark.parametrize(
    ("name", "change"),
    [("spectral", "spectral"), ("ensemble", "members"), ("double-parameters", "hidden")],
)
def test_an_arm_changes_one_setting_and_keeps_the_loss(name, change):
    base, other = made(BASELINE), made(name)
    differ = {k for k, v in vars(base.settings).items() if vars(other.settings)[k] != v}
    assert differ == {change} and other.loss == base.loss


@pytest.mark.parametrize("name", ["dd", "multistep", "mse", "sobolev"])
def test_an_arm_changes_the_loss_and_keeps_the_settings(name):
    base, other = made(BASELINE), made(name)
    assert other.settings == base.settings and other.loss != base.loss


def test_a_baseline_that_has_the_remedy_is_refused():
    with pytest.raises(InputError, match="arm spectral: the baseline's settings normalise"):
        made("spectral", ModelSettings(members=1, spectral="all"))
    with pytest.raises(InputError, match="arm ensemble: the baseline has 7 members"):
        made("ensemble", ModelSettings())


def test_costs_are_measured_against_the_baseline():
    data = collect(gradlab.tasks.double_integrator(), 600)
    wide = ModelSettings(members=1, hidden=(256, 256, 256), bootstrap=False)
    recipes = {BASELINE: made(BASELINE), "spectral": made(BASELINE, wide)}
    found = fits.measured_costs(recipes, data)
    assert found[BASELINE] == 1.0 and found["spectral"] > 2.0
