"""Usable lags of planted ratios, learners of planted speed, and their predicted throughput."""

from math import factorial

import numpy as np
import pandas as pd
import pytest

from analyses.asynchronous import ONE, TWO, judged
from analyses.contrast_parts import asked_of
from analyses.criteria import outcome
from analyses.staleness import usable, verdict
from benchmarks.asynchronous import Costs, predicted

COSTS = Costs(0.03, 0.001, 0.001, 0.0005, 0.0005, 0.001, 3e6)


def rows(ratios, spread=0.001, cosine=0.8):
    """Five seeds around each lag's ratio."""
    return pd.DataFrame(
        {"task": "t", "iteration": 500, "seed": seed, "lag": lag, "cosine": cosine,
         "bias2": 0.5 + lag / 100, "ratio": ratio + (spread * (seed - 2) if lag else 0)}
        for lag, ratio in ratios.items() for seed in range(5)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "spread", "sentence"),
    [
        ({0: 1, 4: 0.99, 8: 0.97, 16: 0.9}, 0.001, "Up to lag 8 .*iterations: 8, lost at 16"),
        ({0: 1, 4: 0.9, 8: 0.99}, 0.001, "Up to lag 0 .*iterations: 0, lost at 4"),
        ({0: 1, 4: 0.96, 8: 0.96}, 0.1, r"Up to lag 0 .*iterations: 0\)"),
    ],
)
def test_a_lag_is_usable_where_it_and_all_shorter_ones_are_shown_to_be(ratios, spread, sentence):
    assert pd.Series([judged_by(rows(ratios, spread)).sentence]).str.match(sentence).all()


@pytest.mark.parametrize(
    ("ratio", "spread", "word"),
    [(0.99, 0.001, "holds"), (0.9, 0.001, "refuted"), (0.96, 0.1, "undecided")],
)
def test_the_shortest_lag_decides(ratio, spread, word):
    found = judged_by(rows({0: 1, 4: ratio, 8: 0.5}, spread))
    parts = [part for row in found.table.to_dict("records") for part in asked_of(row)]
    assert outcome(parts) == word and found.holds == (word == "holds")


@pytest.mark.parametrize("seeds", [1, 5])
def test_a_world_without_a_direction_decides_nothing(seeds):
    few = rows({0: 1, 8: 0.99}, cosine=0.05 if seeds == 5 else 0.8)
    found = judged_by(few[few["seed"] < seeds])
    assert not found.holds and found.sentence.startswith("No world decides")
    assert found.table.empty and ("0.92 [0.92, 0.92] at lag 8" in found.sentence) == (seeds == 5)
    assert "t at 500 1.160 [" in found.sentence


def test_ends_of_intervals_decide_about_a_lag():
    world = pd.DataFrame(
        {"ratio low": [np.nan, 0.951, 0.949], "ratio high": [1, 1, 0.9495]}, index=[0, 1, 2]
    )
    assert usable(world) == (1, 2)


def judged_by(found):
    return verdict(found, fresh(found))


def fresh(found):
    """Of the same worlds and lags, stale gradients that have turned a little."""
    return found.drop(columns=["cosine", "ratio", "bias2"]).assign(turned=1 - found["lag"] / 100)


def rounds(two, machine):
    """Seven rounds of every arm, 10 updates per second alone."""
    rates = {ONE: 10, TWO: 10 * machine, "1 learner": 9, "2 learners": 9 * two, "4 learners": 12}
    return pd.DataFrame(
        {"round": k, "arm": arm, "rate": rate * (1 + 0.01 * (k % 2) * (arm == TWO)),
         "mean lag": 0.0, "lags": "1 3"}
        for k in range(7) for arm, rate in rates.items()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("two", "machine", "word"),
    [(1.9, 1.9, "holds"), (1.2, 1.9, "refuted"), (1.2, 1.1, "not tried")],
)
def test_two_learners_are_compared_with_one_where_the_machine_has_two_processors(
    two, machine, word
):
    found = judged(rounds(two, machine), COSTS)
    parts = [part for row in found.table.to_dict("records") for part in asked_of(row)]
    assert outcome(parts) == word
    assert "with 2 learners 0.8 on average, 95% at most 1" in found.sentence
    assert f"over 1 learner: {two:.2f}" in found.sentence


@pytest.mark.parametrize("learners", [1, 2, 5, 12, 40])
def test_predicted_throughput_is_that_of_the_machine_repair_model(learners):
    """M/M/1//L in closed form: X = (1 − p_0) / S, p_0⁻¹ = Σ_k L! / (L − k)! (S / Z)^k."""
    costs = COSTS
    ratio = costs.optimiser / costs.learner
    idle = sum(
        factorial(learners) / factorial(learners - k) * ratio**k for k in range(learners + 1)
    )
    assert predicted(costs, learners) == pytest.approx((1 - 1 / idle) / costs.optimiser)
