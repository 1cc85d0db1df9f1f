"""Law, truth and starts of a measurement: defaults, and what contradicts."""

import pytest
import torch

import gradlab
from gradlab.errors import InputError
from gradlab.gradients.start_laws import initial
from gradlab.measurement.arguments import resolved
from gradlab.truth.lqr import ExactCritic
from tests.measurement.turned import feedback

TENSOR = torch.zeros(8, 2, dtype=torch.float64)


@pytest.mark.parametrize(
    ("starts", "law", "truth", "expected"),
    [
        (64, None, None, ("visited", "objective")),
        (64, "start", None, ("start", "matched")),
        (64, None, "matched", ("visited", "matched")),
        (TENSOR, None, None, ("start", "matched")),
        (TENSOR, "visited", None, ("visited", "objective")),
        (TENSOR, None, "objective", ("visited", "objective")),
        (TENSOR, "start", None, ("start", "matched")),
    ],
)
def test_defaults_follow_from_what_is_given(starts, law, truth, expected):
    assert resolved(starts, law, truth) == expected


@pytest.mark.parametrize(
    ("starts", "law", "truth", "message"),
    [
        (64, "visits", None, "law is 'visits'"),
        (64, None, "return", "truth is 'return'"),
        (64, "start", "objective", "leave law out"),
        (TENSOR, "visited", "matched", "starts is a tensor"),
    ],
)
def test_contradictions_are_refused_with_the_way_out(starts, law, truth, message):
    with pytest.raises(InputError, match=message):
        resolved(starts, law, truth)


def test_a_path_is_a_law_of_its_own():
    task = gradlab.tasks.double_integrator()
    with pytest.raises(InputError, match="starts is a Path"):
        resolved(initial(task, 8), "visited", None)


def test_a_gain_is_within_its_range_and_its_interval_and_what_was_used_is_recorded():
    A, B = [[0.9, 0.2], [0.0, 0.8]], [[0.0], [0.5]]
    task = gradlab.tasks.linear_quadratic(A, B, start_mean=[1.0, 1.0], discount=0.9)
    policy = feedback(torch.tensor([[-0.1, -0.2]], dtype=torch.float64))
    critic = ExactCritic(task.simulator, policy.weight.data, 0.9)
    profile = gradlab.measure(task, policy, critic, horizon=3, starts=8, judges=4)
    gains = profile.table().query("quantity == 'gain'")
    assert len(gains) and gains["value"].between(-1, 1).all()
    assert gains["value"].between(gains["ci_low"], gains["ci_high"]).all()
    config = profile.config
    assert (config["starts"], config["starts_used"], config["visits"]) == (8, 8, 8)
