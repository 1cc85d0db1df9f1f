"""θ in the first k actions: slopes of the return of a policy that changes after k steps."""

import pytest
import torch

from gradlab.data.noise import stream
from gradlab.gradients.setting import Setting, as_starts
from gradlab.networks.policies import GaussianPolicy, WithLogProb
from gradlab.systems.system import Entropic, standard_normal
from gradlab.truth.by_blocks import early_truth
from gradlab.truth.lqr import lqr_gradient, second_moment
from gradlab.truth.oracles import perturbed
from tests.gradients.worlds import linear, matrix
from tests.truth.linear_policies import feedback

GAMMA, ALPHA, SEED, STEP = 0.9, 0.3, 4, 1e-4


def soft_return(system, first, later, starts, count, steps):
    """Σ_t γᵗ (r_t − α log π_t) [N] of `first` for `count` steps and of `later` after them."""
    state, total = starts, torch.zeros(len(starts), dtype=torch.float64)
    for t in range(steps):
        policy = first if t < count else later
        action = policy(state, standard_normal(len(state), 1, stream(SEED, "policy", t)))
        out = system.step(
            state, action, system.sample_noise(len(state), stream(SEED, "dynamics", t))
        )
        soft = out.reward - ALPHA * policy.log_prob(state, action)
        total, state = total + GAMMA**t * soft, out.state
    return total


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_soft_gradient_is_the_slope_of_the_return_in_the_first_actions_alone(count):
    torch.manual_seed(0)
    policy, system = GaussianPolicy(2, 1, (4,), "tanh").double(), linear(0.8)
    starts = torch.randn(16, 2, dtype=torch.float64)
    setting = Setting(
        Entropic(system, ALPHA), WithLogProb(policy), as_starts(starts, 2), GAMMA, seed=SEED
    )
    truth = early_truth(setting, [1, 2, 5], check=False)
    assert truth.status != "none"
    G = truth.gradients(count)
    for _ in range(3):
        direction = torch.randn(G.shape[1], dtype=torch.float64)
        with torch.no_grad():
            up, down = (
                soft_return(
                    system, perturbed(policy, sign * STEP * direction), policy, starts, count,
                    truth.horizon,
                )
                for sign in (1, -1)
            )  # fmt: skip
        slope = (up - down) / (2 * STEP)
        torch.testing.assert_close(G @ direction, slope, rtol=1e-5, atol=1e-5)


def test_more_and_more_actions_go_from_the_first_action_gradient_to_that_of_the_return():
    weight = -matrix((0.4, 0.6))
    policy, system = feedback(0.4, 0.6), linear()
    starts = torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moment = second_moment(torch.zeros(2).double(), starts.T @ starts / len(starts))
    quiet = type(system)(system.A, system.B, system.Q, system.R, 0 * system.noise_covariance)
    setting = Setting(quiet, policy, as_starts(starts, 2), GAMMA)
    truth = early_truth(setting, [1, 120])
    for count, actions in ((1, "first"), (120, "all")):
        wanted = lqr_gradient(quiet, weight, moment, GAMMA, actions)
        found = truth.gradients(count).mean(dim=0)
        torch.testing.assert_close(found, wanted, rtol=2e-3, atol=1e-4)
