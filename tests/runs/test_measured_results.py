"""What measured weights did, read back: ratios, switches and sentences from a planted record."""

import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from gradlab import figures
from gradlab.runs.training.measured_weights import (
    KEPT,
    NO_TRUTH,
    SWITCHED,
    gains_over_rule,
    interval_of_mean,
    logs_over_rule,
    table,
)
from gradlab.verdicts.training import measured

AT = np.array([100, 200, 300, 400])
RULE = np.array([[0.1, 0.9], [0.4, 0.6], [0.6, 0.4], [0.9, 0.1]])
OWN = np.array([0.8, 0.2])


def planted(seeds=4, follow="weights", gain=None):
    """Seed 0 follows the rule throughout; the others switch at 200, where they halve the MSE."""
    force = np.repeat(RULE[:, None], seeds, axis=1)
    outcome = np.full((4, seeds), float(KEPT))
    over = np.ones((4, seeds))
    if seeds > 1:
        force[1:, 1:], outcome[1, 1:], over[2:, 1:] = OWN, SWITCHED, 0.5
        outcome[3, 1] = NO_TRUTH
        over[3, 1] = np.nan
    weights = {
        "iteration": AT, "rule": RULE, "in_force": force, "measured": force, "outcome": outcome,
        "over_rule": over, "over_rule_low": 0.8 * over, "over_rule_high": 1.2 * over,
        "starts": np.full(4, 64), "share": np.full(4, 0.07), "horizon": np.array([0, 25]),
    }  # fmt: skip
    config = {"algorithm": {"weights": {"follow": follow}}}
    if gain is not None:
        config["algorithm"]["weights"]["by"] = "gain"
        over = np.where(over == 1, 0.0, gain) + np.where(np.isnan(over), np.nan, 0.0)
        weights |= {f"gain_over_rule{end}": over for end in ("", "_low", "_high")}
    return SimpleNamespace(
        weights=weights, seeds=np.arange(seeds), horizons=(0, 25), config=config, updates={}
    )


def test_only_weights_other_than_the_rules_are_judged():
    logs = logs_over_rule(planted())
    assert [len(each) for each in logs] == [0, 1, 2, 2]
    assert np.exp(np.concatenate(logs)) == pytest.approx(0.5)


def test_the_sentence_says_what_is_followed_what_it_is_worth_and_what_it_costs():
    (weights,) = measured(planted(), "mpg-v2")
    assert "measured weights at iteration 400: w_0 = 0.8 (rule: 0.9)" in weights.text
    assert "0.5× that of the rule's weights (95% interval 0.5 over 3 seeds" in weights.text
    assert "3 of 16 measurements put others in force (1 had no true gradient)" in weights.text
    assert "measuring took 7% of the time" in weights.text and "N = 64 starts" in weights.text
    assert weights.decided


@pytest.mark.parametrize(
    ("gain", "told"), [(0.4, r"\+40% of the best"), (-0.1, "-10% of the best")]
)
def test_weights_by_gain_are_judged_by_gains(gain, told):
    run = planted(gain=gain)
    assert [each.tolist() for each in gains_over_rule(run)] == [
        [], [gain], [gain, gain], [gain, gain],
    ]  # fmt: skip
    sentence = measured(run, "mpg-v2")[0]
    assert re.search(told, sentence.text) and "MSE" not in sentence.text and sentence.decided
    rows = table(run)
    assert rows[rows["quantity"] == "gain over rule"]["value"].max() == max(gain, 0.0)


def test_nothing_is_claimed_where_the_rule_was_followed():
    (weights,) = measured(planted(seeds=1), "mpg-v2")
    assert not weights.decided and "not known yet" in weights.text
    assert measured(SimpleNamespace(weights={}), "mpg-v2") == []


def test_the_interval_is_that_of_students_t_without_skewness():
    values = np.array([-1.0, -0.5, 0.5, 1.0])
    low, high = interval_of_mean(values)
    reach = 3.182446 * values.std(ddof=1) / 2
    assert (low, high) == pytest.approx((-reach, reach), rel=1e-4)


def test_the_table_has_every_weight_beside_the_rules():
    found = table(planted())
    own = found[(found["quantity"] == "in force") & (found["horizon"] == 25) & (found["seed"] == 2)]
    assert own["value"].tolist() == pytest.approx([0.9, 0.2, 0.2, 0.2])
    assert found[found["quantity"] == "switched"]["value"].sum() == 3


def test_two_horizons_are_one_curve_and_the_rules():
    fig, axes = plt.subplots(1, 2)
    figures.weights_against_rule(table(planted()), axes[0])
    figures.error_over_rule(table(planted()), axes[1])
    labels = [text.get_text() for text in axes[0].get_legend().get_texts()]
    assert labels == ["h = 25, measured", "h = 25, rule"]
    drawn = next(line for line in axes[0].lines if line.get_label() == labels[0])
    assert drawn.get_ydata() == pytest.approx([0.9, 0.2, 0.2, 0.2])
    low, high = axes[1].get_ylim()
    assert low * high == pytest.approx(1) and 0.3 < low < 0.5
    plt.close(fig)
