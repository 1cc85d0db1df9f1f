"""Named estimators agree where the papers say they do, and with their definitions.

BPTT from replayed states: against the closed form of a linear-quadratic world.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

import gradlab
from gradlab import Estimator, Tail
from gradlab.data import record_files
from gradlab.data.trajectories import segments, stream
from gradlab.errors import InputError
from gradlab.gradients import named
from gradlab.gradients.named import Mixture
from gradlab.gradients.rollout import record, rollout
from gradlab.gradients.setting import as_starts
from gradlab.networks.policies import Gaussian, GaussianPolicy
from tests.gradients.every_horizon import horizon_gradients
from tests.gradients.worlds import (
    GAMMA,
    MODEL,
    SIM,
    Critic,
    ingredients,
    linear,
    network,
    nonlinear,
    same,
)
from tests.linear_quadratic import lqr_gradient
from tests.truth.linear_policies import feedback


def test_the_unified_gradient_at_horizon_zero_is_the_data_driven_one():
    policy, critic, starts = ingredients()
    data = named.data_driven(SIM, critic, GAMMA)
    same(named.unified(MODEL, critic, GAMMA, 0), data, policy, starts)
    same(named.rp_dp(MODEL, critic, GAMMA, 0), named.rp0(SIM, critic, GAMMA), policy, starts)
    same(named.svg0(SIM, critic, GAMMA), data, policy, starts)


def test_with_an_exact_model_everybody_is_the_true_dynamics():
    policy, critic, starts = ingredients()
    exact = nonlinear()  # another object with the same dynamics
    truth = named.true_dynamics(SIM, critic, GAMMA, 4)
    same(named.model_driven(exact, critic, GAMMA, 4), truth, policy, starts)
    same(named.rp_dp(exact, critic, GAMMA, 4), truth, policy, starts)
    soft = named.ddppo(SIM, SIM, critic, GAMMA, 4, 0.2)
    same(soft, named.maac(exact, critic, GAMMA, 4, 0.2), policy, starts)


@pytest.mark.parametrize("squash", [False, True])
def test_rp_dr_on_recorded_transitions_infers_the_noise_that_made_them(squash):
    torch.manual_seed(0)
    system, model = linear(), linear(0.9)
    policy, critic = (
        GaussianPolicy(2, 1, hidden=(8,), squash=squash, limit=None).double(),
        Critic(3),
    )
    starts = torch.randn(7, 2, dtype=torch.float64)
    path = rollout(system, policy, as_starts(starts, 2), 4, seed=5)
    forgotten = replace(
        path, policy_noise=path.policy_noise[..., :0], dynamics_noise=path.dynamics_noise[..., :0]
    )
    recorded = named.rp_dr(model, critic, GAMMA, 4).gradients(policy, forgotten)
    spliced = Estimator(system, model, "all", Tail(4, critic, GAMMA))
    torch.testing.assert_close(
        recorded, spliced.gradients(policy, starts, seed=5), rtol=1e-8, atol=1e-9
    )
    exact = named.rp_dr(system, critic, GAMMA, 4).gradients(policy, forgotten)
    truth = named.true_dynamics(system, critic, GAMMA, 4).gradients(policy, starts, seed=5)
    torch.testing.assert_close(exact, truth, rtol=1e-8, atol=1e-9)


def test_rp_dr_runs_on_trajectories_from_a_file(tmp_path):
    torch.manual_seed(0)
    system, policy, critic = linear(), GaussianPolicy(2, 1, hidden=(8,)).double(), Critic(3)
    record(system, policy, torch.randn(5, 2).double(), 9).save(tmp_path / "data.h5")
    path = segments(record_files.read(tmp_path / "data.h5"), 3)
    assert len(path.group.unique()) == 5
    found = horizon_gradients(
        named.rp_dr(linear(0.9), critic, GAMMA, 3), policy, as_starts(path, 2), block=4
    )
    assert torch.isfinite(found.means).all()
    value = Critic(2)
    weighted = named.importance_weighted(path, policy, torch.zeros(path.states.shape[1]).double())
    ratio = policy.log_prob(path.states[0], path.actions[0]).detach().exp()
    one = named.svg1(linear(0.9), value, GAMMA)
    plain, scaled = one.gradients(policy, path), one.gradients(policy, weighted)
    torch.testing.assert_close(scaled, plain * ratio[:, None])


def test_a_mixture_is_the_weighted_sum_of_its_parts():
    policy, critic, starts = ingredients()
    weights = {0: 0.2, 3: 0.5, 5: 0.3}
    mixed = named.general_mpg(SIM, MODEL, critic, GAMMA, weights)
    parts = [
        weight * named.unified(MODEL, critic, GAMMA, n).gradients(policy, starts)
        for n, weight in weights.items()
    ]
    torch.testing.assert_close(mixed.gradients(policy, starts), sum(parts))
    torch.testing.assert_close(mixed.mean_gradient(policy, starts), sum(parts).mean(dim=0))
    two = named.mpg(SIM, MODEL, critic, GAMMA, 3, data_weight=1.0)
    same(two, named.data_driven(SIM, critic, GAMMA), policy, starts)
    with pytest.raises(InputError, match="0 must be among them"):
        named.general_mpg(SIM, MODEL, critic, GAMMA, {3: 1.0})
    with pytest.raises(InputError, match="parts is empty"):
        Mixture(())


def test_bptt_is_the_derivative_of_the_return():
    policy, _, starts = ingredients()
    path_noise = as_starts(starts, 2)
    got = named.bptt(SIM, GAMMA, 5).gradients(policy, starts)

    def returns():
        s, total = starts, 0.0
        for t in range(5):
            a = policy(s, path_noise.policy_noise(policy, 0, t))
            out = SIM.step(s, a, path_noise.dynamics_noise(SIM, 0, t))
            total, s = total + GAMMA**t * out.reward, out.state
        return total

    grads = torch.autograd.grad(returns().sum(), list(policy.parameters()))
    torch.testing.assert_close(got.sum(dim=0), torch.cat([g.flatten() for g in grads]))


@pytest.mark.parametrize("termination", ["ignore", "mask"])
@pytest.mark.parametrize("squash", [False, True])
def test_scores_are_log_density_gradients_times_returns_to_go(squash, termination):
    policy, critic, starts = ingredients(squash)
    begin = as_starts(starts, 2)
    for n, q in ((0, critic), (3, critic), (3, None)):
        got = named.likelihood_ratio(SIM, q, GAMMA, n).gradients(policy, starts, 5, termination)
        path = rollout(SIM, policy, begin, n, seed=5)
        tail = critic(path.states[n], path.actions[n]).detach() if q is not None else 0.0
        for i in range(len(starts)):
            total = 0.0
            for t in range(n + (q is not None)):
                to_go = sum(GAMMA**k * path.rewards[k, i] for k in range(t, n))
                to_go = to_go + (GAMMA**n * tail[i] if q is not None else 0.0)
                density = policy.log_prob(path.states[t, i : i + 1], path.actions[t, i : i + 1])
                total = total + density[0] * to_go
            grads = torch.autograd.grad(total, list(policy.parameters()))
            flat = torch.cat([g.flatten() for g in grads])
            torch.testing.assert_close(got[i], flat, rtol=1e-8, atol=1e-10)


def test_score_and_pathwise_gradients_have_one_mean():
    torch.manual_seed(0)
    system, critic = linear(), Critic(3)
    policy = Gaussian(network((2, 6, 1), nn.Tanh), 0.5)
    starts = 0.5 * torch.randn(1, 2).double().expand(40000, 2)
    first = named.model_driven(system, critic, GAMMA, 3)
    zeroth = named.likelihood_ratio(system, critic, GAMMA, 3)
    G1, G0 = (each.gradients(policy, starts, seed=1) for each in (first, zeroth))
    gap = G1 - G0
    error = gap.std(dim=0) / len(gap) ** 0.5
    assert (gap.mean(dim=0).abs() <= 4.5 * error).all()
    assert G0.var(dim=0).sum() > 5 * G1.var(dim=0).sum()


def test_all_horizons_of_a_score_equal_one_at_a_time():
    policy, critic, starts = ingredients()
    found = horizon_gradients(
        named.likelihood_ratio(SIM, critic, GAMMA, 4), policy, as_starts(starts, 2), block=4
    )
    for n in found.horizons:
        G = named.likelihood_ratio(SIM, critic, GAMMA, n).gradients(policy, starts)
        torch.testing.assert_close(found.means[n], G.mean(dim=0), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.squared_norms[n], (G**2).sum(dim=1), rtol=1e-9, atol=1e-12)


def test_entropy_adds_the_gradient_of_the_soft_return():
    policy, critic, starts = ingredients()
    begin, alpha = as_starts(starts, 2), 0.3
    got = named.maac(MODEL, critic, GAMMA, 3, alpha).gradients(policy, starts)

    def soft_returns():
        s, total = starts, 0.0
        for t in range(4):
            a = policy(s, begin.policy_noise(policy, 0, t))
            price = alpha * policy.log_prob(s, a)
            if t == 3:
                return total + GAMMA**t * (critic(s, a) - price)
            out = MODEL.step(s, a, begin.dynamics_noise(MODEL, 0, t))
            total, s = total + GAMMA**t * (out.reward - price), out.state

    grads = torch.autograd.grad(soft_returns().sum(), list(policy.parameters()))
    torch.testing.assert_close(got.sum(dim=0), torch.cat([g.flatten() for g in grads]))


DISCOUNT = 0.8


def world():
    return gradlab.tasks.linear_quadratic(discount=DISCOUNT), feedback(0.6, 0.9)


def visited_moment(task, W):
    """E_ν[s sᵀ] = (1 − γ) Σ_t γᵗ E[s_t s_tᵀ]."""
    p = {k: torch.tensor(task.parameters[k]) for k in ("A", "B", "noise_covariance")}
    p = {k: x.double() for k, x in p.items()}
    loop, moment, total = p["A"] + p["B"] @ W, torch.eye(2).double(), torch.zeros(2, 2).double()
    for t in range(300):
        total += (1 - DISCOUNT) * DISCOUNT**t * moment
        moment = loop @ moment @ loop.T + p["noise_covariance"]
    return total


@pytest.mark.parametrize("n", [1, 5])
def test_it_is_the_gradient_of_the_models_return_from_visited_states(n):
    """Without a tail: ∇_W E_ν[V_n] of the model, over 1 − γⁿ⁺¹; the simulator moves the starts."""
    task, policy = world()
    model = task.prior
    W = policy.weight.detach()
    want = lqr_gradient(model, W, visited_moment(task, W), DISCOUNT, "all", n) / (
        1 - DISCOUNT ** (n + 1)
    )
    estimator = Estimator(model, model, "replayed", Tail(n, None, DISCOUNT), replay=task.simulator)
    G = estimator.gradients(policy, task.starts(8192, stream(3, "starts")))
    error = G.std(dim=0) / len(G) ** 0.5
    assert ((G.mean(dim=0) - want).abs() < 4 * error).all()
    from_starts = lqr_gradient(model, W, torch.eye(2).double(), DISCOUNT, "all", n)
    assert ((G.mean(dim=0) - from_starts).abs() > 10 * error).any()


def test_blocks_replay_what_the_whole_batch_replays():
    task, policy = world()
    tail = Tail(3, Critic(3), DISCOUNT)
    estimator = Estimator(task.prior, task.prior, "replayed", tail, replay=task.simulator)
    starts = task.starts(1500, stream(4, "starts"))  # more than a block
    whole = estimator.gradients(policy, starts).mean(dim=0)
    torch.testing.assert_close(estimator.mean_gradient(policy, starts), whole)


def test_without_steps_it_is_the_data_gradient():
    """In a measurement, at horizon 0, of visited states too, and over 1 − γ."""
    task, policy = world()
    profile = gradlab.measure(
        task,
        policy,
        Critic(3),
        horizon=1,
        starts=128,
        judges=4,
        rehearse=False,
        also=("replayed",),
    )
    table = profile.table().set_index(["estimator", "quantity", "horizon"])
    norm = table.loc[(slice(None), "mean_norm", 0), ["ci_low", "ci_high"]].droplevel([1, 2])
    data, replayed = norm.loc["data"], norm.loc["model_replayed"]
    assert replayed.ci_low < data.ci_high and data.ci_low < replayed.ci_high
    cosine = table.loc[("model_replayed", "bias2", 1)]
    assert cosine.n and cosine.value == cosine.value


def test_whose_states_are_replayed_is_asked_for():
    task, _ = world()
    plain = Estimator(task.prior, task.prior, "all", Tail(2, None, DISCOUNT))
    with pytest.raises(InputError, match="needs the system whose visited states"):
        replace(plain, actions="replayed")
    with pytest.raises(InputError, match="no other has one"):
        replace(plain, replay=task.simulator)
    with pytest.raises(InputError, match="discount is 1"):
        replace(plain, actions="replayed", replay=task.simulator, tail=Tail(2, None, 1.0))
