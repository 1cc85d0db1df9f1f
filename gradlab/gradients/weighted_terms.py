"""Terms of each horizon's gradient: one Jacobian of the policy, and weights on its rows.

    G_i = Σ_t J_t,iᵀ λ_t,i

    first   t = 0 only,  J = ∂π/∂θ,        λ = g_n                      (MPG eq. 6)
    all     t ≤ n,       J = ∂π/∂θ,        λ = γᵗ λⁿ_t                   (MPG eq. 5, SVG, MAAC)
    replayed  the same of s_0 ~ ν, the discounted visitation, over 1 − γⁿ⁺¹
    score   t ≤ n,       J = ∂ log π/∂θ,   λ = γᵗ Σ_{k≥t} γ^{k−t} r_k     (RP-PGM eq. 2.5)
    ivw, ddcg, total     J = ∂(μ, log σ)/∂θ,  λ mixed of both orders at every action

so means, norms, kernels and variances are written once for all kinds. Of the mixed ones

    ivw     λ_t = w ∂R/∂z_t + (1 − w) R ∂ log π/∂z_t,  w = v₀/(v₀ + v₁) for each step and entry of z
            (IVW-H: Onoda et al. 2026, arXiv 2604.18161, appendix E, eq. 16–18)
    ddcg    the same where the return is smooth in the action's noise, w = 0 where it is not
    total   w for each step by the trace of the variance in θ, and what is mixed at an action goes
            on backwards (total propagation: Parmas et al. 2018, PIPPS, algorithm 2):
            p_t = r_s + γ Aᵀ p_{t+1} + (∂z/∂s)ᵀ λ_t

R is the return to go with its tail, less a baseline. v₁, v₀ are sample variances of both orders
over a pilot of 256 paths from the measured starts, on streams of its own: weights and baselines are
constants of the samples, and a mixture of two unbiased orders is unbiased given the starts.

DDCG's test (the same paper, eq. 14, 15), action by action: is Var f of the return as a function of
ε_t that of its gradient? From pairs (ε, ε′) with ∇, ∇′, all other noise held,

    smooth where  E[(½ (∇ + ∇′)·(ε′ − ε))²] ≥ (1 − c) E(f′ − f)²,   c = 0.3

whose sides agree pair by pair where f is quadratic. It takes H/2 further Jacobians per step and
pair.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.data.trajectories import child
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import (
    action_gradients,
    discounted_costates,
    geometric_times,
    jacobian_noise,
    linearize_path,
    recorded_with_jacobians,
    rollout,
    rollout_with_jacobians,
    states_at,
    tail_gradient,
)
from gradlab.gradients.setting import Starts, Tail, policy_noise_at
from gradlab.gradients.trajectory import (
    Baseline,
    Choices,
    CostateTerms,
    Nodes,
    TermRequest,
    draws_along,
    fitted_baseline,
    isolated,
    nodes,
    returns_to_go,
    stop_gradients,
)
from gradlab.networks.interface import noise_dim
from gradlab.networks.policies import check_stochastic
from gradlab.systems.system import Recorded, System

PAIRS = 64
_SLACK = 0.3  # c, the paper's for all its tasks


class _LogDensity(nn.Module):
    """log π_θ(a|s) as an "action" of width 1; what fixes a stands in the place of noise.

    a is fixed by itself where it was recorded, by the noise that drew it in a rollout: a squashed
    action that rounds to its limit has lost the noise, and with it its score.
    """

    def __init__(self, policy: nn.Module, width: int, drawn: bool) -> None:
        super().__init__()
        self.policy, self.noise_dim, self.drawn = policy, width, drawn

    def forward(self, state: Tensor, fixed: Tensor) -> Tensor:
        policy: Any = self.policy
        density = policy.log_prob_of_draw if self.drawn else policy.log_prob
        log_prob: Tensor = density(state, fixed)
        return log_prob[:, None]


def costate_terms(estimator: Choices, requested: TermRequest) -> CostateTerms:
    """λ and J of an estimator (without entropy: see `with_entropy`) for some of its horizons."""
    return TERMS[estimator.actions](estimator, requested)


def _first(estimator: Choices, requested: TermRequest) -> CostateTerms:
    """θ in the first action."""
    costates = first_costates(estimator, requested)
    states, noise = requested.starts.states, requested.trajectory(estimator).path.policy_noise[0]
    jacobian = policy_jacobian(requested.policy, states, noise)
    return CostateTerms(costates[:, None], jacobian, (0,) * len(costates))


def first_costates(estimator: Choices, requested: TermRequest) -> Tensor:
    """g_n of some horizons, [K, N, da], importance weights included."""
    tail, linear = estimator.tail, requested.trajectory(estimator)
    gradient = tail_gradient(linear.path, tail.critic, tail.value, requested.termination)
    g = action_gradients(linear, gradient, tail.discount)
    return g[list(requested.horizons)] * requested.starts.weight[:, None]


def _every(estimator: Choices, requested: TermRequest) -> CostateTerms:
    """θ in every action."""
    tail, horizons = estimator.tail, requested.horizons
    along = requested.trajectory(estimator)
    gradient = tail_gradient(along.path, tail.critic, tail.value, requested.termination)
    costates = discounted_costates(along, gradient, tail.discount, horizons, tail.terminal_action)
    counted = along.path.alive if requested.termination == "mask" else None
    terms = CostateTerms(costates * requested.starts.weight[:, None], along.jacobian, horizons)
    return isolated(terms, counted)


def _replayed(estimator: Choices, requested: TermRequest) -> CostateTerms:
    """θ in every action from visited states, as replay has them: ∇_θ E_ν[V_n] at fixed ν.

    Over 1 − γⁿ⁺¹ = (1 − γ) Σ_{t≤n} γᵗ it is the data gradient over 1 − γ for n = 0, and differs
    from the gradient of the return by what the law of s_t | s_0 ~ ν differs from ν.
    """
    assert estimator.replay is not None
    gamma, at = estimator.tail.discount, _visited(estimator.replay, estimator.tail, requested)
    terms = _every(estimator, requested.elsewhere(at))
    shares = terms.costates.new_tensor([1 - gamma ** (n + 1) for n in requested.horizons])
    return replace(terms, costates=terms.costates / shares[:, None, None, None])


def _visited(simulator: System, tail: Tail, requested: TermRequest) -> Starts:
    """A state s_T for each start, T ~ Geometric(1 − γ), on noise of its own; with "mask" one past
    an end weighs 0."""
    starts, mask = requested.starts, requested.termination == "mask"
    seed, n = child(requested.seed, "replayed"), len(starts.states)
    when = geometric_times(tail.discount, (starts.of or n,), seed)[starts.begin : starts.begin + n]
    states, alive = states_at(simulator, requested.policy, starts, when[:, None], seed, mask)
    weight = starts.weight * alive if mask else starts.weight
    return replace(starts, states=states, weight=weight, path=None)


def _score(estimator: Choices, requested: TermRequest) -> CostateTerms:
    """θ in the density of every action."""
    policy, starts, horizons = requested.policy, requested.starts, requested.horizons
    seed, termination = requested.seed, requested.termination
    check_stochastic(policy)
    states, horizon = estimator.states, estimator.tail.horizon
    if isinstance(states, Recorded):
        path, _ = recorded_with_jacobians(policy, starts, horizon, seed)
    else:
        path = rollout(states, policy, starts, horizon, seed)
    returns = returns_to_go(estimator, path, horizons, termination)
    drawn = not isinstance(states, Recorded) and hasattr(policy, "log_prob_of_draw")
    fixed = path.policy_noise if drawn else path.actions
    density = _LogDensity(policy, fixed.shape[2], drawn)
    jacobian = policy_jacobian(density, path.states.flatten(0, 1), fixed.flatten(0, 1))
    counted = path.alive if termination == "mask" else None
    return isolated(CostateTerms((returns * starts.weight)[..., None], jacobian, horizons), counted)


def smooth(here: Nodes, pilot: TermRequest) -> Tensor:
    """Where the first order may be used, [K, H + 1] bool; beyond a horizon, anything."""
    tail, steps = here.estimator.tail, here.linear.path.horizon + 1
    costates = discounted_costates(
        here.linear, here.tail, tail.discount, here.horizons, tail.terminal_action
    )
    slopes = here.draws.in_noise(costates)[:, :, :PAIRS]
    passed = torch.ones(len(here.horizons), steps, dtype=torch.bool, device=costates.device)
    for t in range(steps):
        later = [k for k, n in enumerate(here.horizons) if n >= t]
        if not later:
            break
        left = tuple(here.horizons[k] - t for k in later)
        f, slope, moved = _redrawn(here, pilot, t, left)
        change = f - here.to_go[later, t, :PAIRS]
        explained = 0.5 * ((slope + slopes[later, t]) * moved).sum(dim=2)
        least = (1 - _SLACK) * change.square().mean(dim=1)
        passed[later, t] = explained.square().mean(dim=1) >= least
    return passed


def _redrawn(
    here: Nodes, pilot: TermRequest, t: int, left: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """γᵗ f′ [K, n] and γᵗ ∇f′ in ε_t [K, n, da], with that noise redrawn; and ε′ − ε [n, da]."""
    estimator, policy, seed = here.estimator, pilot.policy, pilot.seed
    tail, before = estimator.tail, here.linear.path
    states = before.states[t, :PAIRS]
    fresh = policy_noise_at(policy, len(pilot.starts.states), child(seed, "other"), t, like=states)
    draws = {("policy", seed, t, noise_dim(policy)): fresh}
    at = replace(pilot.starts.block(slice(0, PAIRS)), states=states, draws=draws)
    path, K = rollout_with_jacobians(
        estimator.states, policy, at, before.horizon - t, seed, first=t
    )
    if here.counted is not None:
        path = replace(path, alive=path.alive & here.counted[t, :PAIRS])
    model = estimator.states if estimator.jacobians is None else estimator.jacobians
    noise = jacobian_noise(estimator.states, model, path)
    linear = stop_gradients(linearize_path(path, model, K, noise, pilot.termination), estimator.cut)
    gradient = tail_gradient(path, tail.critic, tail.value, pilot.termination)
    costates = discounted_costates(linear, gradient, tail.discount, left, tail.terminal_action)
    slope = draws_along(policy, path)[0].in_noise(costates[:, 0])
    returns = returns_to_go(estimator, path, left, pilot.termination)[:, 0]
    moved = path.policy_noise[0] - before.policy_noise[t, :PAIRS]
    return tail.discount**t * returns, tail.discount**t * slope, moved


PILOT, SPREAD = 256, 64  # paths; any leading 64 of them are spread over the starts


@dataclass(frozen=True)
class FittedShares:
    """Shares of the first order [K, H + 1, 2 da], or [K, H + 1, 1], and the zeroth's baseline."""

    shares: Tensor
    baseline: Baseline


_Rule = Callable[[Nodes, Tensor, TermRequest], Tensor]  # nodes, advantage, pilot → shares


def fitted(estimator: Choices, requested: TermRequest, rule: _Rule) -> FittedShares:
    """Weights of an estimator, made once for all blocks of a batch while no parameter of policy and
    critic has another value."""
    policy, starts = requested.policy, requested.starts
    asked = requested.horizons, requested.seed, requested.termination
    whole = starts if starts.whole is None else starts.whole
    networks = [each for each in (policy, estimator.tail.critic) if each is not None]
    theta = [x.detach().clone() for n in networks for x in (*n.parameters(), *n.buffers())]
    key = id(estimator), str(asked)
    made = whole.fits.get(key)
    if made is None or made[1]() is not policy or not all(map(torch.equal, made[2], theta)):
        there, seed = _pilot(whole, starts.states), child(requested.seed, "pilot")
        pilot = requested.elsewhere(there, seed)
        here = nodes(estimator, pilot)
        baseline = fitted_baseline(here.linear.path.states, here.to_go)
        fit = FittedShares(rule(here, here.advantage(baseline), pilot), baseline)
        # The estimator lives as long as a key with its address, a policy as long as its owner.
        made = whole.fits[key] = (estimator, weakref.ref(policy), theta, fit)
    found: FittedShares = made[3]
    return found


def _pilot(whole: Starts, like: Tensor) -> Starts:
    rows = torch.arange(PILOT) * len(whole.states) // PILOT
    rows = rows.reshape(SPREAD, -1).T.flatten()
    return Starts(whole.states[rows].to(like), whole.weight[rows].to(like), torch.arange(PILOT))


def share_of_first(v0: Tensor, v1: Tensor) -> Tensor:
    """v₀/(v₀ + v₁); an order without variance takes all, the first one where both have none, and
    one whose variance is not finite nothing."""
    share = torch.where(v0 + v1 > 0, v0 / (v0 + v1), 1.0)
    share = torch.where(v0.isfinite(), share, 1.0)
    return torch.where(v1.isfinite(), share, 0.0)


def mixed(share: Tensor, first: Tensor, zeroth: Tensor) -> Tensor:
    """Both orders' signals; one of no weight may be infinite."""
    both = share * first + (1 - share) * zeroth
    return torch.where(share == 0, zeroth, torch.where(share == 1, first, both))


_Shares = Callable[[int, list[int], Tensor, Tensor], Tensor]  # t, horizons, both orders → w


def composite(estimator: Choices, requested: TermRequest) -> CostateTerms:
    """Orders mixed where they arrive, "ivw" and "ddcg"."""
    rule = _tested if estimator.actions == "ddcg" else _inverse_variance
    here, fit = nodes(estimator, requested), fitted(estimator, requested, rule)
    zeroth = here.draws.zeroth(here.advantage(fit.baseline))
    return _weighted(here, mixed(fit.shares, here.first, zeroth), requested)


def total(estimator: Choices, requested: TermRequest) -> CostateTerms:
    """Orders mixed at every node on the way backwards."""
    here, fit = nodes(estimator, requested), fitted(estimator, requested, _propagated)
    signals = _swept(
        here, here.advantage(fit.baseline), lambda t, inside, first, zeroth: fit.shares[inside, t]
    )
    return _weighted(here, signals, requested)


def _weighted(here: Nodes, signals: Tensor, requested: TermRequest) -> CostateTerms:
    weighted = signals * requested.starts.weight[:, None]
    return isolated(CostateTerms(weighted, here.jacobian, here.horizons), here.counted)


def _inverse_variance(here: Nodes, advantage: Tensor, pilot: TermRequest) -> Tensor:
    weight = pilot.starts.weight[:, None]
    v1, v0 = ((weight * x).var(dim=2) for x in (here.first, here.draws.zeroth(advantage)))
    return share_of_first(v0, v1)[:, :, None]


def _tested(here: Nodes, advantage: Tensor, pilot: TermRequest) -> Tensor:
    passed = smooth(here, pilot)[:, :, None, None]
    return torch.where(passed, _inverse_variance(here, advantage, pilot), 0.0)


def _propagated(here: Nodes, advantage: Tensor, pilot: TermRequest) -> Tensor:
    """Shares [K, H + 1, 1, 1] by which the sweep weighs, found on the way."""
    shares = advantage.new_ones(*advantage.shape[:2], 1, 1)
    n, weight = advantage.shape[2], pilot.starts.weight[:, None]

    def share(t: int, inside: list[int], first: Tensor, zeroth: Tensor) -> Tensor:
        jacobian = here.jacobian.rows(slice(t * n, (t + 1) * n))
        v1, v0 = (_trace(jacobian.squared_norms(x[:, None]), jacobian.T @ x / n)
                  for x in (weight * first, weight * zeroth))  # fmt: skip
        shares[inside, t] = share_of_first(v0, v1)[:, None, None]
        return shares[inside, t]

    _swept(here, advantage, share)
    return shares


def _trace(squares: Tensor, mean: Tensor) -> Tensor:
    """Trace of the covariance [K] from squared norms [K, N] and means [K, P]."""
    n = squares.shape[1]
    return (squares.mean(dim=1) - mean.square().sum(dim=1)).clamp_min(0.0) * n / (n - 1)


def _swept(here: Nodes, advantage: Tensor, shares: _Shares) -> Tensor:
    """γᵗ λ_t of every horizon by one sweep backwards, [K, H + 1, N, 2 da]."""
    linear, tail, horizons = here.linear, here.estimator.tail, here.horizons
    K, steps, n = advantage.shape
    signals = advantage.new_zeros(K, steps, n, here.K.shape[2])
    p = advantage.new_zeros(K, n, linear.path.states.shape[2])
    for t in reversed(range(steps)):
        at = [k for k, horizon in enumerate(horizons) if horizon >= t]
        if not at:
            continue
        ends = torch.tensor([horizons[k] == t for k in at])[:, None, None]
        action, state = here.tail.q_a[t], here.tail.q_s[t]
        if t < linear.path.horizon:
            ahead = tail.discount * p[at]
            through = linear.r_a[t] + torch.einsum("nsa,kns->kna", linear.B[t], ahead)
            beside = linear.r_s[t] + torch.einsum("nij,kni->knj", linear.A[t], ahead)
            action, state = torch.where(ends, action, through), torch.where(ends, state, beside)
        first = here.draws[t].first(action.expand(len(at), n, -1))
        zeroth = here.draws[t].zeroth(advantage[at, t] / tail.discount**t)
        frozen = ends if tail.terminal_action == "detached" else torch.zeros_like(ends)
        share = shares(t, at, torch.where(frozen, 0.0, first), zeroth)
        signal = torch.where(frozen, first, mixed(share, first, zeroth))
        signals[at, t] = tail.discount**t * torch.where(frozen, 0.0, signal)
        p[at] = state + torch.einsum("nzs,knz->kns", here.K[t], signal)
    return signals


# λ and J of each way that θ is carried (`gradients.ways`).
TERMS: Mapping[str, Callable[[Choices, TermRequest], CostateTerms]] = {
    "first": _first,
    "all": _every,
    "replayed": _replayed,
    "score": _score,
    "ivw": composite,
    "ddcg": composite,
    "total": total,
}
