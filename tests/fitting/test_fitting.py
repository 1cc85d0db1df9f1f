"""Made policies stabilise, made critics value."""

import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

import gradlab
from gradlab import systems
from gradlab.errors import InputError
from gradlab.fitting import critics, policies
from gradlab.fitting.policies import hold_pose_gain
from gradlab.tasks import double_integrator, linear_quadratic, mujoco
from tests.linear_quadratic import ExactCritic


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    monkeypatch.setattr(policies, "UPDATES", 400)
    monkeypatch.setattr(critics, "UPDATES", 400)
    monkeypatch.setattr(critics, "TRAJECTORIES", 64)


def test_the_gain_solves_the_discounted_riccati_equation():
    task = linear_quadratic()
    prior, gamma = task.prior, task.discount
    K = policies.riccati_gain(prior, torch.zeros(2, dtype=torch.float64), gamma).numpy()
    A, B, Q, R = (np.sqrt(gamma) * prior.A.numpy(), np.sqrt(gamma) * prior.B.numpy(),
                  prior.Q.numpy(), prior.R.numpy())  # fmt: skip

    def cost(K):
        closed = A - B @ K
        return np.trace(scipy.linalg.solve_discrete_lyapunov(closed.T, Q + K.T @ R @ K))

    for direction in np.eye(2):
        for step in (1e-3, -1e-3):
            assert cost(K + step * direction) > cost(K)


def test_the_posture_of_a_walker_is_held_where_it_would_fall():
    task = mujoco("Walker2d-v5")
    simulator, gain = task.simulator, hold_pose_gain(task.simulator)
    reference = torch.tensor(task.reference_state, dtype=torch.float64)
    bent = task.starts(8, torch.Generator().manual_seed(0))
    bent[:, 2:8] += 0.3  # its six actuated joints

    def furthest(K):
        state = bent
        for _ in range(60):
            state = simulator.step(state, (-(state - reference) @ K.T).clamp(-1, 1)).state
        return float((state - reference)[:, 2:8].abs().max())

    assert furthest(gain) < 0.15 and furthest(0 * gain) > 1
    assert gain.count_nonzero() == 2 * 6


def test_a_seed_makes_the_same_policy_and_spares_the_global_stream(monkeypatch):
    monkeypatch.setattr(policies, "UPDATES", 20)
    task = linear_quadratic()
    torch.manual_seed(0)
    first, after = policies.stabilising_policy(task, seed=3), torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))
    again = policies.stabilising_policy(task, seed=3)
    pairs = zip(first.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [8, 25])
def test_the_critic_approaches_the_value_of_the_policy(steps):
    """Linear-quadratic: Q(s, u) = r(s, u) − γ (s'ᵀ P s' + constant of the noise)."""
    task = linear_quadratic()
    system, gamma = task.simulator, task.discount
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = -policies.riccati_gain(system, torch.zeros(2).double(), gamma)
    A, B, W = system.A, system.B, policy.weight.data
    closed = (A + B @ W).numpy() * gamma**0.5
    cost = (system.Q + W.T @ system.R @ W).numpy()
    P = torch.from_numpy(scipy.linalg.solve_discrete_lyapunov(closed.T, cost))
    floor = gamma / (1 - gamma) * torch.trace(P @ system.noise_covariance)
    critic = critics.fit_critic(task, policy, steps=steps).double()
    s = task.starts(512, torch.Generator().manual_seed(2))
    u = policy(s).detach() + 0.1
    out = system.step(s, u)
    exact = out.reward - gamma * torch.einsum("ni,ij,nj->n", out.state, P, out.state) - floor
    error = (critic(s, u) - exact).square().mean() / exact.var()
    assert error < 0.1


def test_targets_stop_at_terminal_states_under_mask():
    task = linear_quadratic()
    policy = nn.Linear(2, 1).double()

    class Ends:
        """The same system where every step is the last."""

        def __getattr__(self, name):
            return getattr(task.simulator, name)

        def step(self, state, action, noise=None):
            out = task.simulator.step(state, action, noise)
            return type(out)(out.state, out.reward, torch.zeros_like(out.alive))

    ended = task.__class__("ended", Ends(), None, task.starts, 0.9, 3)
    masked = critics.evaluation_data(ended, policy, 5, "mask", 0)
    first = task.simulator.step(masked.state, masked.action).reward
    torch.testing.assert_close(masked.returns, first)
    assert (masked.bootstrap == 0).all()
    ignored = critics.evaluation_data(ended, policy, 5, "ignore", 0)
    assert (ignored.bootstrap == 0.9**5).all()


def test_bad_input_is_refused():
    task = linear_quadratic()
    with pytest.raises(InputError, match="steps is 0"):
        critics.fit_critic(task, nn.Linear(2, 1), steps=0)
    with pytest.raises(InputError, match="policy cannot take"):
        critics.fit_critic(task, nn.Linear(3, 1))
    hopeless = linear_quadratic(
        A=[[2.0]], B=[[0.0]], Q=[[1.0]], R=[[1.0]], noise_covariance=[[0.0]],
        start_mean=[0.0], start_covariance=[[1.0]], discount=0.9,
    )  # fmt: skip
    with pytest.raises(InputError, match="no linear feedback"):
        policies.stabilising_policy(hopeless)


def test_rollouts_that_run_away_do_not_spoil_the_fit():
    """One start in 64 leaves the cubic's basin and the finite numbers under the feedback."""

    def step(s, a):
        return s + 0.5 * s**3 + a, -(s[:, 0] ** 2) - a[:, 0] ** 2

    def starts(n, generator):
        drawn = 0.1 * torch.randn(n, 1, generator=generator, dtype=torch.float64)
        drawn[::64] = 4.0
        return drawn

    system = systems.from_function(step, 1, 1)
    task = gradlab.Task("cubic", system, None, starts, 0.95, horizon=20)
    policy = policies.stabilising_policy(task).double()
    state = torch.linspace(-0.2, 0.2, 9, dtype=torch.float64)[:, None]
    wanted = -state @ policies.riccati_gain(system, torch.zeros(1).double(), 0.95).T
    assert (policy(state) - wanted).abs().max() < 0.1 * wanted.abs().max()


@pytest.mark.parametrize("rest", [None, (20.0,)])
def test_a_policy_worse_than_no_action_is_told_at_once(rest):
    """Heating towards 20, from 17, with actions within 1: about state 0 the feedback cools."""

    def step(s, a):
        a = a.clamp(-1, 1)
        return s + a, -((s[:, 0] - 20) ** 2) - 0.1 * a[:, 0] ** 2

    def starts(n, generator):
        return 17 + torch.randn(n, 1, generator=generator, dtype=torch.float64)

    system = systems.from_function(step, 1, 1)
    task = gradlab.Task(
        "heating", system, None, starts, 0.95, 20, reference_state=rest, action_limit=(1.0,)
    )
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        policies.stabilising_policy(task)
    said = [str(each.message) for each in told if "worse than no action" in str(each.message)]
    assert len(said) == (rest is None)
    assert all("reference_state" in each and "a policy of your own" in each for each in said)


def test_a_fit_that_diverges_is_no_policy(monkeypatch):
    monkeypatch.setattr(policies, "visited_states", lambda *_: torch.full((600, 2), torch.inf))
    with pytest.raises(InputError, match="diverged at update 0; pass a policy"):
        policies.stabilising_policy(linear_quadratic())


@pytest.mark.slow
def test_a_critic_is_fitted_on_from_where_it_stands():
    """After the policy has changed, a few updates bring it nearer to the new value, not back."""
    task = double_integrator()
    system, old, new = task.simulator, -torch.ones(1, 2).double(), -2.0 * torch.ones(1, 2).double()
    policy = nn.Linear(2, 1, bias=False).double()
    policy.weight.data = old.clone()
    critic = critics.fit_critic(task, policy)
    policy.weight.data = new.clone()
    again = critics.refit_critic(task, policy, critic, updates=100)
    assert next(again.parameters()).dtype == next(critic.parameters()).dtype
    state = task.starts(256, torch.Generator().manual_seed(3))
    action = state @ new.T
    exact = ExactCritic(system, new, task.discount)(state, action)

    def miss(q):
        return float((q(state.float(), action.float()).detach().double() - exact).std())

    assert miss(again) < 0.7 * miss(critic)
    double = critics.refit_critic(task, policy, again.double(), updates=1)
    assert next(double.parameters()).dtype == torch.float64
