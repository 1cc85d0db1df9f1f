"""One truth for many sets of estimators gives what single measurements give."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import gradlab
from gradlab.errors import InputError
from gradlab.fitting import critics, fit_critic, policies, stabilising_policy
from gradlab.measurement.assembly import shared_truth


@pytest.fixture(scope="module")
def world():
    task = replace(gradlab.tasks.double_integrator(), discount=0.9)  # of which less is unrolled
    with pytest.MonkeyPatch.context() as quick:
        for module in (critics, policies):
            quick.setattr(module, "UPDATES", 100)
        quick.setattr(critics, "TRAJECTORIES", 64)
        policy = stabilising_policy(task)
        return task, policy, fit_critic(task, policy)


def test_values_are_those_of_a_measurement(world):
    task, policy, critic = world
    tail = gradlab.Tail(5, critic.double(), task.discount)
    estimators = {
        "model": gradlab.Estimator(task.prior, task.prior, "first", tail),
        "mixed": gradlab.Estimator(task.simulator, task.prior, "first", tail),
    }
    whole = gradlab.measure(task, policy, critic, estimators, horizon=5, starts=32, law="start")
    truth = shared_truth(task, policy, 32, 5)
    for name, estimator in estimators.items():  # one at a time
        part = truth.profile({name: estimator})
        for quantity in ("bias2", "variance", "mse", "cosine"):
            for h in (0, 2, 5):
                ours, theirs = (p.estimate(name, quantity, h) for p in (part, whole))
                assert ours.value == pytest.approx(theirs.value, rel=1e-10, nan_ok=True)
                np.testing.assert_allclose(ours.left_out, theirs.left_out, rtol=1e-9)


def test_states_that_the_caller_brings_are_recorded_as_given(world):
    task, policy, critic = world
    tail = gradlab.Tail(1, critic.double(), task.discount)
    model = {"model": gradlab.Estimator(task.prior, task.prior, "first", tail)}
    states = task.starts(8, torch.Generator().manual_seed(0))
    laws = [
        shared_truth(task, policy, starts, 1).profile(model).config["law"] for starts in (8, states)
    ]
    assert laws == ["start", "given"]


def test_no_estimator_is_refused(world):
    task, policy, _ = world
    with pytest.raises(InputError, match="estimators is empty"):
        shared_truth(task, policy, 8, 2).profile({})
