"""What measured weights did, read back: ratios, switches and sentences from a planted record.

Two runs with the same seeds: what is paired over them, against numbers made by hand.
"""

from dataclasses import replace
from math import exp, sqrt
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import stats

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
from gradlab.runs.training.pairs import ERRORS, pairs
from gradlab.runs.training.pairs import table as pair_table
from gradlab.runs.training.results import Training
from gradlab.storage.records import Record
from gradlab.verdicts.training import measured, paired_verdict, screen

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
    config = {"algorithm": {"weights": {"follow": follow, "by": "mse"}}}
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


def test_measured_weights_stand_beside_the_rules_with_what_they_are_worth():
    weight, error = measured(planted(), "mpg-v2")
    assert (weight.value, weight.threshold, weight.at) == (0.2, 0.1, "h = 25, iteration 400")
    assert (error.code, error.decision, error.n) == ("training weights by error", "pass", 3)
    assert (error.value, error.low, error.high) == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize(("gain", "decision"), [(0.4, "pass"), (-0.1, "fail")])
def test_weights_by_gain_are_judged_by_gains(gain, decision):
    run = planted(gain=gain)
    assert [each.tolist() for each in gains_over_rule(run)] == [
        [], [gain], [gain, gain], [gain, gain],
    ]  # fmt: skip
    _, found = measured(run, "mpg-v2")
    assert (found.code, found.decision) == ("training weights by gain", decision)
    assert found.value == pytest.approx(gain)
    rows = table(run)
    assert rows[rows["quantity"] == "gain over rule"]["value"].max() == max(gain, 0.0)


def test_nothing_is_claimed_where_the_rule_was_followed():
    _, found = measured(planted(seeds=1), "mpg-v2")
    assert (found.code, found.decision) == ("training weights unknown", "undecided")
    assert not list(measured(SimpleNamespace(weights={}), "mpg-v2"))


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
    seeds = [each for each in axes[1].lines if len(each.get_xdata()) > 2]
    assert len(seeds) > 1 and axes[1].get_yscale() == "log"
    plt.close(fig)


SETTINGS = {
    "evaluation_starts": 50, "episode": 200, "at_end": "restart", "termination": "ignore",
    "reward_scale": 1.0,
}  # fmt: skip
ITERATION = np.array([0, 100, 300])


def run(returns, errors=None, seeds=(0, 1, 2, 3)):
    """A run of 4 seeds whose curve is level at its final return; errors [G, E] at horizon 5."""
    final = np.asarray(returns, dtype=float)
    gradients = {}
    if errors is not None:
        errors = np.asarray(errors, dtype=float)
        both = np.stack([np.full_like(errors, 7.0), errors], axis=2)
        names = ERRORS
        gradients = dict.fromkeys(names, both)
        gradients |= {"iteration": np.arange(len(errors)), "horizon": np.array([0, 5])}
    nothing = np.zeros((3, len(final)))
    return Training(
        config={}, environment={}, stored=Record({}, {}), seeds=np.array(seeds),
        iteration=ITERATION,
        seconds=np.zeros(3), returns=np.stack([final, final, final]), errors=nothing,
        ends=nothing, rms=np.zeros((3, len(final), 1)), updates={}, horizons=(0, 5), events=(),
        model={}, gradients=gradients,
    )  # fmt: skip


def by_name(first, second):
    return {pair.quantity: pair for pair in pairs(first, second)}


def test_returns_are_differences_over_seeds():
    first, gain = np.array([-9.0, -5.0, -7.0, -2.0]), np.array([1.0, 2.0, 3.0, 4.0])
    found = by_name(run(first), run(first + gain))["final return"]
    assert found.change == pytest.approx(2.5) and found.seeds == 4
    assert (found.first, found.second) == pytest.approx((-5.75, -3.25))
    reach = stats.t.ppf(0.975, 3) * gain.std(ddof=1) / sqrt(4)  # no skewness in 1, 2, 3, 4
    assert (found.low, found.high) == pytest.approx((2.5 - reach, 2.5 + reach))
    assert found.side == 1
    for part, side in ((gain - 2, 0), (-gain, -1)):
        assert by_name(run(first), run(first + part))["final return"].side == side


def test_the_area_under_the_curve_weighs_iterations():
    base, other = run(np.zeros(4)), run(np.zeros(4))
    rising = replace(other, returns=np.stack([np.zeros(4), np.ones(4), np.ones(4)]))
    found = by_name(base, rising)["mean return over the run"]
    assert found.change == pytest.approx((100 * 0.5 + 200 * 1.0) / 300)


def test_errors_are_ratios_of_geometric_means_at_the_longest_horizon():
    generator = np.random.default_rng(0)
    first = np.exp(generator.normal(size=(5, 4)))
    change = generator.normal(size=(5, 4))
    found = by_name(run(np.zeros(4), first), run(np.zeros(4), first * np.exp(change)))
    ratio = found["relative_mse"]
    assert ratio.change == pytest.approx(exp(change.mean())) and ratio.measurements == 5
    per_seed = change.mean(axis=0)
    se = per_seed.std(ddof=1) / 2
    # The interval is Student's, up to the skewness of four numbers.
    assert np.log(ratio.high / ratio.low) == pytest.approx(2 * stats.t.ppf(0.975, 3) * se, rel=0.4)


def test_measurements_that_are_not_known_in_both_are_left_out_of_both():
    first, second = np.full((3, 4), 2.0), np.full((3, 4), 1.0)
    first[0, 1], second[1, 2], first[2, 3] = np.nan, np.nan, -4.0
    first[1, 0] = 8.0
    found = by_name(run(np.zeros(4), first), run(np.zeros(4), second))["mse"]
    per_seed = [np.log(32) / 3, np.log(2), np.log(2), np.log(2)]
    assert found.change == pytest.approx(exp(-np.mean(per_seed)))
    assert found.measurements == pytest.approx(9 / 4)


def test_seeds_are_matched_by_their_number_and_lost_ones_left_out():
    first = run([1.0, 2.0, 3.0, 4.0])
    second = run([14.0, 13.0, 12.0, 11.0], seeds=(3, 2, 1, 0))
    found = by_name(first, second)["final return"]
    assert found.change == 10 and found.low == pytest.approx(10)
    lost = run([np.nan, 13.0, 12.0, 11.0], seeds=(3, 2, 1, 0))
    assert by_name(first, lost)["final return"].seeds == 3
    (told,) = paired_verdict({"a": first, "b": lost})
    assert told.n == 3
    assert pairs(first, run([1.0, 2.0, 3.0, 4.0], seeds=(2, 3, 4, 5))) == []


def test_return_gradient_and_model_are_paired():
    first, errors = np.array([-9.0, -5.0, -7.0, -2.0]), np.full((3, 4), 2.0)
    better = run(first + np.array([3.0, 3.1, 2.9, 3.0]), errors * 0.4)
    found = paired_verdict({"nll": run(first, errors), "dd": better})
    assert [each.code.split()[-1] for each in found] == ["returns", "gradients", "models"]
    assert [each.value for each in found] == pytest.approx([3, 0.4, 0.4])
    assert {(each.subject, each.at, each.n, each.decision) for each in found} == {
        ("dd", "nll", 4, "pass")
    }
    (same,) = paired_verdict({"nll": run(first), "dd": run(first[::-1].copy())})
    assert same.decision == "undecided"


def test_every_run_is_compared_with_the_first():
    runs = {name: run(np.arange(4.0) + k) for k, name in enumerate(("nll", "dd", "two"))}
    found = pair_table(runs)
    finals = found[found["quantity"] == "final return"]
    assert finals["run"].tolist() == ["dd", "two"] and finals["change"].tolist() == [1.0, 2.0]
    assert set(found["against"]) == {"nll"}
    assert len(pair_table({"nll": run(np.arange(4.0))})) == 0


def test_a_run_of_one_seed_from_a_given_policy_says_first_what_its_return_did():
    one = run([-4.0], seeds=(0,))
    one = replace(
        one, returns=np.array([[-5.0], [-4.5], [-4.0]]), errors=np.full((3, 1), 0.1),
        config={"settings": SETTINGS, "task": "cart"}, seconds=np.ones(3),
    )  # fmt: skip
    given = replace(one, config=one.config | {"given_networks": {"policy": "its hash"}})
    said, usual = (screen({"svg": each}) for each in (given, one))
    assert said.field("change") == "-5 → -4 (CI -4.2 to -3.8)"
    assert usual.field("change") == "-5 → -4"
    for each in (said, usual):
        assert each.light == "choose" and each.field("next") == "run 5 seeds in all"
        assert each.field("learned").startswith("not shown: 1 of 1 seeds end above the start")
