"""A user's torch function becomes a System, or is told why not."""

import pytest
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems import from_function

STATE = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)


def scalar(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return 0.9 * s + 0.5 * a, -(s[:, 0] ** 2 + 2 * a[:, 0] ** 2)


def test_jacobians_of_a_scalar_system_by_hand() -> None:
    system = from_function(scalar, state_dim=1, action_dim=1)
    with torch.no_grad():
        jacobian = system.linearize(STATE, 3 * STATE)
    assert torch.equal(jacobian.A, torch.full((2, 1, 1), 0.9, dtype=torch.float64))
    assert torch.equal(jacobian.B, torch.full((2, 1, 1), 0.5, dtype=torch.float64))
    assert torch.equal(jacobian.r_s, -2 * STATE)
    assert torch.equal(jacobian.r_a, -12 * STATE)


def test_functions_may_branch_on_their_batch() -> None:
    def branching(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        return (s * a if bool((s > 0).any()) else s), a[:, 0]

    jacobian = from_function(branching, 1, 1).linearize(STATE, 3 * STATE)
    assert torch.equal(jacobian.B[:, 0], STATE)


def test_a_constant_reward_has_no_gradient() -> None:
    system = from_function(lambda s, a: (s + a, torch.ones(len(s)).to(s)), 1, 1)
    assert torch.equal(system.linearize(STATE, STATE).r_s, 0 * STATE)


def test_without_noise_a_noisy_function_is_called_with_zeros() -> None:
    system = from_function(lambda s, a, xi: (s + a + xi, s[:, 0]), 1, 1, noise_dim=1)
    assert torch.equal(system.step(STATE, STATE).state, 2 * STATE)
    assert torch.equal(system.step(STATE, STATE, STATE).state, 3 * STATE)


def test_alive_judges_the_next_state() -> None:
    system = from_function(scalar, 1, 1, alive=lambda after: after[:, 0] > 0.5)
    assert system.step(STATE, 0 * STATE).alive.tolist() == [True, False]
    wrong = from_function(scalar, 1, 1, alive=lambda after: after)
    with pytest.raises(InputError, match=r"alive returned torch.float64 \(2, 1\)"):
        wrong.step(STATE, STATE)


def test_wrong_outputs_are_named_with_their_shapes() -> None:
    column = from_function(lambda s, a: (s, -s), 1, 1)
    with pytest.raises(InputError, match=r"reward \[2, 1\], expected \[2, 1\] and \[2\]"):
        column.step(STATE, STATE)
    for bad in (lambda s, a: s, lambda s, a: (s, 1.0), lambda s, a: None):
        with pytest.raises(InputError, match="expected next_state and reward"):
            from_function(bad, 1, 1).step(STATE, STATE)
    with pytest.raises(InputError, match="state_dim is 0"):
        from_function(scalar, 0, 1)


def test_a_dead_control_and_a_constant_reward_have_zero_derivatives():
    system = from_function(
        lambda state, action: (0.9 * state, torch.zeros(len(state), dtype=state.dtype)),
        state_dim=2,
        action_dim=1,
    )
    state = torch.randn(3, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    linear = system.linearize(state, torch.zeros(3, 1, dtype=torch.float64))
    assert torch.equal(linear.A, 0.9 * torch.eye(2, dtype=torch.float64).expand(3, 2, 2))
    for block in (linear.B, linear.r_s, linear.r_a):
        assert (block == 0).all()
