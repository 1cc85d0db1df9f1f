"""Which gradients compete for a recommendation: one rule for report, choice and probe.

Usable horizons of planted profiles whose mean squared errors and cosines are known.
"""

from __future__ import annotations

import numpy as np
import pytest

from gradlab.choice.best import better_beyond
from gradlab.runs.decision_rules import (
    UsableHorizons,
    in_ranges,
    least_error_at,
    usable_horizons,
    usable_prefix,
)
from gradlab.runs.identity import by_default, competing, needs_states
from gradlab.statistics.moments import sample_mean
from tests.verdicts.planted_profiles import H, planted, u_shape


@pytest.mark.parametrize(
    ("measured", "those"),
    [
        (("data", "model", "mixed", "true_dynamics"), ("data", "model")),
        (("data", "mine", "mixed_all"), ("data", "mine")),
        (("data", "mixed", "true_dynamics"), ("data", "mixed")),
        (("data", "true_dynamics_score"), ("data", "true_dynamics_score")),
        (("data", "true_dynamics_all"), ("data", "true_dynamics_all")),
        (("data", "true_dynamics_score", "true_dynamics_all"),) * 2,
        (("data",), ("data",)),
    ],
)
def test_those_compete_that_need_least_of_the_simulator(measured, those):
    assert competing(by_default(measured)) == those


def test_the_simulators_own_gradients_are_never_the_better_ones_beside():
    measured = ("data", "model", "mixed", "true_dynamics_score", "true_dynamics")
    assert needs_states(by_default(measured)) == ("mixed", "true_dynamics_score")
    assert needs_states(by_default(("data", "mixed"))) == ()


def test_the_critic_alone_is_never_the_better_one_beside():
    """At h = 0 a gradient has no states of the simulator, whatever its name."""
    noise, one = np.linspace(-0.01, 0.01, 40), np.ones(40)
    gains = {("model", 5): 0.3, ("mixed", 0): 0.9, ("mixed", 4): 0.7}
    at = {cell: sample_mean(value + noise, one) for cell, value in gains.items()}
    assert better_beyond(("model", 5), [("mixed", 0), ("mixed", 4)], at.get) == ("mixed", 4)
    assert better_beyond(("model", 5), [("mixed", 0)], at.get) is None


def test_what_lowers_the_return_is_never_the_better_one_beside():
    """Of −50% and −5% the second is shown to be larger, and raises nothing."""
    noise, one = np.linspace(-0.001, 0.001, 40), np.ones(40)
    for beyond, named in ((-0.05, False), (0.05, True)):
        gains = {("model", 5): -0.5, ("mixed", 4): beyond}
        at = {cell: sample_mean(value + noise, one) for cell, value in gains.items()}
        found = better_beyond(("model", 5), [("mixed", 4)], at.get)
        assert found == (("mixed", 4) if named else None)


REPETITIONS, NOISE = 30, 0.05


def ranges_of(profile) -> UsableHorizons:
    return usable_horizons(profile, "model")


def test_ranges_are_the_runs_of_the_measured_grid_without_horizon_0():
    over = [0, 1, 2, 5, 10, 25]
    sure = [True, True, False, True, True, False]
    possible = [True, True, True, True, True, True]
    found = in_ranges(over, sure, possible)
    assert found.measured == (1, 2, 5, 10, 25)
    assert found.usable == ((1, 1), (5, 10))
    assert found.undecided == ((2, 2), (25, 25))
    none = in_ranges(over, [False] * 6, [False] * 6)
    assert none.usable == none.undecided == ()
    assert none.decided and not in_ranges(over, [False] * 6, possible).decided


def test_a_range_may_begin_beyond_the_first_horizon_and_the_prefix_is_none_then():
    profile = planted(lambda n: 1.0, lambda n: 0.97 if n >= 8 else 0.2)
    assert ranges_of(profile).usable == ((8, H),)
    assert ranges_of(profile).undecided == ()
    assert usable_prefix(profile, "model") == 0
    early = planted(lambda n: 1.0, lambda n: 0.9 if n <= 7 else 0.5)
    assert ranges_of(early).usable == ((1, 7),)
    assert usable_prefix(early, "model") == 7


def test_errors_of_more_than_twice_the_least_are_not_usable_on_either_side():
    # 1 + 0.075 (n − 5)² ≤ 2 for |n − 5| ≤ 3.65
    profile = planted(u_shape, lambda n: 0.9)
    assert ranges_of(profile).usable == ((2, 8),)
    assert usable_prefix(profile, "model") == 0
    assert least_error_at(profile, "model") == 5


@pytest.mark.parametrize("threshold", ["cosine", "error"])
def test_a_horizon_on_the_threshold_is_decided_in_one_of_twenty(threshold):
    """Estimates drawn around .7, or around twice the least error: both ends err by 2.5%."""
    rng = np.random.default_rng(1)
    usable = undecided = 0
    for _ in range(REPETITIONS):
        off = 1 + NOISE * rng.normal(size=H + 1)
        at = {"cosine": (1.0, 0.7), "error": (2.0, 0.95)}[threshold]
        error = [(1.0 if n == 0 else at[0]) * (off[n] if at[0] > 1 else 1.0) for n in range(H + 1)]
        cosine = [at[1] * (off[n] if at[0] == 1 else 1.0) for n in range(H + 1)]
        noise = 2 * NOISE if threshold == "cosine" else NOISE  # `planted` halves a cosine's
        found = ranges_of(planted(error.__getitem__, cosine.__getitem__, noise=noise))
        usable += sum(high - low + 1 for low, high in found.usable)
        undecided += sum(high - low + 1 for low, high in found.undecided)
    cells = REPETITIONS * H
    assert usable <= 0.05 * cells  # 2.5% and two standard errors of what correlates within a draw
    assert undecided >= 0.9 * cells
