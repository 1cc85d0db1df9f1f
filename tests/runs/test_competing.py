"""Which gradients compete for a recommendation: one rule for report, choice and probe."""

import pytest

from gradlab.runs.identity import by_default, competing, needs_states


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
