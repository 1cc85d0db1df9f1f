"""Jacobians by differences, where a jump lies inside their stencil: counted, and said aloud."""

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab.systems import Certificate, Linearization, Transition
from gradlab.systems.differences import certified_jacobian
from gradlab.tasks import Task
from tests.checks.planted_faults import Quadratic

FREE = np.array([-np.inf]), np.array([np.inf])
HEIGHT = 1e-2
PLACE = 0.25


class Step:
    """s' = 0.8 s + 0.1 a, and a step of HEIGHT where s > PLACE; Jacobians by differences."""

    state_dim = action_dim = 1
    noise_dim = 0
    differentiable = False

    def step(self, state, action, noise=None):
        after = torch.from_numpy(self._step(state.numpy(), action.numpy()))
        reward = -(state**2)[:, 0]
        return Transition(after, reward, torch.ones(len(state), dtype=torch.bool))

    def linearize(self, state, action, noise=None):
        found = certified_jacobian(self._step, state.numpy(), action.numpy(), *FREE, 1e-6)
        exact = Certificate.exact(state).error
        certificate = Certificate(torch.from_numpy(found.flags), exact)
        A, B = torch.from_numpy(found.A), torch.from_numpy(found.B)
        return Linearization(A, B, -2 * state, 0 * action, certificate)

    def sample_noise(self, n, generator, dtype=torch.float64):
        return torch.zeros(n, 0, dtype=dtype)

    @staticmethod
    def _step(s, a):
        return np.asarray(0.8 * s + 0.1 * a + HEIGHT * (s > PLACE))


def starts(place):
    """32 starts that never come to the step again, some of them at `place`."""
    s = torch.linspace(-1, 0.2, 32, dtype=torch.float64)[:, None]
    s[: len(place), 0] = place
    return s


def result(place):
    system = Step()
    made = Task("planted", system, None, lambda n, g: starts(place)[:n], 0.9, 4)
    policy = nn.Linear(1, 1).double()
    nn.init.zeros_(policy.weight), nn.init.zeros_(policy.bias)
    found = gradlab.measure(made, policy, Quadratic(), horizon=4, starts=starts(place)).sanity
    wanted = "certified Jacobians of true_dynamics"
    return next(each for each in found if each.check == wanted)


def test_a_jump_inside_every_stencil_is_counted_and_fails_the_check():
    on_it = PLACE + torch.tensor([0.0, 1e-15], dtype=torch.float64)  # different starts
    found = result(on_it)
    assert not found.passed
    assert found.result.startswith("1.56% of 128 Jacobians flagged (2), in 2 of 32 samples")
    assert "first at step 0" in found.result
    assert "one may outweigh all other samples" in found.meaning


@pytest.mark.parametrize("distance", [1e-8, 1e-7, 1e-3])
def test_a_jump_that_a_smaller_step_does_not_reach_is_none(distance):
    found = result(PLACE - distance * torch.tensor([1.0, 1.01], dtype=torch.float64))
    assert found.passed and found.result.startswith("0.00% of 128 Jacobians flagged (0)")
