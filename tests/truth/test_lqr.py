"""Closed forms of linear-quadratic systems against brute force, and every oracle against them.

θ in the first k actions: slopes of the return of a policy that changes after k steps.
"""

import math

import pytest
import scipy.linalg
import torch

from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.gradients import named
from gradlab.gradients.setting import Setting, as_starts
from gradlab.networks.policies import Gaussian, GaussianPolicy, WithLogProb
from gradlab.systems.closed_form import LinearQuadratic
from gradlab.systems.system import Entropic, standard_normal
from gradlab.truth import oracles
from gradlab.truth.common_random import common_random_differences, mean_and_error
from gradlab.truth.oracles import perturbed
from gradlab.truth.truth import early_truth
from tests.gradients.worlds import linear, matrix
from tests.linear_quadratic import ExactCritic, costs_to_go, lqr_gradient, lqr_return, second_moment
from tests.truth.linear_policies import feedback, gaussian_starts

GAMMA, STD = 0.95, 0.6
W = -matrix((0.4, 0.6))
MOMENT = second_moment(torch.tensor([0.5, -0.3]).double(), matrix((1.0, 0.2), (0.2, 0.7)))
NOISES = {"no noise": 0.0, "process noise": 1.0}


def system(noise=1.0):
    one = linear()
    return LinearQuadratic(one.A, one.B, one.Q, one.R, noise * one.noise_covariance)


def two_actions():
    """Coupled, two actions, correlated noise."""
    A, B = matrix((0.9, 0.2), (-0.1, 1.0)), matrix((0.3, 0.1), (0.0, 0.4))
    noise = matrix((0.02, 0.01), (0.01, 0.03))
    world = LinearQuadratic(A, B, matrix((1, 0.3), (0.3, 2)), matrix((0.5, 0.1), (0.1, 0.4)), noise)
    return world, -matrix((0.4, 0.3), (-0.2, 0.7))


def simulated_return(world, weight, moment, steps, action_covariance=None):
    """Σ_{t<T} γᵗ E r_t by second moments, step by step."""
    spread = torch.zeros_like(world.R) if action_covariance is None else action_covariance
    closed = world.A + world.B @ weight
    noise = world.noise_covariance + world.B @ spread @ world.B.T
    cost, total = world.Q + weight.T @ world.R @ weight, 0.0
    for t in range(steps):
        total -= GAMMA**t * float((cost * moment).sum() + (world.R * spread).sum())
        moment = closed @ moment @ closed.T + noise
    return total


def slope(function, weight):
    """Central differences of a function of W."""
    found = torch.zeros_like(weight)
    for k in range(weight.numel()):
        step = torch.zeros_like(weight).flatten()
        step[k] = 1e-5
        step = step.reshape(weight.shape)
        found.view(-1)[k] = (function(weight + step) - function(weight - step)) / 2e-5
    return found.flatten()


@pytest.mark.parametrize("horizon", [1, 2, 7, None])
@pytest.mark.parametrize("spread", [None, matrix((0.2, 0.05), (0.05, 0.1))])
def test_the_gradient_with_all_actions_is_the_slope_of_the_exact_return(horizon, spread):
    world, weight = two_actions()
    steps = 700 if horizon is None else horizon

    def value(w):
        return simulated_return(world, w, MOMENT, steps, spread)

    exact = lqr_gradient(world, weight, MOMENT, GAMMA, "all", horizon, spread)
    torch.testing.assert_close(slope(value, weight), exact, rtol=1e-6, atol=1e-7)
    assert float(lqr_return(world, weight, MOMENT, GAMMA, horizon, spread)) == pytest.approx(
        value(weight), rel=1e-9
    )


@pytest.mark.parametrize("horizon", [1, 2, 7, None])
def test_the_first_action_gradient_is_the_slope_in_the_first_action_alone(horizon):
    """The first action under W + δ, all later ones under W."""
    world, weight = two_actions()
    steps = 700 if horizon is None else horizon

    def value(first):
        closed = world.A + world.B @ first
        after = closed @ MOMENT @ closed.T + world.noise_covariance
        now = -float(((world.Q + first.T @ world.R @ first) * MOMENT).sum())
        return now + GAMMA * simulated_return(world, weight, after, steps - 1)

    exact = lqr_gradient(world, weight, MOMENT, GAMMA, "first", horizon)
    torch.testing.assert_close(slope(value, weight), exact, rtol=1e-6, atol=1e-7)


def test_without_a_horizon_costs_solve_the_lyapunov_equation():
    world, weight = two_actions()
    closed = (world.A + world.B @ weight).numpy()
    cost = (world.Q + weight.T @ world.R @ weight).numpy()
    want = scipy.linalg.solve_discrete_lyapunov(math.sqrt(GAMMA) * closed.T, cost)
    got = costs_to_go(world, weight, GAMMA)[-1]
    torch.testing.assert_close(got, torch.from_numpy(want), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("actions", ["first", "all"])
def test_a_longer_horizon_approaches_the_endless_one_at_its_rate(actions):
    """γᵀ where process noise pays at every step; (γ λ²)ᵀ where only the loop's memory counts."""
    world, weight = linear(), -matrix((1.2, 1.4))
    radius = float(torch.linalg.eigvals(world.A + world.B @ weight).abs().max())
    rate = GAMMA if actions == "all" else GAMMA * radius**2
    endless = lqr_gradient(world, weight, MOMENT, GAMMA, actions)
    near, far = (
        float((lqr_gradient(world, weight, MOMENT, GAMMA, actions, T) - endless).norm())
        for T in ((150, 200) if actions == "all" else (40, 90))
    )
    assert (far / near) ** (1 / 50) == pytest.approx(rate, rel=0.01)


def test_one_second_moment_per_start_gives_one_gradient_per_start():
    world, weight = two_actions()
    s = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()
    each = s[:, :, None] * s[:, None, :]
    for actions in ("first", "all"):
        for horizon in (4, None):
            found = lqr_gradient(world, weight, each, GAMMA, actions, horizon)
            mean = lqr_gradient(world, weight, s.T @ s / 5, GAMMA, actions, horizon)
            assert found.shape == (5, 4)
            torch.testing.assert_close(found.mean(dim=0), mean)


def test_the_exact_critic_has_the_true_gradient_in_the_action():
    world, weight = two_actions()
    critic = ExactCritic(world, weight, GAMMA)
    s = torch.randn(9, 2, generator=torch.Generator().manual_seed(1)).double()
    a = (s @ weight.T).requires_grad_()
    (q_a,) = torch.autograd.grad(critic(s, a).sum(), a)
    want = lqr_gradient(world, weight, s[:, :, None] * s[:, None, :], GAMMA, "first")
    torch.testing.assert_close((q_a[:, :, None] * s[:, None]).flatten(1), want)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"actions": "both"}, "actions is 'both'"),
        ({"horizon": 0}, "horizon is 0"),
        ({"weight": matrix((3.0, 3.0))}, "unstable"),
        ({"weight": matrix((3.0,), (3.0,))}, r"weight has shape \(2, 1\), expected \[1, 2\]"),
    ],
)
def test_what_has_no_closed_form_is_refused(argument, message):
    given = {"weight": W, "second_moment": MOMENT, "discount": GAMMA, "actions": "all"} | argument
    with pytest.raises(InputError, match=message):
        lqr_gradient(system(), **given)


# Every oracle on one task ------------------------------------------------------------------------


def unrolled(world, policy, starts, horizon, actions):
    if actions == "all":
        return oracles.unroll_all_actions(Setting(world, policy, starts, GAMMA, horizon))
    sweep = oracles.unroll_first_action(Setting(world, policy, starts, GAMMA)).gradients[
        horizon - 1
    ]
    return (sweep[:, :, None] * starts.states[:, None]).flatten(1)


def differences(world, policy, starts, horizon, actions):
    n = len(starts.states)
    found = common_random_differences(
        Setting(world, policy, starts, GAMMA, horizon), actions=actions, n=n
    )
    return torch.linalg.lstsq(found.directions, found.narrow[-1]).solution.T


def score(world, policy, starts, horizon, actions):
    return named.likelihood_ratio(world, None, GAMMA, horizon).gradients(policy, starts.states)


ORACLES = {  # → (gradients [N, P], number of starts, largest standard error over the norm)
    "unrolled": (unrolled, 512, 0.05),
    "differences": (differences, 512, 0.05),
    "score": (score, 20_000, 0.25),
}
# The likelihood ratio has θ in every action.
KINDS = [(name, kind) for name in ORACLES for kind in ("first", "all") if name != "score"]
KINDS.append(("score", "all"))


def gaussian(n):
    return Gaussian(feedback(0.4, 0.6), STD), gaussian_starts(n, 2)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(("oracle", "actions"), KINDS)
def test_oracles_agree_with_one_another(oracle, actions, noise):
    """Each within 3.5 of its own standard errors of the closed form on the same starts."""
    world, horizon, (ask, n, sharp) = system(NOISES[noise]), 6, ORACLES[oracle]
    policy, starts = gaussian(n)
    each, spread = starts.states[:, :, None] * starts.states[:, None, :], STD**2 * torch.eye(1)
    exact = lqr_gradient(world, W, each, GAMMA, actions, horizon, spread)
    gap, error = mean_and_error(
        (ask(world, policy, starts, horizon, actions) - exact).T, starts.group
    )
    assert (gap.abs() < 3.5 * error).all()
    assert error.norm() < sharp * exact.mean(dim=0).norm()


@pytest.mark.parametrize("actions", ["first", "all"])
@pytest.mark.parametrize("horizon", [1, 5, 40])
def test_without_noise_unrolled_and_differences_are_the_closed_form_start_by_start(
    actions, horizon
):
    world, n = system(0.0), 16
    stochastic, starts = gaussian(n)
    policy = stochastic.policy
    each = starts.states[:, :, None] * starts.states[:, None, :]
    exact = lqr_gradient(world, W, each, GAMMA, actions, horizon)
    setting, size = Setting(world, policy, starts, GAMMA, horizon), float(exact.abs().max())
    found = common_random_differences(setting, actions=actions)
    want = found.directions @ exact.T
    torch.testing.assert_close(found.narrow[-1], want, rtol=1e-4, atol=1e-4 * size)
    G = unrolled(world, policy, starts, horizon, actions)
    torch.testing.assert_close(G, exact, rtol=1e-11, atol=1e-11)


DISCOUNT, ALPHA, SEED, STEP = 0.9, 0.3, 4, 1e-4


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
        total, state = total + DISCOUNT**t * soft, out.state
    return total


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_soft_gradient_is_the_slope_of_the_return_in_the_first_actions_alone(count):
    torch.manual_seed(0)
    policy, system = GaussianPolicy(2, 1, (4,), "tanh").double(), linear(0.8)
    starts = torch.randn(16, 2, dtype=torch.float64)
    setting = Setting(
        Entropic(system, ALPHA), WithLogProb(policy), as_starts(starts, 2), DISCOUNT, seed=SEED
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
    setting = Setting(quiet, policy, as_starts(starts, 2), DISCOUNT)
    truth = early_truth(setting, [1, 120])
    for count, actions in ((1, "first"), (120, "all")):
        wanted = lqr_gradient(quiet, weight, moment, DISCOUNT, actions)
        found = truth.gradients(count).mean(dim=0)
        torch.testing.assert_close(found, wanted, rtol=2e-3, atol=1e-4)
