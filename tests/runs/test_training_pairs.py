"""Two runs with the same seeds: what is paired over them, against numbers made by hand."""

from dataclasses import replace
from math import exp, sqrt

import numpy as np
import pytest
from scipy import stats

from gradlab.runs.training.pairs import ERRORS, pairs, table
from gradlab.runs.training.results import Training
from gradlab.verdicts.training import paired_verdict, screen

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
        config={}, environment={}, attributes={}, seeds=np.array(seeds), iteration=ITERATION,
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
    assert "paired over 3 seeds of 4, the others diverged" in told.text
    assert pairs(first, run([1.0, 2.0, 3.0, 4.0], seeds=(2, 3, 4, 5))) == []


def test_the_verdict_speaks_of_return_and_of_the_gradient():
    first, errors = np.array([-9.0, -5.0, -7.0, -2.0]), np.full((3, 4), 2.0)
    better = run(first + np.array([3.0, 3.1, 2.9, 3.0]), errors * 0.4)
    (told,) = paired_verdict({"nll": run(first, errors), "dd": better})
    assert told.decided and told.text.startswith(
        "dd against nll, paired over 4 seeds: final return"
    )
    assert "+3 [2.9–3.1]" in told.text and "relative gradient MSE 0.4× [0.4]" in told.text
    assert "the return is better, the gradient is better, the model's part is better" in told.text
    (same,) = paired_verdict({"nll": run(first), "dd": run(first[::-1].copy())})
    assert not same.decided and "the return is not shown to change." in same.text


def test_every_run_is_compared_with_the_first():
    runs = {name: run(np.arange(4.0) + k) for k, name in enumerate(("nll", "dd", "two"))}
    found = table(runs)
    finals = found[found["quantity"] == "final return"]
    assert finals["run"].tolist() == ["dd", "two"] and finals["change"].tolist() == [1.0, 2.0]
    assert set(found["against"]) == {"nll"}
    assert len(table({"nll": run(np.arange(4.0))})) == 0


def test_a_run_of_one_seed_from_a_given_policy_says_first_what_its_return_did():
    one = run([-4.0], seeds=(0,))
    one = replace(
        one, returns=np.array([[-5.0], [-4.5], [-4.0]]), errors=np.full((3, 1), 0.1),
        config={"settings": SETTINGS, "task": "cart"}, seconds=np.ones(3),
    )  # fmt: skip
    given = replace(one, config=one.config | {"given_networks": {"policy": "its hash"}})
    said, usual = (screen({"svg": each}).headline for each in (given, one))
    assert said.startswith("Svg ends higher on cart, return -5 → -4 (CI -4.2 to -3.8) on the ")
    assert "Run 4 more seeds: with 1 the rise is not shown." in said
    assert usual.startswith("Run 4 more seeds")
