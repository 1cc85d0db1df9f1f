"""Under the gradient of the return, causes are found at visited states."""

import numpy as np
import torch
from torch import nn

import gradlab
from gradlab.data.noise import stream
from gradlab.data.trajectories import Path
from gradlab.gradients.setting import Setting, as_starts
from gradlab.gradients.start_laws import visits
from gradlab.tasks import linear_quadratic
from gradlab.truth.lqr import ExactCritic

GAMMA, H, N = 0.8, 3, 40
A, B = [[0.9, 0.1], [0.0, 0.8]], [[0.0], [0.5]]
WEIGHT = torch.tensor([[-0.3, -0.6]], dtype=torch.float64)


def path_of(starts):
    n, new = len(starts.states), starts.states.new_empty
    return Path(
        starts.states[None], new(1, n, 0), new(0, n), new(1, n, 0), new(0, n, 0),
        torch.ones(1, n, dtype=torch.bool), starts.weight, starts.group,
    )  # fmt: skip


def test_causes_at_visited_states_are_those_of_a_matched_measurement_there():
    task = linear_quadratic(A, B, start_mean=[1.0, -1.0], discount=GAMMA, prior=(A, [[0.0], [0.7]]))
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = WEIGHT.clone()
    critic = ExactCritic(task.simulator, WEIGHT, GAMMA)
    found = gradlab.measure(
        task, policy, critic, horizon=H, starts=N, attribute=(1, H), judges=4, rehearse=False
    )
    assert found.truth["kind"] == "objective"

    begin = as_starts(task.starts(N, stream(0, "starts")), 2)
    T = int(found.truth["horizon"])
    there = path_of(visits(Setting(task.simulator, policy, begin, GAMMA, T), 1))
    alone = gradlab.measure(task, policy, critic, horizon=H, starts=there, attribute=(1, H))
    ours, theirs = (gradlab.attribute(each).bias for each in (found, alone))
    assert [(each.estimator, each.horizon) for each in ours] == [
        ("model", 1),
        ("model", H),
        ("mixed", 1),
        ("mixed", H),
    ]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.total.value, other.total.value, rtol=1e-6)
        np.testing.assert_allclose(
            [part.value for part in one.shapley],
            [part.value for part in other.shapley],
            atol=1e-6 * one.total.value,
        )
    model = next(each for each in ours if each.horizon == 1 and each.estimator == "model")
    largest = max(model.shapley, key=lambda part: part.value)
    assert largest.name == "B", "only the model's B is wrong"
