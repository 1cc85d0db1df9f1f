"""RULE-W against weights by hand, and a rule that is off by little."""

import math

import pytest

from analyses.horizons import rule_w


@pytest.fixture(scope="module")
def small():
    return rule_w.measure(small=True)


def test_the_rule_of_training_is_the_printed_one(small):
    assert small.holds
    assert max(v for k, v in small.numbers.items() if k.startswith("largest_gap")) < 1e-12


@pytest.mark.parametrize(("iteration", "base"), [(0, 0.9), (1500, 0.9 + 1 / 30), (4500, 1.0)])
def test_decimals_agree_with_the_formula_by_hand(iteration, base):
    model, data = math.exp(1 / base**25 - 1 / base**25), math.exp(1 - 1 / base**25)
    by_hand = model / (model + data)
    assert rule_w.model_weight(iteration, 9000) == pytest.approx(by_hand, abs=1e-14)
    assert rule_w.model_weight(9000 - iteration, 9000) == pytest.approx(1 - by_hand, abs=1e-14)


def test_the_base_of_a_weight_gives_that_weight():
    at = rule_w.iteration_of(rule_w.base_of(0.99), 9000)
    assert at == pytest.approx(1504.918, abs=1e-3)
    assert rule_w.model_weight(round(at), 9000) == pytest.approx(0.99, abs=1e-5)


def test_weights_that_are_off_by_little_do_not_pass(small):
    table = small.table.assign(mpg=small.table["mpg"] + 2e-6)
    assert not rule_w.judge(table).holds


def test_mpg_j_with_another_length_is_another_rule(small):
    table = small.table.assign(mpg_journal=small.table["mpg_journal"].to_numpy()[::-1])
    assert not rule_w.judge(table).holds
