"""Which remedy to take: planted trials with known ratios."""

import re
from dataclasses import replace

import numpy as np

from gradlab.tools.remedies.page import screen, verdict
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
        "task": "planted", "horizon": H, "starts": 64, "batch": 256, "rows": 3000,
        "costs": {"dd": 2.0},
        "settings": {"hidden": [64, 64], "activation": "silu"},
    }  # fmt: skip
    notes = {"trials": [{"truth": {"status": status, "reason": "λ = 0.9 outgrows 1/γ"}}] * trials}
    return Remedies(cells, tuple(pairs), config, {}, notes)


def told(run):
    """Of the one remedy: whether it is decided, and its text."""
    found = verdict(run)[0]
    return found.decided, found.text


def test_the_remedy_of_the_least_error_is_taken_and_the_ceiling_is_not():
    found = screen(planted({"spectral": 0.5, "dd": 0.25, "multistep": 1.5}))
    assert found.light == "act" and found.headline.startswith("Take the directional-derivative")
    assert [fact.text for fact in found.numbers[:2]] == ["4×", "2×"]
    assert "the multi-step loss: worse" in found.headline
    found = screen(planted({"sobolev": 0.1, "dd": 1.5}))
    assert found.headline.startswith("Keep the plain fit") and found.sure == "none better"


def test_every_sentence_of_a_remedy_has_one_number():
    decided, text = told(planted({"dd": 0.25}, clipped=True))
    assert decided
    sentences = re.split(r"(?<=[.]) (?=[A-Z])", text)
    assert len(sentences) == 7
    for number, each in zip(("4×", "1–3", "4×", "2×", "0.25×", "2×", "2×"), sentences, strict=True):
        assert number in each and len(re.findall(r"[\d.]+×", each)) <= 1, each
    assert "away from clips" in text


def test_a_remedy_that_helps_far_and_harms_near_is_said_so():
    _, text = told(planted({"dd": lambda h: 0.2 if h > 1 else 1.5}))
    assert "better at h = 2–3." in text and "worse at h = 1." in text
    assert "raises the least error 1.5×" in text


def test_a_variance_of_nothing_has_a_difference_and_no_factor():
    run = planted({"dd": 0.25})
    columns = {name: column.copy() for name, column in run.cells.columns.items()}
    columns["value"][(columns["model"] == "dd") & (columns["quantity"] == "variance")] = 0.0
    _, text = told(replace(run, cells=replace(run.cells, columns=columns)))
    assert "changes the variance by -" in text


def test_what_is_not_shown_says_how_many_more_fits_would_tell():
    run = planted({"dd": 0.8}, noise=0.3)
    decided, text = told(run)
    assert not decided and "more fits would decide." in text
    found = screen(run)
    assert found.light == "choose" and found.sure.endswith("more fits would decide")


def test_a_gain_that_two_digits_call_one_time_is_a_percentage():
    for noise, light, words in ((0.03, "choose", "best guess"), (0.01, "act", "Take")):
        found = screen(planted({"dd": 0.98}, noise=noise))
        assert found.light == light and words in found.headline
        assert re.search(r"lowers the (gradient's )?error by [\d.]+%", found.headline)


def test_a_gain_that_longer_fitting_has_too_is_an_optimisers():
    for noise in (0.01, 0.05):
        _, text = told(planted({"dd": 0.25}, longer_fits={"dd": 0.25}, noise=noise))
        assert "optimiser's" in text
    assert "optimiser's" not in told(planted({"dd": 0.25}))[1]


def test_without_a_truth_nothing_is_taken_and_the_reason_is_given():
    run = planted({"dd": 0.5}, truth=False)
    found = screen(run)
    assert found.light == "none" and found.sure.endswith("λ = 0.9 outgrows 1/γ")
    assert not told(run)[0]
    assert found.figure is None  # its first one is of variances


def test_a_truth_that_is_not_what_it_should_be_is_said_once():
    sound, cut = (verdict(planted({"dd": 0.25}, status=each)) for each in ("converged", "cut"))
    assert len(cut) == len(sound) + 1 and "cut in 5 of 5 trials" in cut[-1].text
    assert "N = 64 starts" in told(planted({"dd": 0.5}, trials=1))[1]


def test_the_starts_of_one_fit_have_their_thousands_apart():
    run = planted({"dd": 0.5}, trials=1)
    many = replace(run, config=run.config | {"starts": 12000})
    assert any("N = 12,000 starts" in each.text for each in verdict(many))
