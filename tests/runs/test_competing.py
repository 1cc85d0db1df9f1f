"""Which gradients compete for a recommendation: one rule for report, choice and probe."""

import numpy as np
import pytest

from gradlab.runs.competing import better_beyond
from gradlab.runs.identity import by_default, competing, needs_states
from gradlab.statistics.moments import sample_mean


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
