"""Planted models: what is measured of them is what their closed forms say.

Which remedy to take: planted trials with known ratios.
"""

import numpy as np
import pytest
import torch

import gradlab
from gradlab.errors import InputError
from gradlab.fitting.collection import collect
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.fitted import fit_model
from gradlab.fitting.losses import BOUNDS, OneStepError
from gradlab.fitting.model_settings import ModelSettings
from gradlab.measurement.assembly import shared_truth
from gradlab.systems.learned import TwoModels
from gradlab.tools.remedies import fits
from gradlab.tools.remedies.fits import FitRecipe, FittedModel, FittedPart, price_values, recipe
from gradlab.tools.remedies.page import advice, verdict
from gradlab.tools.remedies.result import (
    ABOUT,
    BASELINE,
    STEPS,
    TIME,
    Key,
    ModelPair,
    ModelValue,
    Remedies,
    longer,
    of_trial,
)

A, B, GAIN, Q, R, DISCOUNT = 0.9, 0.4, -0.5, 1.0, 0.3, 0.9
BAD, BETTER = (0.6, 0.8), (0.85, 0.44)  # (A, B) of two models


def scalar(a, b):
    return gradlab.tasks.linear_quadratic(
        [[a]], [[b]], [[Q]], [[R]], noise_covariance=[[0.0]], discount=DISCOUNT
    )


def proportional():
    policy = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(policy.weight, GAIN)
    return policy


@pytest.fixture(scope="module")
def world():
    truth = shared_truth(scalar(A, B), proportional(), starts=40, horizon=4, batch=64, seed=3)
    return fits.bench(truth, None)


def value(values, key):
    found = [each.value for each in values if each.key == key]
    assert len(found) == 1
    return found[0]


def gradient(values, name):
    return {each.key: each.value for each in values if each.model == name}


def slope(a, b, steps):
    """d/du of the return of `steps` steps in the first action, per unit of the start state."""
    M = a + b * GAIN
    later = sum((DISCOUNT * M**2) ** t for t in range(steps - 1))
    return -2 * R * GAIN - 2 * DISCOUNT * b * M * (Q + GAIN**2 * R) * later


def test_the_simulator_as_its_own_model_makes_no_error(world):
    simulator = world.truth.task.simulator
    values = fits.model_values("it", simulator, world)
    for each in values:
        if each.quantity != "lyapunov":
            assert each.value == 0.0
    twin = scalar(A, B).simulator
    pair = fits.gradient_values({"it": simulator, "twin": twin}, world)
    assert gradient(pair, "it") == pytest.approx(gradient(pair, "twin"), nan_ok=True)


def test_jacobian_errors_are_those_of_the_matrices(world):
    values = fits.model_values("bad", scalar(*BAD).simulator, world)
    for block, true, wrong in (("A", A, BAD[0]), ("B", B, BAD[1])):
        key = Key("jacobian_error", block)
        assert value(values, key) == pytest.approx(abs(wrong - true) / true)
    assert value(values, Key("jacobian_error", "r_s")) == pytest.approx(0.0, abs=1e-12)


def test_predictions_run_along_the_simulators_actions(world):
    values = fits.model_values("bad", scalar(*BAD).simulator, world)
    true = guess = 1.0
    for t in range(1, 5):
        action = GAIN * true
        true, guess = A * true + B * action, BAD[0] * guess + BAD[1] * action
        expected = abs(guess - true) / abs(1.0 - true)
        assert value(values, Key("prediction_error", at=t)) == pytest.approx(expected)


def test_the_exponent_is_that_of_the_closed_loop(world):
    for a, b in (BAD, BETTER):
        values = fits.model_values("it", scalar(a, b).simulator, world)
        assert value(values, Key("lyapunov")) == pytest.approx(np.log(abs(a + b * GAIN)))
    own = fits.simulator_values(world)
    assert value(own, Key("lyapunov")) == pytest.approx(np.log(abs(A + B * GAIN)))


def test_biases_of_planted_models_are_their_closed_forms(world):
    systems = {"bad": scalar(*BAD).simulator, "better": scalar(*BETTER).simulator}
    values = fits.gradient_values(systems, world)
    s2 = world.truth.setting.starts.states[:, 0].numpy() ** 2
    n, infinite = len(s2), slope(A, B, 4000)
    for name, (a, b) in (("bad", BAD), ("better", BETTER)):
        found = gradient(values, name)
        for h in (1, 2, 4):
            y = s2 * (slope(a, b, h) - infinite)
            u = (y.sum() ** 2 - (y**2).sum()) / (n * (n - 1))
            assert found[Key("bias2", at=h)] == pytest.approx(u, rel=1e-3)
        errors = [found[Key("mse", at=h)] for h in (1, 2, 3, 4)]
        assert found[Key("least_mse")] == min(errors)
        assert found[Key("best_horizon")] == 1 + int(np.argmin(errors))


def test_a_better_model_is_taken_and_a_worse_one_is_not(world):
    """Ratios of squared biases are those of the slopes, and the verdict follows."""
    values = fits.gradient_values(
        {"nll": scalar(*BAD).simulator, "dd": scalar(*BETTER).simulator}, world
    )
    config = {
        "task": "scalar", "horizon": 4, "starts": 40, "batch": 64, "rows": 9, "costs": {"dd": 2.0},
        "settings": {"hidden": [64, 64], "activation": "silu"},
    }  # fmt: skip
    infinite = slope(A, B, 4000)
    cells = tuple(each for k in range(3) for each in of_trial(k, values))

    def run(first, second):
        pairs = tuple(ModelPair("dd", budget, first, second) for budget in ("equal steps", TIME))
        return Remedies(cells, pairs, config, {}, {"trials": []})

    good = run("nll", "dd")
    table = good.table()
    chosen = (table["quantity"] == "bias2") & (table["at"] == 4) & (table["budget"] == TIME)
    expected = ((slope(*BETTER, 4) - infinite) / (slope(*BAD, 4) - infinite)) ** 2
    assert table[chosen]["ratio"].item() == pytest.approx(expected, rel=1e-3)
    assert advice(good).use == "dd"
    assert "remedy_better" in codes(good)
    assert advice(run("dd", "nll")).use == "the plain fit"
    assert "remedy_worse" in codes(run("dd", "nll"))


def test_two_models_predict_by_the_first_and_differentiate_the_second(world):
    bad, better = scalar(*BAD).simulator, scalar(*BETTER).simulator
    both = fits.model_values("both", TwoModels(bad, better), world)
    parts = [fits.model_values("one", each, world) for each in (bad, better)]
    key = Key("prediction_error", at=3)
    assert value(both, key) == value(parts[0], key)
    key = Key("jacobian_error", "B")
    assert value(both, key) == value(parts[1], key)


# Equal steps and equal time: who is fitted for how long.


STEPS_PER_EPOCH = {BASELINE: 20, "dd": 20, "multistep": 16, "spectral": 20}
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


def test_every_arm_has_a_recipe():
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
    with pytest.raises(InputError, match="arm spectral: the baseline's settings have that already"):
        made("spectral", ModelSettings(members=1, spectral="all_but_last"))
    with pytest.raises(InputError, match="arm ensemble: the baseline's settings have that already"):
        made("ensemble", ModelSettings())


def test_costs_are_measured_against_the_baseline():
    data = collect(gradlab.tasks.double_integrator(), 600)
    wide = ModelSettings(members=1, hidden=(256, 256, 256), bootstrap=False)
    recipes = {BASELINE: made(BASELINE), "spectral": made(BASELINE, wide)}
    found = fits.measured_costs(recipes, data)
    assert found[BASELINE] == 1.0 and found["spectral"] > 2.0


# What a remedy costs, as the fit itself and its clock told it.


FITTED = ModelSettings(members=2, hidden=(8,), epochs=3, batch=64, precision="float64")


def test_prices_are_what_the_fit_and_its_clock_told():
    data = collect(gradlab.tasks.double_integrator(), 400)
    recipe = FitRecipe(FITTED, OneStepError())
    fit = fit_model(data, FITTED)
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


HORIZONS = 3
NOISE = {0: 1.0, 1: 1.05, 2: 0.95, 3: 1.02, 4: 0.98}  # of a trial, common to all models


def planted(errors, noise=0.01, trials=5, truth=True, longer_fits=None, status="converged"):
    """errors: arm → its mse over the baseline's, which longer fits change by `longer_fits`."""
    scale = {BASELINE: 1.0} | errors
    scale |= {longer(arm): (longer_fits or {}).get(arm, 1.0) for arm in errors}
    cells = []
    for k in range(trials):
        rng, values = np.random.default_rng(k), []
        for model, factor in scale.items():
            for h in range(1, HORIZONS + 1):
                of_h = factor(h) if callable(factor) else factor
                size = NOISE[k] * of_h * h * np.exp(noise * rng.normal())
                numbers = {"mse": size, "variance": 100 * size, "bias2": 0.5 * size}
                kept = numbers if truth else {"variance": numbers["variance"]}
                values += [ModelValue(model, name, v, at=h) for name, v in kept.items()]
                values.append(ModelValue(model, "prediction_error", 0.1 * of_h**-0.5, at=h))
            least = [v for v in values if v.model == model and v.key == Key("mse", at=1)]
            values += [ModelValue(model, "least_mse", each.value) for each in least]
            values.append(ModelValue(model, "jacobian_error", of_h, "A"))
        cells += of_trial(k, values)
    pairs = [
        pair
        for arm in errors
        for pair in (ModelPair(arm, STEPS, BASELINE, arm), ModelPair(arm, TIME, longer(arm), arm))
    ]
    config = {
        "task": "planted", "horizon": HORIZONS, "starts": 64, "batch": 256, "rows": 3000,
        "costs": {"dd": 2.0},
        "settings": {"hidden": [64, 64], "activation": "silu"},
    }  # fmt: skip
    notes = {"trials": [{"truth": {"status": status, "reason": "λ = 0.9 outgrows 1/γ"}}] * trials}
    return Remedies(tuple(cells), tuple(pairs), config, {}, notes)


def codes(run):
    """What is found, by code."""
    return {each.code: each for each in verdict(run)}


def test_the_remedy_of_the_least_error_is_taken_and_the_ceiling_is_not():
    found = advice(planted({"spectral": 0.5, "dd": 0.25, "multistep": 1.5}))
    assert found.light == "act" and found.use == "dd"
    assert found.gain.startswith("error lower by 4× at") and found.field("price").startswith(
        "2× the time"
    )
    assert found.avoid == "multistep: worse than no remedy"
    found = advice(planted({"sobolev": 0.1, "dd": 1.5}))
    assert found.use == "the plain fit" and found.field("why") == "no remedy even looks better"
    assert not found.gain


def test_a_remedy_has_its_gain_its_horizons_bias_variance_and_price():
    found = codes(planted({"dd": 0.25}))
    numbers = {code: each.value for code, each in found.items() if np.isfinite(each.value)}
    assert numbers == pytest.approx({
        "remedy_lowers": 4.0, "remedy_variance": 0.25, "remedy_bias": 0.5, "remedy_price": 2.0,
    }, rel=0.05)  # fmt: skip
    assert found["remedy_better"].at == "1–3" and len(found) == 5
    assert {each.decision for each in found.values()} == {"pass"}


def test_a_remedy_that_helps_far_and_harms_near_is_said_so():
    found = codes(planted({"dd": lambda h: 0.2 if h > 1 else 1.5}))
    assert found["remedy_better"].at == "2–3" and found["remedy_worse"].at == "1"
    assert found["remedy_raises"].value == pytest.approx(1.5, rel=0.05)


def test_what_is_not_shown_says_how_many_more_fits_would_tell():
    run = planted({"dd": 0.8}, noise=0.3)
    each = codes(run)["remedy_alike"]
    assert each.decision == "undecided" and each.more > 0 and each.low < 1 < each.high
    found = advice(run)
    assert found.light == "choose" and found.field("decide").endswith("more fits would decide")


def test_a_gain_that_longer_fitting_has_too_is_an_optimisers():
    for noise in (0.01, 0.05):
        found = codes(planted({"dd": 0.25}, longer_fits={"dd": 0.25}, noise=noise))
        assert {"remedy_steps", "remedy_optimiser"} <= found.keys()
    assert not {"remedy_steps", "remedy_optimiser"} & codes(planted({"dd": 0.25})).keys()


def test_without_a_truth_nothing_is_taken_and_the_reason_is_given():
    run = planted({"dd": 0.5}, truth=False)
    found = advice(run)
    assert found.light == "none" and found.field("why").endswith("λ = 0.9 outgrows 1/γ")
    assert codes(run)["remedy_unknown"].decision == "undecided"
    assert found.figure is None  # its first one is of variances


def test_a_single_fit_decides_nothing():
    run = planted({"dd": 0.5}, trials=1)
    assert codes(run)["remedy_unknown"].decision == "undecided"
    assert advice(run).light == "none" and "one fit" in advice(run).field("why")
