"""Sentences about measured weights and about a series of checkpoints."""

from dataclasses import replace

import numpy as np

from gradlab.choice import Choice, Contender, Mixing
from gradlab.statistics.intervals import Interval
from gradlab.statistics.mixing import Weights
from gradlab.verdicts.measurement.sources import weights


def contender(name, mse, saved=None, against=(0.5, 0.7)):
    ends = Interval(0.9 * mse, 1.1 * mse, mse / 20, "planted")
    logs = None if against is None else Interval(*np.log(against), 0.1, "planted")
    kept = None if saved is None else Interval(*np.log(saved), 0.1, "planted")
    return Contender(name, np.array([0.3, 0.7]), mse, ends, 0.9, ends, logs, ends, kept)


def choice(*contenders):
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
