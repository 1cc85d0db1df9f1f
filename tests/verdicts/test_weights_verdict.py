"""Sentences about measured weights and about a series of checkpoints."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradlab.choice import Choice, Contender, Mixing
from gradlab.statistics.intervals import Interval
from gradlab.statistics.mixing import Weights
from gradlab.verdicts.measurement.verdict import through_training
from gradlab.verdicts.measurement.weights import weights
from tests.verdicts.planted_profiles import H, planted


def contender(name: str, mse: float, saved=None, against=(0.5, 0.7)) -> Contender:
    ends = Interval(0.9 * mse, 1.1 * mse, mse / 20, "planted")
    logs = None if against is None else Interval(*np.log(against), 0.1, "planted")
    kept = None if saved is None else Interval(*np.log(saved), 0.1, "planted")
    return Contender(name, np.array([0.3, 0.7]), mse, ends, 0.9, ends, logs, ends, kept)


def choice(*contenders: Contender) -> Choice:
    w = Weights(np.array([0.31, 0.69]), np.array([0.2, 0.6]), np.array([0.4, 0.8]), 1.0, 1.0, 1.0)
    pair = Mixing((("data", 0), ("model", 5)), w, w, contenders, 128)
    return Choice(("data", "model"), {}, 256, 256, True, pair=pair)


def test_measured_weights_are_judged_against_the_rule_and_the_best_scaled_one():
    rule = contender("MPG rule, iteration 0 of 9000", 2.0, saved=(0.3, 0.6))
    (sentence,) = weights(choice(contender("mse", 0.84), rule))
    assert sentence.decided
    assert "w_0 = 0.31 (CI 0.2–0.4), w_5 = 0.69 (CI 0.6–0.8)" in sentence.text
    assert "their MSE is 0.42× (CI 0.3–0.6) that of the MPG rule, iteration 0" in sentence.text
    assert "and 0.5–0.7× (95% CI) that of the best scaled single" in sentence.text


def test_weights_that_gain_nothing_are_undecided():
    rule = contender("MPG rule, iteration 0 of 9000", 0.9, saved=(0.8, 1.2))
    (sentence,) = weights(choice(contender("mse", 0.84, against=(0.9, 1.1)), rule))
    assert not sentence.decided
    assert sentence.text.startswith("Undecided whether they help. Measured optimal weights")


def test_weights_lost_in_noise_and_no_pair_have_their_own_words():
    (sentence,) = weights(choice(contender("mse", 0.84, against=None)))
    assert sentence.text.endswith("their error is not distinguishable from zero.")
    assert weights(None) == []
    assert weights(replace(choice(), pair=None)) == []


# Form 4, a series --------------------------------------------------------------------------------


def series(**errors: float):
    """Checkpoints at which the data's error is given; the model's is 1."""
    return {int(k[1:]): planted(lambda n: 1.0, lambda n: 0.9, data=d) for k, d in errors.items()}


def test_the_crossing_is_where_the_order_reverses_and_the_rule_is_judged_by_it():
    found = series(_3000=3.2, _5000=2.0, _5500=0.5, _9000=0.2)
    early = {0: 0.1, 4500: 0.6, 9000: 0.9}
    text = through_training(found, early).text
    model = f"the model gradient at h = {H}"
    assert text.startswith(f"At iteration 3000 {model} is 3.2× more accurate than the data")
    assert "the order reversed between iterations 5000 and 5500" in text
    assert "The rule schedule switches at 4500: too early by 500–1000." in text
    late = through_training(found, {0: 0.1, 5250: 0.2, 6000: 0.7}).text
    assert "too late by 500–1000" in late
    assert "switches at 5200, as measured" in through_training(found, {0: 0.1, 5200: 0.7}).text


def test_a_series_is_about_the_two_gradients_that_a_rule_weighs():
    good_inside = planted(lambda n: 4.0 if n == H else 0.1, lambda n: 0.9, data=2.0)
    text = through_training({0: good_inside, 1: good_inside}).text
    assert text.startswith("At iteration 0 the data gradient is 2× more accurate than the model")


def test_undecided_checkpoints_widen_the_crossing():
    found = series(_1000=3.0, _2000=1.0, _3000=0.3)
    assert "between iterations 1000 and 3000" in through_training(found).text


def test_no_crossing_a_return_and_a_rule_on_the_wrong_side_are_said():
    ahead = through_training(series(_1000=3.0, _2000=2.0), {0: 0.1, 1500: 0.8})
    assert f"the model gradient at h = {H} stays ahead up to iteration 2000" in ahead.text
    assert "switches at 1500: without a reason" in ahead.text
    back = through_training(series(_1=3.0, _2=0.3, _3=3.0), {0: 0.9, 3: 0.9}).text
    assert "reversed between iterations 1 and 2; and back between 2 and 3" in back
    assert "begins with the data gradient, the less accurate one here" in back
    tie = through_training(series(_1=1.001, _2=1.001))
    assert not tie.decided and tie.text.startswith("Undecided at every checkpoint")
