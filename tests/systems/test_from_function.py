"""A user's torch function becomes a System, or is told why not."""

import pytest
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.systems import from_function

STATE = torch.tensor([[1.0], [-2.0]], dtype=torch.float64)


def scalar(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    return 0.9 * s + 0.5 * a, -(s[:, 0] ** 2 + 2 * a[:, 0] ** 2)


def test_jacobians_of_a_scalar_system_by_hand():
    system = from_function(scalar, state_dim=1, action_dim=1)
    with torch.no_grad():
        jacobian = system.linearize(STATE, 3 * STATE)
    assert torch.equal(jacobian.A, torch.full((2, 1, 1), 0.9, dtype=torch.float64))
    assert torch.equal(jacobian.B, torch.full((2, 1, 1), 0.5, dtype=torch.float64))
    assert torch.equal(jacobian.r_s, -2 * STATE)
    assert torch.equal(jacobian.r_a, -12 * STATE)


def test_without_noise_a_noisy_function_is_called_with_zeros():
    system = from_function(lambda s, a, xi: (s + a + xi, s[:, 0]), 1, 1, noise_dim=1)
    assert torch.equal(system.step(STATE, STATE).state, 2 * STATE)
    assert torch.equal(system.step(STATE, STATE, STATE).state, 3 * STATE)


def test_alive_judges_the_next_state():
    system = from_function(scalar, 1, 1, alive=lambda after: after[:, 0] > 0.5)
    assert system.step(STATE, 0 * STATE).alive.tolist() == [True, False]
    wrong = from_function(scalar, 1, 1, alive=lambda after: after)
    with pytest.raises(InputError, match=r"alive returned torch.float64 \(2, 1\)"):
        wrong.step(STATE, STATE)


def test_wrong_outputs_are_named_with_their_shapes():
    wide = from_function(lambda s, a: (s, torch.cat([s, a], 1)), 1, 1)
    with pytest.raises(InputError, match=r"reward \[2, 2\], expected \[2, 1\] and \[2\]"):
        wide.step(STATE, STATE)
    for bad in (lambda s, a: s, lambda s, a: (s, 1.0), lambda s, a: None, lambda s, a: (s, a, {})):
        with pytest.raises(InputError, match=r"expected .*next_state and reward"):
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


def test_a_column_of_rewards_and_of_survivors_is_taken_as_rows():
    plain = from_function(scalar, 1, 1, alive=lambda after: after[:, 0] > 0.5)
    column = from_function(
        lambda s, a: (scalar(s, a)[0], scalar(s, a)[1][:, None]), 1, 1, alive=lambda s: s > 0.5
    )
    for field in ("state", "reward", "alive"):
        ours, theirs = (getattr(x.step(STATE, 0 * STATE), field) for x in (column, plain))
        assert torch.equal(ours, theirs)
    for block in ("A", "B", "r_s", "r_a"):
        ours, theirs = (getattr(x.linearize(STATE, 0 * STATE), block) for x in (column, plain))
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (lambda s, a: (torch.from_numpy(0.9 * s.numpy()), s[:, 0]), "without numpy"),
        (lambda s, a: (s.numpy(), s[:, 0].numpy()), "torch operations"),
        (lambda s, a: (torch.nn.Linear(1, 1)(s), s[:, 0]), r"\.to\(state\.dtype\)"),
        (lambda s, a: (s.float(), s[:, 0]), "next_state in torch.float32 for states in torch.flo"),
        (lambda s: (s, s[:, 0]), r"step takes \(state, action\)"),
        (lambda s, a: (s, s[:, 3]), "step failed .IndexError"),
        (lambda s, a: (s.add_(a), s[:, 0]), "without changing a tensor in place"),
    ],
)
def test_a_step_that_cannot_be_differentiated_is_told_in_one_line(step, words):
    with pytest.raises(InputError, match=words) as error:
        from_function(step, 1, 1).linearize(STATE, STATE)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "value"), [("state_dim", "2"), ("noise_dim", -1), ("alive", 3)])
def test_what_is_no_dimension_and_no_function_is_refused(name, value):
    with pytest.raises(InputError, match=f"{name} is "):
        from_function(**{"step": scalar, "state_dim": 1, "action_dim": 1, name: value})


def test_a_step_that_fails_names_the_line_of_the_users_file():
    with pytest.raises(InputError, match=r"ZeroDivisionError: .*test_from_function\.py, line \d+"):
        from_function(lambda s, a: 1 / 0, 1, 1).step(STATE, STATE)


def test_a_step_may_convert_its_network():
    net = torch.nn.Linear(1, 1)
    system = from_function(lambda s, a: (s + net.double()(a), s[:, 0]), 1, 1)
    for _ in range(2):
        found = system.linearize(STATE, STATE)
        assert torch.equal(found.B[:, 0, 0], net.weight.detach().double()[0].expand(len(STATE)))
    assert net.weight.grad is None and net(STATE).shape == STATE.shape
