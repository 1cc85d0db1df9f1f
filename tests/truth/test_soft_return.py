"""Gradients of the augmented system are those of the soft return, written out and unrolled."""

import pytest
import torch
from torch import Tensor

from gradlab.data.noise import stream
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.tail import Tail
from gradlab.networks.policies import GaussianPolicy, SoftCritic, WithLogProb
from gradlab.systems.entropy import Entropic
from gradlab.systems.system import standard_normal
from tests.gradients.worlds import Critic, nonlinear

ALPHA, DISCOUNT, N, SEED = 0.4, 0.9, 4, 2


def soft_return(
    policy: GaussianPolicy, critic: Critic, starts: Tensor, horizon: int, alpha: float
) -> Tensor:
    """Σ_t γᵗ (r_t − α log π(a_t|s_t)) + γᴴ (Q(s_H, a_H) − α log π(a_H|s_H))      (DDPPO, eq. 11)"""
    system, state, total = nonlinear(), starts, torch.zeros(N, dtype=torch.float64)
    for t in range(horizon + 1):
        action = policy(state, standard_normal(N, 2, stream(SEED, "policy", t)))
        total = total - DISCOUNT**t * alpha * policy.log_prob(state, action)
        if t == horizon:
            return total + DISCOUNT**t * critic(state, action)
        out = system.step(state, action, system.sample_noise(N, stream(SEED, "dynamics", t)))
        total, state = total + DISCOUNT**t * out.reward, out.state
    raise AssertionError


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("horizon", [0, 1, 3])
def test_entropic_gradients_are_those_of_the_soft_return(horizon, squash):
    torch.manual_seed(0)
    policy = GaussianPolicy(2, 2, (8, 8), "tanh", squash=squash).double()
    critic = Critic(4)
    starts = torch.randn(N, 2, dtype=torch.float64)
    system = Entropic(nonlinear(), ALPHA)
    tail = Tail(horizon, SoftCritic(critic, ALPHA), DISCOUNT)
    rows = Estimator(system, system, "all", tail).gradients(WithLogProb(policy), starts, SEED)
    for i in range(N):
        value = soft_return(policy, critic, starts, horizon, ALPHA)[i]
        grads = torch.autograd.grad(value, list(policy.parameters()))
        expected = torch.cat([gradient.flatten() for gradient in grads])
        torch.testing.assert_close(rows[i], expected, rtol=1e-10, atol=1e-12)
