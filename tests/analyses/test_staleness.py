"""Usable lags of planted ratios, and the predicted throughput of learners."""

from math import factorial

import numpy as np
import pandas as pd
import pytest

from analyses.staleness import usable, verdict
from benchmarks.asynchronous import Costs, predicted


def rows(ratios, spread=0.001, cosine=0.8):
    """Five seeds around each lag's ratio."""
    return pd.DataFrame(
        {"task": "t", "iteration": 500, "seed": seed, "lag": lag, "cosine": cosine,
         "ratio": ratio + (spread * (seed - 2) if lag else 0)}
        for lag, ratio in ratios.items() for seed in range(5)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ratios", "spread", "sentence"),
    [
        ({0: 1, 4: 0.99, 8: 0.97, 16: 0.9}, 0.001, "Up to lag 8 .*500: 8, lost at 16"),
        ({0: 1, 4: 0.9, 8: 0.99}, 0.001, "Up to lag 0 .*500: 0, lost at 4"),
        ({0: 1, 4: 0.96, 8: 0.96}, 0.1, r"Up to lag 0 .*500: 0\)"),
    ],
)
def test_a_lag_is_usable_where_it_and_all_shorter_ones_are_shown_to_be(ratios, spread, sentence):
    assert pd.Series([verdict(rows(ratios, spread)).sentence]).str.match(sentence).all()


def test_a_world_without_a_direction_decides_nothing():
    found = verdict(rows({0: 1, 4: 0.99}, cosine=0.05))
    assert not found.holds and found.sentence.startswith("No world decides")


def test_ends_of_intervals_decide_about_a_lag():
    world = pd.DataFrame({"low": [np.nan, 0.951, 0.949], "high": [1, 1, 0.9495]}, index=[0, 1, 2])
    assert usable(world) == (1, 2)


@pytest.mark.parametrize("learners", [1, 2, 5, 12, 40])
def test_predicted_throughput_is_that_of_the_machine_repair_model(learners):
    """M/M/1//L in closed form: X = (1 − p_0) / S, p_0⁻¹ = Σ_k L! / (L − k)! (S / Z)^k."""
    costs = Costs(0.03, 0.001, 0.001, 0.0005, 0.0005, 0.001, 3e6)
    ratio = costs.optimiser / costs.learner
    idle = sum(
        factorial(learners) / factorial(learners - k) * ratio**k for k in range(learners + 1)
    )
    assert predicted(costs, learners) == pytest.approx((1 - 1 / idle) / costs.optimiser)
