"""Diverging simulations end their own samples only, and the report says which, when and where."""

import pytest
import torch
from torch import nn

import gradlab
from gradlab.errors import InputError
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.rollout import linearize_path, rollout_with_jacobians
from gradlab.gradients.setting import Tail, as_starts
from gradlab.systems.system import BLOCKS, linearize_running, step_running

TASK = gradlab.tasks.mujoco("HalfCheetah-v5")
LOST = 3


def linear_policy() -> nn.Module:
    policy = nn.Linear(17, 6, dtype=torch.float64)
    torch.manual_seed(0)
    nn.init.normal_(policy.weight, std=0.05)
    nn.init.zeros_(policy.bias)
    return policy


def starts(n: int = 8) -> torch.Tensor:
    """One of them explodes in its first step."""
    state = TASK.starts(n, torch.Generator().manual_seed(0))
    state[LOST, -3:] = 1e9
    return state


def others(x: torch.Tensor, dim: int = 0) -> torch.Tensor:
    kept = [i for i in range(x.shape[dim]) if i != LOST]
    return x.index_select(dim, torch.tensor(kept))


def test_a_rollout_goes_on_with_the_others_bit_for_bit():
    policy = linear_policy()
    path, K = rollout_with_jacobians(TASK.simulator, policy, as_starts(starts(), 17), 4)
    alone, K_alone = rollout_with_jacobians(
        TASK.simulator, policy, as_starts(others(starts()), 17), 4
    )
    assert not torch.isfinite(path.states[1:, LOST]).all(dim=1).any()
    assert not path.alive[1:, LOST].any()
    torch.testing.assert_close(others(path.states, 1), alone.states, atol=1e-12, rtol=1e-12)
    got = linearize_path(path, TASK.simulator, K, None)
    want = linearize_path(alone, TASK.simulator, K_alone, None)
    assert got.flags[:, LOST].all()
    torch.testing.assert_close(others(got.A, 1), want.A, atol=1e-6, rtol=1e-6)


def test_ended_rows_are_nan_flagged_and_not_alive():
    system, state = TASK.simulator, starts(4)
    action = torch.zeros(4, 6, dtype=torch.float64)
    state[LOST, 0] = torch.nan
    out, jacobian = step_running(system, state, action), linearize_running(system, state, action)
    assert out.state[LOST].isnan().all() and out.reward[LOST].isnan()
    assert out.alive.tolist() == [True, True, True, False]
    assert jacobian.certificate.flags.tolist()[LOST]
    want = system.linearize(state[:LOST], action[:LOST])
    for block in BLOCKS:
        assert torch.equal(getattr(jacobian, block)[:LOST], getattr(want, block))
        assert getattr(jacobian, block)[LOST].isnan().all()


def test_a_measurement_says_which_start_left_when_and_where():
    simulator = TASK.simulator
    critic = gradlab.networks.mlp.QCritic(17, 6, hidden=(8,)).double()
    estimator = Estimator(simulator, simulator, "first", Tail(3, critic, TASK.discount))
    with pytest.raises(InputError, match=r"fails in step 0 from start 3: .* state \(.*1e\+09"):
        gradlab.measure(
            TASK, linear_policy(), None, {"true": estimator}, horizon=1, starts=starts(), seed=0,
            rehearse=False, judges=4,
        )  # fmt: skip
