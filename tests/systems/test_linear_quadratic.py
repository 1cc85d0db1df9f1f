"""What is special about the linear system: its noise law and its checks."""

import pytest
import torch

from gradlab.errors import InputError
from gradlab.systems import LinearQuadratic

ONE = torch.eye(2, dtype=torch.float64)
B = torch.ones(2, 1, dtype=torch.float64)
SKEW = torch.tensor([[1.0, 0.5], [0.0, 1.0]], dtype=torch.float64)


def test_noise_has_the_covariance_asked_for():
    covariance = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    system = LinearQuadratic(ONE, B, ONE, ONE[:1, :1], covariance)
    n = 200_000
    zero = torch.zeros(n, 2, dtype=torch.float64)
    noise = system.sample_noise(n, torch.Generator().manual_seed(0))
    after = system.step(zero, zero[:, :1], noise).state
    torch.testing.assert_close(after.T.cov(), covariance, atol=0.02, rtol=0)


def test_zero_covariance_means_no_noise_and_none_is_inferred():
    system = LinearQuadratic(ONE, B, ONE, ONE[:1, :1], 0 * ONE)
    state, action = torch.ones(3, 2).double(), torch.ones(3, 1).double()
    noise = system.sample_noise(3, torch.Generator().manual_seed(0))
    after = system.step(state, action, noise).state
    assert torch.equal(after, system.step(state, action).state)
    assert torch.equal(system.infer_noise(state, action, after + 1), torch.zeros_like(state))


def test_reward_is_paid_before_the_step():
    system = LinearQuadratic(0 * ONE, 0 * B, SKEW + SKEW.T, 3 * ONE[:1, :1], 0 * ONE)
    state = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    reward = system.step(state, torch.tensor([[2.0]], dtype=torch.float64)).reward
    # -(2·1 + 2·0.5·2 + 2·4) - 3·4
    assert reward.item() == -24.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("A", B, "A has shape"),
        ("A", ONE * torch.nan, "A has entries"),
        ("B", ONE[:1], "B has shape"),
        ("Q", SKEW, "Q is not symmetric"),
        ("R", -ONE[:1, :1], "R has the eigenvalue -1"),
        ("noise_covariance", B, "noise_covariance has shape"),
        ("noise_covariance", ONE * torch.inf, "noise_covariance has entries"),
    ],
)
def test_matrices_are_checked_by_name(field, value, message):
    matrices = {"A": ONE, "B": B, "Q": ONE, "R": ONE[:1, :1], "noise_covariance": ONE}
    with pytest.raises(InputError, match=message):
        LinearQuadratic(**(matrices | {field: value}))
