"""What remedies gain with larger batches, from the pieces of the error."""

from dataclasses import replace

import numpy as np
import pytest

import gradlab
from gradlab.fitting.collection import collect
from gradlab.fitting.fitted import fit_model
from gradlab.fitting.losses import BOUNDS, OneStepError
from gradlab.fitting.model_settings import ModelSettings
from gradlab.tools.remedies.fits import FitRecipe, FittedModel, price_values
from gradlab.tools.remedies.result import BASELINE, Key, ModelValue, extended, larger_batches
from tests.planted_remedies import BATCH, RUN, H, values


def test_a_larger_batch_leaves_the_bias_and_divides_the_variance_exactly():
    found = larger_batches(RUN).set_index(["arm", "quantity", "at"])
    trials = [{v.key: v.value for v in values(BASELINE, 1.0, t)} for t in range(4)]
    bias, spread = (
        np.array([[of[Key(name, at=h)] for h in range(1, H + 1)] for of in trials])
        for name in ("bias2", "variance")
    )
    for k in (2, 4):
        errors = bias + spread / (k * BATCH)
        for h in range(1, H + 1):
            row = found.loc[(f"batch × {k}", "mse", h)]
            assert row["second"] == pytest.approx(errors[:, h - 1].mean())
            assert row["first"] == pytest.approx((bias + spread / BATCH)[:, h - 1].mean())
            assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
            assert found.loc[(f"batch × {k}", "variance", h), "ratio"] == 1 / k
            assert found.loc[(f"batch × {k}", "bias2", h), "ratio"] == 1.0
        least = found.loc[(f"batch × {k}", "least_mse", np.nan)].squeeze()
        assert least["second"] == pytest.approx(errors.min(axis=1).mean())
        assert found.loc[(f"batch × {k}", "step_cost", np.nan)].squeeze()["second"] == k


def test_of_a_single_trial_larger_batches_have_intervals_over_its_starts():
    rng = np.random.default_rng(0)
    left = 1 + 0.01 * rng.normal(size=(2, 2, 16))
    numbers = [
        ModelValue(BASELINE, Key(name, at=h), float(scale * row.mean()), scale * row)
        for h, rows in enumerate(left, 1)
        for name, scale, row in zip(("mse", "variance"), (3.0, BATCH), rows, strict=True)
    ]
    run = replace(RUN, cells=extended(None, 0, numbers), pairs=())
    found = larger_batches(run).set_index(["arm", "quantity", "at"])
    row = found.loc[("batch × 2", "mse", 1)]
    assert row["n"] == 16 and row["ci_low"] < row["difference"] < row["ci_high"]
    assert row["second"] == pytest.approx(3.0 * left[0, 0].mean() - 0.5 * left[0, 1].mean())
    least = found.loc[("batch × 2", "least_mse", np.nan)].squeeze()
    known = min(3.0 * rows[0].mean() - 0.5 * rows[1].mean() for rows in left)
    assert least["second"] == pytest.approx(known)


# What a remedy costs, as the fit itself and its clock told it.


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
