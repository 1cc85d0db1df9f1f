"""The soft system against the plain one and against automatic differentiation."""

import pytest
import torch
from torch import Tensor

from gradlab import systems
from gradlab.errors import InputError
from gradlab.systems.entropy import Entropic
from gradlab.systems.linear import LinearQuadratic
from gradlab.systems.system import System

ALPHA = 0.25


def plain() -> System:
    eye = torch.eye(2, dtype=torch.float64)
    return LinearQuadratic(0.9 * eye, eye[:, :1], eye, eye[:1, :1], 0.1 * eye)


def draws(*widths: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, width, generator=generator, dtype=torch.float64) for width in widths]


def test_the_reward_is_less_alpha_log_pi_and_nothing_else_changes():
    system, soft = plain(), Entropic(plain(), ALPHA)
    state, action, log_prob, noise = draws(2, 1, 1, 2)
    hard = system.step(state, action, noise)
    got = soft.step(state, torch.cat([action, log_prob], 1), noise)
    assert torch.equal(got.state, hard.state)
    assert torch.equal(got.alive, hard.alive)
    torch.testing.assert_close(got.reward, hard.reward - ALPHA * log_prob[:, 0])
    assert isinstance(soft, System)
    assert (soft.state_dim, soft.action_dim, soft.noise_dim) == (2, 2, 2)


def test_jacobians_are_those_of_automatic_differentiation():
    soft = Entropic(plain(), ALPHA)
    by_autodiff = systems.from_function(
        lambda s, a, xi: (lambda out: (out.state, out.reward))(soft.step(s, a, xi)), 2, 2, 2
    )
    state, action, noise = draws(2, 2, 2)
    got, expected = (each.linearize(state, action, noise) for each in (soft, by_autodiff))
    for block in ("A", "B", "r_s", "r_a"):
        torch.testing.assert_close(getattr(got, block), getattr(expected, block))


def test_noise_is_the_systems_own():
    system, soft = plain(), Entropic(plain(), ALPHA)
    first, second = (torch.Generator().manual_seed(1) for _ in range(2))
    assert torch.equal(soft.sample_noise(3, first), system.sample_noise(3, second))
    state, action, noise = draws(2, 2, 2)
    after = soft.step(state, action, noise).state
    torch.testing.assert_close(soft.infer_noise(state, action, after), noise)


def test_noise_that_cannot_be_inferred_stays_so():
    def step(s: Tensor, a: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
        return s + a + xi, s[:, 0]

    soft = Entropic(systems.from_function(step, 1, 1, 1), ALPHA)
    assert getattr(soft, "infer_noise", None) is None


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_a_wrong_temperature_is_named(alpha):
    with pytest.raises(InputError, match="alpha"):
        Entropic(plain(), alpha)


def test_an_action_without_log_pi_is_refused():
    state, action = draws(2, 1)
    with pytest.raises(InputError, match=r"action has shape \(5, 1\), expected \[5, 2\]"):
        Entropic(plain(), ALPHA).step(state, action)
