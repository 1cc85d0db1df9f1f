"""Which remedy to take, in words: planted trials with known ratios."""

from dataclasses import replace

import numpy as np

from gradlab.tools.remedies.findings import setting, verdict
from gradlab.tools.remedies.result import (
    BASELINE,
    CLIPPED,
    SMOOTH,
    STEPS,
    TIME,
    Key,
    ModelPair,
    ModelValue,
    Remedies,
    extended,
    longer,
)

H = 3
NOISE = {0: 1.0, 1: 1.05, 2: 0.95, 3: 1.02, 4: 0.98}  # of a trial, common to all models


def planted(
    errors, noise=0.01, trials=5, clipped=False, truth=True, longer_fits=None, status="converged"
):
    """errors: arm → its mse over the baseline's, which longer fits change by `longer_fits`."""
    scale = {BASELINE: 1.0} | errors
    scale |= {longer(arm): (longer_fits or {}).get(arm, 1.0) for arm in errors}
    cells = None
    for k in range(trials):
        rng, values = np.random.default_rng(k), []
        for model, factor in scale.items():
            for h in range(1, H + 1):
                of_h = factor(h) if callable(factor) else factor
                size = NOISE[k] * of_h * h * np.exp(noise * rng.normal())
                numbers = {"mse": size, "variance": 100 * size, "bias2": 0.5 * size}
                kept = numbers if truth else {"variance": numbers["variance"]}
                values += [ModelValue(model, Key(name, at=h), v) for name, v in kept.items()]
                values.append(ModelValue(model, Key("prediction_error", at=h), 0.1 * of_h**-0.5))
            least = [v for v in values if v.model == model and v.key == Key("mse", at=1)]
            values += [ModelValue(model, Key("least_mse"), each.value) for each in least]
            for region in (SMOOTH, CLIPPED) if clipped else (SMOOTH,):
                values.append(ModelValue(model, Key("jacobian_error", "A", region=region), of_h))
        cells = extended(cells, k, values)
    pairs = [
        pair
        for arm in errors
        for pair in (ModelPair(arm, STEPS, BASELINE, arm), ModelPair(arm, TIME, longer(arm), arm))
    ]
    config = {
        "task": "planted", "horizon": H, "starts": 64, "rows": 3000, "costs": {"dd": 2.0},
        "settings": {"hidden": [64, 64], "activation": "silu"},
    }  # fmt: skip
    notes = {"trials": [{"truth": {"status": status, "reason": "λ = 0.9 outgrows 1/γ"}}] * trials}
    return Remedies(cells, tuple(pairs), config, {}, notes)


def texts(run):
    return [sentence.text for sentence in verdict(run)]


def test_remedies_are_ranked_by_the_least_error_and_the_setting_is_named():
    run = planted({"spectral": 0.5, "dd": 0.25, "multistep": 1.5})
    first = verdict(run)[0]
    assert first.decided and first.about == "gain"
    assert first.text.startswith(
        "Take the directional-derivative loss: at equal fitting time (5 fits of 2×64 silu units to "
        "3000 rows, planted) it lowers the least error of the gradient 4× (CI "
    )
    assert ", then spectral normalisation 2× (CI " in first.text and "multi-step" not in first.text
    assert setting(run) == "5 fits of 2×64 silu units to 3000 rows"


def test_gains_and_prices_stand_in_one_sentence():
    text = texts(planted({"dd": 0.25}))[1]
    assert text.startswith("The directional-derivative loss (dd) cuts variance 4× (CI ")
    assert " and cuts bias 2× (CI " in text and "(5 fits): better at h = 1–3; " in text
    assert "errors of ∂f/∂s 0.25× (CI 0.25–0.25); " in text
    assert text.endswith(
        "its predictions at step 1 err 2× (CI 2–2) as much; fitting takes 2× the time per step."
    )
    assert (
        "∂f/∂s 0.25× (CI 0.25–0.25) away from clips"
        in texts(planted({"dd": 0.25}, clipped=True))[1]
    )


def test_a_remedy_that_helps_far_and_harms_near_is_said_so():
    text = texts(planted({"dd": lambda h: 0.2 if h > 1 else 1.5}))[1]
    assert "better at h = 2–3, worse at h = 1" in text
    assert "the least error over the horizons is 1.5× (CI" in text


def test_a_variance_of_nothing_has_a_difference_and_no_factor():
    run = planted({"dd": 0.25})
    columns = {name: column.copy() for name, column in run.cells.columns.items()}
    columns["value"][(columns["model"] == "dd") & (columns["quantity"] == "variance")] = 0.0
    text = texts(replace(run, cells=replace(run.cells, columns=columns)))[1]
    assert text.startswith("The directional-derivative loss (dd) changes the variance by -")


def test_the_ceiling_is_told_and_never_taken():
    first = verdict(planted({"sobolev": 0.1, "dd": 1.5}))[0]
    assert not first.decided and first.text.startswith("Take none yet: ")
    assert "none even looks better." in first.text
    assert "The ceiling, a loss on the simulator's Jacobians, lowers it 10× (CI " in first.text


def test_what_is_not_shown_says_how_many_more_fits_would_tell():
    first, second = verdict(planted({"dd": 0.8}, noise=0.3))
    assert not first.decided and not second.decided
    assert "the directional-derivative loss looks best, " in first.text
    assert first.text.endswith(" more fits would decide.")
    assert "not shown to matter here; about " in second.text and " more fits would decide; " in (
        second.text
    )


def test_a_gain_that_longer_fitting_has_too_is_an_optimisers():
    run = planted({"dd": 0.25}, longer_fits={"dd": 0.25})
    text = texts(run)[1]
    assert "at equal steps the least error is 4× (CI " in text
    assert "lower, at equal time that is not shown: the gain is an optimiser's, 4× (CI " in text
    doubtful = planted({"dd": 0.25}, longer_fits={"dd": 0.25}, noise=0.05)
    assert "optimiser's" in texts(doubtful)[1]
    assert "optimiser's" not in texts(planted({"dd": 0.25}))[1]


def test_without_a_truth_nothing_is_taken_and_the_reason_is_given():
    first, second = verdict(planted({"dd": 0.5}, truth=False))
    assert not first.decided and not second.decided
    assert first.text.startswith("Undecided: no remedy's gradient error can be compared at equal")
    assert first.text.endswith(": λ = 0.9 outgrows 1/γ.")
    assert second.text == (
        "Undecided: the directional-derivative loss (dd) has no error to compare (5 fits)."
    )


def test_a_single_fit_speaks_of_its_starts():
    text = texts(planted({"dd": 0.5}, trials=1))[1]
    assert "(1 fit, N = 64 starts)" in text


def test_a_truth_that_is_not_what_it_should_be_is_said_once():
    sound, cut = (planted({"dd": 0.25}, status=each) for each in ("converged", "cut"))
    assert len(texts(cut)) == len(texts(sound)) + 1
    assert texts(cut)[-1] == (
        "The truth is cut in 5 of 5 trials; in the first of them: λ = 0.9 outgrows 1/γ."
    )
