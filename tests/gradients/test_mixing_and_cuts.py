"""Gradients of mixed orders against autograd written out, closed forms and known variances.

DDCG's test, action by action: quadratic returns, jumps, and the mixtures that follow from it.

Cut edges against autograd through a loop that is written out with `detach`.

Both orders of a gradient at every action by autograd, written out sample by sample.
"""

import copy
import gc
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import gradlab
from gradlab import Estimator, Tail, systems
from gradlab.data.trajectories import child
from gradlab.errors import InputError
from gradlab.gradients import named, weighted_terms
from gradlab.gradients.setting import as_starts
from gradlab.gradients.trajectory import GradientStop, TermRequest, nodes
from gradlab.gradients.weighted_terms import (
    _inverse_variance,
    _pilot,
    _propagated,
    _swept,
    _tested,
    fitted,
    share_of_first,
)
from gradlab.measurement.arguments import estimators_at, identify
from gradlab.measurement.config import MeasureConfig
from gradlab.networks.interface import act, flat_parameters
from gradlab.networks.policies import Gaussian, log_normal
from gradlab.runs.identity import by_known_name
from gradlab.wording import describe
from tests.gradients.every_horizon import horizon_gradients
from tests.gradients.worlds import GAMMA, SIM, ingredients, linear
from tests.linear_quadratic import lqr_gradient


def squashed(policy, u):
    return u if policy.limit is None else policy.limit * torch.tanh(u)


def both_orders(system, policy, critic, begin, seed, horizon, gamma):
    """Signals at z = (μ, log σ) of every step and sample, and what they are made of.

    Returns:
        first [H + 1, N, 2 da]; returns to go [H + 1, N] with γᵗ; scores [H + 1, N, 2 da]; states.
    """
    policy = copy.deepcopy(policy).requires_grad_(False)
    s, leaves, rewards, scores, states = begin.states, [], [], [], []
    for t in range(horizon + 1):
        mean, log_std = policy.normal(s)
        leaf = torch.zeros(*mean.shape[:1], 2 * mean.shape[1]).double().requires_grad_()
        mean, log_std = mean + leaf[:, : mean.shape[1]], log_std + leaf[:, mean.shape[1] :]
        noise = begin.policy_noise(policy, seed, t)
        u = mean + log_std.exp() * noise
        fixed = (u.detach() - mean) / log_std.exp()
        density = log_normal(fixed, log_std).sum()
        scores.append(torch.autograd.grad(density, leaf, retain_graph=True)[0].detach())
        leaves.append(leaf)
        states.append(s.detach())
        a = squashed(policy, u)
        if t < horizon:
            out = system.step(s, a, begin.dynamics_noise(system, seed, t))
            rewards.append(gamma**t * out.reward)
            s = out.state
    tail = 0.0 * rewards[0] if critic is None else gamma**horizon * critic(s, a)
    returns = torch.stack([*rewards, tail])
    first = torch.autograd.grad(returns.sum(), leaves, allow_unused=True)
    first = [torch.zeros_like(x) if g is None else g for g, x in zip(first, leaves, strict=True)]
    to_go = returns.detach().flip(0).cumsum(dim=0).flip(0)
    return torch.stack(first), to_go, torch.stack(scores), torch.stack(states)


def baseline(states, to_go):
    """Least squares on (1, x, x²) of standardised states that stop at 3."""
    fits = []
    for s, target in zip(states.numpy(), to_go.numpy(), strict=True):
        scale = s.std(axis=0, ddof=1)
        scale = np.where(scale > 0, scale, 1.0)
        x = np.clip((s - s.mean(axis=0)) / scale, -3, 3)
        features = np.concatenate([np.ones_like(x[:, :1]), x, x**2], axis=1)
        weights = np.linalg.lstsq(features, target, rcond=None)[0]
        fits.append((s.mean(axis=0), scale, weights))
    return fits


def explained(fits, states):
    values = []
    for (centre, scale, weights), s in zip(fits, states.numpy(), strict=True):
        x = np.clip((s - centre) / scale, -3, 3)
        values.append(np.concatenate([np.ones_like(x[:, :1]), x, x**2], axis=1) @ weights)
    return torch.from_numpy(np.stack(values))


def pulled_back(policy, states, signals):
    """Σ_t (∂z_t/∂θ)ᵀ signal_t of every sample, [N, P]."""
    parameters, rows = list(policy.parameters()), []
    for i in range(signals.shape[1]):
        z = torch.cat(policy.normal(states[:, i]), dim=1)
        gradient = torch.autograd.grad(z, parameters, signals[:, i])
        rows.append(torch.cat([g.flatten() for g in gradient]))
    return torch.stack(rows)


H = 3


def mixing(actions, system=SIM, horizon=H, critic=None, gamma=GAMMA):
    return Estimator(system, system, actions, Tail(horizon, critic, gamma))


def pilot_signals(policy, critic, starts, seed):
    """Both orders on the pilot, and its baseline, all by autograd and numpy."""
    begin = _pilot(as_starts(starts, 2), starts)
    first, to_go, scores, states = both_orders(
        SIM, policy, critic, begin, child(seed, "pilot"), H, GAMMA
    )
    fits = baseline(states, to_go)
    zeroth = (to_go - explained(fits, states))[..., None] * scores
    return first, zeroth, fits


@pytest.mark.parametrize("squash", [False, True])
def test_ivw_is_the_mixture_written_out(squash):
    policy, critic, starts = ingredients(squash)
    policy.requires_grad_(True)
    first, zeroth, fits = pilot_signals(policy, critic, starts, 5)
    v1, v0 = first.var(dim=1), zeroth.var(dim=1)
    share = (v0 / (v0 + v1))[:, None]
    begin = as_starts(starts, 2)
    first, to_go, scores, states = both_orders(SIM, policy, critic, begin, 5, H, GAMMA)
    zeroth = (to_go - explained(fits, states))[..., None] * scores
    want = pulled_back(policy, states, share * first + (1 - share) * zeroth)
    got = mixing("ivw", critic=critic).gradients(policy, starts, seed=5)
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    assert float(share.min()) > 0.05
    assert float(share.max()) < 0.999


def test_total_propagation_passes_the_mixture_on():
    """The sweep against one that differentiates z of every step by autograd, sample by sample."""
    policy, critic, starts = ingredients()
    asked = TermRequest(policy, as_starts(starts, 2), (H,), 5, "ignore")
    estimator = mixing("total", critic=critic)
    here, fit = nodes(estimator, asked), fitted(estimator, asked, _propagated)
    advantage = here.advantage(fit.baseline)
    got = _swept(here, advantage, lambda t, inside, first, zeroth: fit.shares[inside, t])[0]
    path = here.linear.path
    assert fit.shares.min() > 0.01
    assert fit.shares.max() < 0.999
    s_n = path.states[H].clone().requires_grad_()
    a_n = path.actions[H].clone().requires_grad_()
    p, through = torch.autograd.grad(critic(s_n, a_n).sum(), (s_n, a_n))
    for t in reversed(range(H + 1)):
        s = path.states[t].clone().requires_grad_()
        if t < H:
            a = path.actions[t].clone().requires_grad_()
            out = SIM.step(s, a, path.dynamics_noise[t])
            value = out.reward + GAMMA * (out.state * p).sum(dim=1)
            p, through = torch.autograd.grad(value.sum(), (s, a))
        mean, log_std = policy.normal(s)
        z = torch.cat([mean, log_std], dim=1).detach().requires_grad_()
        a = z[:, :2] + z[:, 2:].exp() * path.policy_noise[t]
        first = torch.autograd.grad((a * through).sum(), z)[0]
        u = path.actions[t]
        density = torch.distributions.Normal(z[:, :2], z[:, 2:].exp()).log_prob(u).sum(dim=1)
        weight = advantage[0, t] / GAMMA**t
        zeroth = torch.autograd.grad((density * weight).sum(), z)[0]
        mix = fit.shares[0, t] * first + (1 - fit.shares[0, t]) * zeroth
        torch.testing.assert_close(got[t], GAMMA**t * mix, rtol=1e-9, atol=1e-11)
        shown = torch.cat(policy.normal(s), dim=1)
        p = p + torch.autograd.grad(shown, s, mix)[0]


def test_total_propagations_limits_are_both_orders():
    policy, critic, starts = ingredients(squash=True)
    asked = TermRequest(policy, as_starts(starts, 2), (0, 2, H), 5, "mask")
    here = nodes(mixing("total", critic=critic), asked)
    ones = _swept(here, here.to_go, lambda t, k, *_: torch.ones(len(k), 1, 1))
    torch.testing.assert_close(ones, here.first, rtol=1e-9, atol=1e-12)
    none = _swept(here, here.to_go, lambda t, k, *_: torch.zeros(len(k), 1, 1))
    torch.testing.assert_close(none, here.draws.zeroth(here.to_go), rtol=1e-9, atol=1e-12)
    score = named.likelihood_ratio(SIM, critic, GAMMA, H).gradients(policy, starts, 5, "mask")
    zeroth = pulled_back(policy, here.linear.path.states, none[2])
    torch.testing.assert_close(zeroth, score, rtol=1e-8, atol=1e-10)


def test_total_propagation_weighs_by_the_trace_of_the_variance_in_theta():
    policy, critic, starts = ingredients()
    first, zeroth, fits = pilot_signals(policy, critic, starts, 5)
    begin = _pilot(as_starts(starts, 2), starts)
    states = both_orders(SIM, policy, critic, begin, child(5, "pilot"), H, GAMMA)[3]
    of_last = [pulled_back(policy, states[H:], x[H:]).var(dim=0).sum() for x in (first, zeroth)]
    asked = TermRequest(policy, as_starts(starts, 2), (H,), 5, "ignore")
    fit = fitted(mixing("total", critic=critic), asked, _propagated)
    want = of_last[1] / (of_last[0] + of_last[1])
    torch.testing.assert_close(fit.shares[0, H].squeeze(), want, rtol=1e-9, atol=0)
    weights = torch.from_numpy(np.stack([weights for *_, weights in fits]))
    torch.testing.assert_close(fit.baseline.weights[0], weights, rtol=1e-7, atol=1e-8)


def one_step(reward):
    def step(s, a):
        return s, reward(a[:, 0])

    return systems.from_function(step, state_dim=1, action_dim=1)


def test_the_share_of_known_variances():
    """r = a², a = σ ε about 0: ∂r/∂a = 2 σ ε of variance 4 σ², and the score less its baseline
    (σ² ε² − σ²) ε/σ of variance σ² E(ε³ − ε)² = 10 σ²."""
    policy = Gaussian(nn.Linear(1, 1, bias=False).double(), 0.5)
    policy.policy.weight.data.zero_()
    starts = torch.ones(40, 1).double()
    shares = []
    for seed in range(24):
        asked = TermRequest(policy, as_starts(starts, 1), (1,), seed, "ignore")
        shares.append(fitted(mixing("ivw", one_step(torch.square), 1), asked, _inverse_variance))
    mean = torch.stack([fit.shares[0, 0, 0, 0] for fit in shares]).mean()
    assert abs(float(mean) - 10 / 14) < 0.02
    assert share_of_first(torch.tensor(0.0), torch.tensor(0.0)) == 1
    assert share_of_first(torch.tensor(1.0), torch.tensor(torch.inf)) == 0
    assert share_of_first(torch.tensor(torch.inf), torch.tensor(1.0)) == 1


@pytest.mark.parametrize("actions", ["ivw", "ddcg", "total"])
def test_the_mean_is_the_closed_form_of_linear_quadratic_systems(actions):
    system, gamma = linear(), 0.9
    policy = Gaussian(nn.Linear(2, 1, bias=False).double(), 0.4)
    policy.policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    starts = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0)).double()
    S = torch.tensor([[0.16]]).double()
    want = lqr_gradient(
        system, policy.policy.weight.detach(), starts[:, :, None] * starts[:, None], gamma,
        "all", 3, S,
    )  # fmt: skip
    error, spread = {}, {}
    for way in (actions, "score", "all"):
        model = None if way == "score" else system
        G = Estimator(system, model, way, Tail(3, None, gamma)).gradients(policy, starts)
        gap = G - want
        error[way] = float((gap.mean(dim=0) / gap.std(dim=0)).abs().max()) * len(G) ** 0.5
        spread[way] = float(G.var(dim=0).sum())
    assert error[actions] < 3.5
    # Each step's weights are its own, and steps are correlated: no least variance of their sum.
    assert spread[actions] < 1.5 * spread["all"] < 0.01 * spread["score"]


@pytest.mark.parametrize("actions", ["ivw", "ddcg", "total"])
def test_gradients_depend_neither_on_blocks_nor_on_other_horizons(actions):
    policy, critic, starts = ingredients()
    estimator = mixing(actions, critic=critic)
    whole = estimator.gradients(policy, starts, seed=5)
    for block in (2, 100):
        found = horizon_gradients(estimator, policy, starts, seed=5, block=block)
        torch.testing.assert_close(found.means[-1], whole.mean(dim=0), rtol=1e-9, atol=1e-12)
        norms = whole.square().sum(dim=1)
        torch.testing.assert_close(found.squared_norms[-1], norms, rtol=1e-9, atol=1e-12)
    short = replace(estimator, tail=replace(estimator.tail, horizon=1))
    rows = horizon_gradients(estimator, policy, starts, horizons=(1,), seed=5).means[0]
    mean = short.mean_gradient(policy, starts, seed=5)
    torch.testing.assert_close(rows, mean, rtol=1e-9, atol=1e-12)


def in_place(policy):
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(0.1)


def by_data(policy):
    for p in policy.parameters():
        p.data += 0.1


def by_vector(policy):
    nn.utils.vector_to_parameters(flat_parameters(policy) + 0.1, policy.parameters())


@pytest.mark.parametrize("move", [in_place, by_data, by_vector])
def test_the_pilot_shares_no_noise_and_follows_a_policy_that_is_trained_in_place(move):
    policy, critic, starts = ingredients()
    begin = as_starts(starts, 2)
    estimator = mixing("ivw", critic=critic)
    asked = TermRequest(policy, begin, (H,), 5, "ignore")
    before = fitted(estimator, asked, _inverse_variance)
    assert fitted(estimator, asked, _inverse_variance) is before
    move(policy)
    after = fitted(estimator, asked, _inverse_variance)
    fresh = fitted(estimator, asked.elsewhere(as_starts(starts, 2)), _inverse_variance)
    assert (after.shares - before.shares).abs().max() > 0
    assert torch.equal(after.shares, fresh.shares)
    draws = _pilot(begin, starts).policy_noise(policy, child(5, "pilot"), 0)
    assert not torch.isin(draws, begin.policy_noise(policy, 5, 0)).any()


def test_weights_keep_no_policy_alive_and_follow_the_critic():
    policy, critic, starts = ingredients()
    begin, estimator = as_starts(starts, 2), mixing("ivw", critic=critic)
    asked = TermRequest(policy, begin, (H,), 5, "ignore")
    before = fitted(estimator, asked, _inverse_variance)
    by_vector(critic)
    assert not torch.equal(fitted(estimator, asked, _inverse_variance).shares, before.shares)
    for _ in range(3):
        other = copy.deepcopy(policy)
        fitted(estimator, replace(asked, policy=other, paths={}, made={}), _inverse_variance)
    seen = weakref.ref(other)
    del other
    gc.collect()
    assert seen() is None and len(begin.fits) == 1


STD = 0.5


def affine(weight, bias=0.0):
    policy = Gaussian(nn.Linear(1, 1).double(), STD)
    policy.policy.weight.data.fill_(weight)
    policy.policy.bias.data.fill_(bias)
    return policy


def paid_by(reward):
    """Rewards of the action and the step; the state counts steps, whatever the action."""

    def step(s, a):
        return s + 1.0, reward(s[:, 0], a[:, 0])

    return systems.from_function(step, state_dim=1, action_dim=1)


def shares(system, policy, horizon, rule, seed=0):
    asked = TermRequest(
        policy, as_starts(torch.zeros(50, 1).double(), 1), (horizon,), seed, "ignore"
    )
    estimator = Estimator(system, system, "ddcg", Tail(horizon, None, 0.9))
    return fitted(estimator, asked, rule).shares[0]


def test_a_pair_explains_a_quadratic_return_to_the_last_digit():
    """f′ − f = ½ (∇ + ∇′)·(ε′ − ε) needs the same noise in all other steps and systems."""
    policy = Gaussian(nn.Linear(2, 1).double(), 0.4)
    starts, system = torch.randn(40, 2).double(), linear()
    asked = TermRequest(policy, as_starts(starts, 2), (2, 3), 5, "ignore")
    estimator = Estimator(system, system, "ddcg", Tail(3, None, 0.9))
    pilot = asked.elsewhere(_pilot(asked.starts, starts), child(5, "pilot"))
    here = nodes(estimator, pilot)
    slopes = here.draws.slope * here.draws.std  # of an unsquashed policy: std
    first = here.first[..., :1] * slopes
    for t in range(3):
        left = tuple(n - t for n in here.horizons)
        f, slope, moved = weighted_terms._redrawn(here, pilot, t, left)
        change = f - here.to_go[:, t, : weighted_terms.PAIRS]
        both = slope + first[:, t, : weighted_terms.PAIRS]
        torch.testing.assert_close(0.5 * (both * moved).sum(2), change, rtol=1e-8, atol=1e-10)
        assert moved.abs().min() > 0


def test_smooth_returns_keep_the_weights_of_inverse_variance():
    policy, critic, starts = ingredients(squash=True)
    asked = TermRequest(policy, as_starts(starts, 2), (0, 3), 5, "ignore")
    estimator = Estimator(SIM, SIM, "ddcg", Tail(3, critic, GAMMA))
    plain = fitted(Estimator(SIM, SIM, "ivw", estimator.tail), asked, _inverse_variance)
    assert torch.equal(fitted(estimator, asked, _tested).shares, plain.shares)


@pytest.mark.parametrize("seed", range(3))
def test_the_step_that_jumps_is_left_to_the_score(seed):
    def reward(s, a):
        return torch.where(s == 1, (a > 0.2).double() - 0.1 * a, -(a**2))

    policy = affine(0.0)
    found = shares(paid_by(reward), policy, 3, _tested, seed)[:3, 0, 0]
    assert found[1] == 0
    assert found[0] > 0.5
    assert found[2] > 0.5
    trusting = shares(paid_by(reward), policy, 3, _inverse_variance, seed)[:3, 0, 0]
    assert trusting[1] > 0.99  # a pathwise gradient without variance, and wrong


@pytest.mark.parametrize("terminal", ["jump", "smooth"])
def test_the_mean_of_ddcg_is_right_where_the_pathwise_gradient_is_not(terminal):
    """E 1[a > c] has the gradient φ((c − μ)/σ)/σ in μ, of which the pathwise one sees nothing."""
    edge, slope = 0.2, 0.3

    def reward(s, a):
        return (a > edge).double() - slope * a if terminal == "jump" else torch.tanh(a)

    system, policy = paid_by(reward), affine(0.0, 0.1)
    nodes_, weights = torch.tensor([[-1.0, 1.0]]), None
    if terminal == "jump":
        z = (edge - 0.1) / STD
        want = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / STD - slope
    else:  # Gauss–Hermite
        import numpy as np

        nodes_, weights = (torch.from_numpy(x) for x in np.polynomial.hermite_e.hermegauss(40))
        want = float((weights / weights.sum() * (1 - torch.tanh(0.1 + STD * nodes_) ** 2)).sum())
    starts = torch.zeros(4000, 1).double()
    error = {}
    for way in ("ddcg", "ivw", "all"):
        estimator = Estimator(system, system, way, Tail(1, None, 0.9))
        G = estimator.gradients(policy, starts, seed=1)[:, 1]
        error[way] = (float(G.mean()) - want, float(G.std()) / len(G) ** 0.5)
    assert abs(error["ddcg"][0]) < 3.5 * error["ddcg"][1]
    if terminal == "jump":
        for way in ("ivw", "all"):
            assert abs(error[way][0]) > 0.5
    else:
        assert error["ddcg"] == error["ivw"]
        assert error["ddcg"][1] < error["all"][1] * 1.05


CHOSEN = ((True, 1.0, 0), (False, 0.8, 0), (False, 1.0, 1), (False, 1.0, 2), (False, 0.7, 2))
CUTS = [GradientStop(*each) for each in CHOSEN]


def moved(model, s, a, xi, cut):
    """The next state, from one that is detached or partly so."""
    s = s.detach() if cut.transition else s
    return model.step(cut.decay * s + (1 - cut.decay) * s.detach(), a, xi).state


def loop(model, policy, critic, starts, horizon, every, cut, seed):
    """Per-sample gradients of Σ γᵗ r_t + γⁿ Q by autograd through detached values."""
    begin, frozen = as_starts(starts, 2), copy.deepcopy(policy)
    s, total = begin.states, 0.0
    for t in range(horizon + 1):
        chosen = policy if every or t == 0 else frozen
        a = act(chosen, s, begin.policy_noise(policy, seed, t))
        if t == horizon:
            break
        xi = begin.dynamics_noise(model, seed, t)
        paid = model.step(s, a, xi).reward
        total = total + GAMMA**t * paid
        s = moved(model, s, a, xi, cut)
        s = s.detach() if cut.stop and (t + 1) % cut.stop == 0 else s
    total = total + GAMMA**horizon * critic(s, a)
    parameters = list(policy.parameters())
    rows = [torch.autograd.grad(x, parameters, retain_graph=True) for x in total]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


@pytest.mark.parametrize("cut", CUTS, ids=str)
@pytest.mark.parametrize("actions", ["first", "all"])
def test_a_cut_gradient_is_that_of_the_detached_loop(cut, actions):
    policy, critic, starts = ingredients()
    estimator = Estimator(SIM, SIM, actions, Tail(3, critic, GAMMA), cut=cut)
    got = estimator.gradients(policy, starts, seed=5)
    want = loop(SIM, policy, critic, starts, 3, actions == "all", cut, 5)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    whole = replace(estimator, cut=GradientStop()).gradients(policy, starts, seed=5)
    assert (got - whole).norm() > 1e-3 * whole.norm()


def test_one_cut_leaves_the_estimators_beside_it_whole():
    """Paths and Jacobians are shared in a measurement; what is cut is not."""
    task = gradlab.tasks.linear_quadratic(discount=0.8)
    policy = nn.Linear(2, 1).double()
    policy.weight.data = torch.tensor([[-0.6, -0.9]]).double()
    whole = named.bptt(task.simulator, task.discount, 4)
    first = replace(named.bptt(task.simulator, task.discount, 4), actions="first")
    cut = GradientStop(transition=True)
    chosen = {"whole": whole, "cut": replace(whole, cut=cut), "all": replace(whole)}
    chosen |= {"first": first, "first cut": replace(first, cut=cut), "one": replace(first)}
    profile = gradlab.measure(
        task, policy, None, chosen, horizon=4, starts=64, judges=4, rehearse=False
    )
    norm = profile.table().set_index(["estimator", "quantity", "horizon"]).value
    assert norm["whole", "mean_norm", 4] == norm["all", "mean_norm", 4]
    assert norm["first", "mean_norm", 4] == norm["one", "mean_norm", 4]
    for name in ("whole", "first"):
        one_step, cut_name = norm[name, "mean_norm", 1], {"whole": "cut"}.get(name, "first cut")
        assert norm[cut_name, "mean_norm", 1] == one_step
        assert abs(norm[cut_name, "mean_norm", 4] / norm[name, "mean_norm", 4] - 1) > 0.01
    assert profile.config["cut"] == {"cut": "transition", "first cut": "transition"}


def test_a_soft_gradient_is_cut_at_the_density_of_later_actions_too():
    policy, critic, starts = ingredients()
    soft = replace(named.maac(SIM, critic, GAMMA, 2, 0.3), cut=GradientStop(transition=True))
    begin = as_starts(starts, 2)
    s, total = begin.states, 0.0
    for t in range(3):
        a, density = policy.with_log_prob(s, begin.policy_noise(policy, 5, t))
        total = total - GAMMA**t * 0.3 * density
        if t == 2:
            total = total + GAMMA**2 * critic(s, a)
            break
        noise = begin.dynamics_noise(SIM, 5, t)
        total = total + GAMMA**t * SIM.step(s, a, noise).reward
        s = SIM.step(s.detach(), a, noise).state
    want = torch.autograd.grad(total.mean(), list(policy.parameters()))
    got = soft.mean_gradient(policy, starts, seed=5)
    torch.testing.assert_close(got, torch.cat([g.flatten() for g in want]), rtol=1e-9, atol=1e-11)
    norms = horizon_gradients(soft, policy, starts, horizons=(2,), seed=5)
    torch.testing.assert_close(norms.means[0], got, rtol=1e-9, atol=1e-11)


def test_decay_has_a_name_of_its_own_beside_the_default_estimators():
    task = gradlab.tasks.linear_quadratic(discount=0.8)
    chosen = estimators_at(task, lambda s, a: -(s**2).sum(1), None, 4, also=("decay_0.9",))
    decayed = chosen["true_dynamics_decay_0.9"]
    assert decayed.cut == GradientStop(decay=0.9) and decayed.actions == "all"
    made = identify(chosen, task.simulator)["true_dynamics_decay_0.9"]
    known = by_known_name(["true_dynamics_decay_0.9"])["true_dynamics_decay_0.9"]
    assert made.cut == known.cut == "decay 0.9"
    assert describe(made) == ("the simulator", "BPTT, decay 0.9")
    stopped = estimators_at(task, lambda s, a: -(s**2).sum(1), None, 4, also=("stop_3",))
    made = identify(stopped, task.simulator)["true_dynamics_stop_3"]
    assert stopped["true_dynamics_stop_3"].cut == GradientStop(stop=3)
    assert made.cut == by_known_name(["true_dynamics_stop_3"])["true_dynamics_stop_3"].cut
    assert describe(made) == ("the simulator", "BPTT, stop 3")
    for name in (
        "stop_0",
        "stop_-1",
        "stop_2.5",
        "decay_1",
        "decay_-0.1",
        "decay_much",
        "decay_nan",
    ):
        with pytest.raises(InputError, match=rf"also is '{name}', expected one of"):
            MeasureConfig(also=(name,))
    with pytest.raises(InputError, match="decay of a cut is 2, expected a number from 0 to 1"):
        GradientStop(decay=2)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: GradientStop(("transition",)), "transition of a cut is .*True or False"),
        (
            lambda: replace(named.bptt(linear(), 0.9, 2), cut="observation"),
            "expected a GradientStop",
        ),
        (
            lambda: replace(
                named.likelihood_ratio(linear(), None, 0.9, 2), cut=GradientStop(transition=True)
            ),
            "nothing is differentiated",
        ),
    ],
)
def test_cuts_without_meaning_are_refused(make, word):
    with pytest.raises(InputError, match=word):
        make()
