"""Terms of each horizon's gradient: one Jacobian of the policy, and weights on its rows.

    G_i = Σ_t J_t,iᵀ λ_t,i

    first   t = 0 only,  J = ∂π/∂θ,        λ = g_n                      (MPG eq. 6)
    all     t ≤ n,       J = ∂π/∂θ,        λ = γᵗ λⁿ_t                   (MPG eq. 5, SVG, MAAC)
    replayed  the same of s_0 ~ ν, the discounted visitation, over 1 − γⁿ⁺¹
    score   t ≤ n,       J = ∂ log π/∂θ,   λ = γᵗ Σ_{k≥t} γ^{k−t} r_k     (RP-PGM eq. 2.5)
    ivw, ddcg, total     J = ∂(μ, log σ)/∂θ,  λ mixed of both orders       (`gradients.mixing`)

so means, norms, kernels and variances are written once for all kinds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.data.noise import child, stream
from gradlab.gradients.courses import (
    Carried,
    Choices,
    Shared,
    TermRequest,
    course_of,
    isolated,
    linearized,
    returns_to_go,
)
from gradlab.gradients.mixing.terms import composite, total
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import recorded_with_jacobians, rollout, tail_gradient
from gradlab.gradients.starts import Starts
from gradlab.gradients.sweeps import action_gradients, discounted_costates
from gradlab.gradients.tail import Tail
from gradlab.networks.interface import act
from gradlab.networks.policies import check_stochastic
from gradlab.systems.system import Recorded, System, step_running


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


def carried(
    estimator: Choices,
    policy: nn.Module,
    starts: Starts,
    horizons: tuple[int, ...],
    seed: int,
    termination: str,
    shared: Shared | None = None,
) -> Carried:
    """λ and J of an estimator (without entropy: see `softened`) for some of its horizons.

    Args:
        shared: what other estimators made from the same starts, seed and termination.
    """
    requested = TermRequest(policy, starts, horizons, seed, termination)
    return TERMS[estimator.actions](estimator, requested, shared)


def _first(estimator: Choices, requested: TermRequest, shared: Shared | None) -> Carried:
    """θ in the first action."""
    policy, starts, horizons, seed, termination = requested
    tail = estimator.tail
    if shared is None:
        linear = linearized(estimator, policy, starts, seed, None, termination)
    else:
        linear = course_of(estimator, policy, starts, seed, termination, shared)[1]
    gradient = tail_gradient(linear.path, tail.critic, tail.value, termination)
    g = action_gradients(linear, gradient, tail.discount)
    weight = starts.weight[:, None]
    jacobian = policy_jacobian(policy, starts.states, linear.path.policy_noise[0])
    return Carried(g[list(horizons), None] * weight, jacobian, (0,) * len(horizons))


def _every(estimator: Choices, requested: TermRequest, shared: Shared | None) -> Carried:
    """θ in every action."""
    policy, starts, horizons, seed, termination = requested
    tail, shared = estimator.tail, Shared() if shared is None else shared
    course, linear = course_of(estimator, policy, starts, seed, termination, shared)
    gradient = tail_gradient(linear.path, tail.critic, tail.value, termination)
    costates = discounted_costates(linear, gradient, tail.discount, horizons, tail.terminal_action)
    counted = linear.path.alive if termination == "mask" else None
    terms = Carried(costates * starts.weight[:, None], course.jacobian, horizons)
    return isolated(terms, counted)


def _replayed(estimator: Choices, requested: TermRequest, shared: Shared | None) -> Carried:
    """θ in every action from visited states, as replay has them: ∇_θ E_ν[V_n] at fixed ν.

    Over 1 − γⁿ⁺¹ = (1 − γ) Σ_{t≤n} γᵗ it is the data gradient over 1 − γ for n = 0, and differs
    from the gradient of the return by what the law of s_t | s_0 ~ ν differs from ν.
    """
    assert estimator.replay is not None
    gamma, at = estimator.tail.discount, _visited(estimator.replay, estimator.tail, requested)
    terms = _every(estimator, requested._replace(starts=at), None)
    shares = terms.costates.new_tensor([1 - gamma ** (n + 1) for n in requested.horizons])
    return replace(terms, costates=terms.costates / shares[:, None, None, None])


@torch.no_grad()
def _visited(simulator: System, tail: Tail, requested: TermRequest) -> Starts:
    """A state s_T for each start, T ~ Geometric(1 − γ), on noise of its own; with "mask" one past
    an end weighs 0."""
    policy, starts, _, seed, termination = requested
    seed, n = child(seed, "replayed"), len(starts.states)
    drawn = torch.rand(starts.of or n, generator=stream(seed, "time"), dtype=torch.float64)
    uniform = drawn[starts.begin : starts.begin + n]
    when = (torch.log1p(-uniform) / math.log(tail.discount)).floor().long()
    state, alive = starts.states.clone(), torch.ones(n, dtype=torch.bool)
    for t in range(int(when.max())):
        e, xi = starts.policy_noise(policy, seed, t), starts.dynamics_noise(simulator, seed, t)
        rows = ((when > t) & (alive | (termination == "ignore"))).nonzero()[:, 0]
        out = step_running(simulator, state[rows], act(policy, state[rows], e[rows]), xi[rows])
        state[rows], alive[rows] = out.state, out.alive
    weight = starts.weight if termination == "ignore" else starts.weight * alive
    return replace(starts, states=state, weight=weight, path=None)


def _score(estimator: Choices, requested: TermRequest, shared: Shared | None) -> Carried:
    """θ in the density of every action."""
    policy, starts, horizons, seed, termination = requested
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
    return isolated(Carried((returns * starts.weight)[..., None], jacobian, horizons), counted)


# λ and J of each way that θ is carried (`gradients.ways`).
TERMS: Mapping[str, Callable[[Choices, TermRequest, Shared | None], Carried]] = {
    "first": _first,
    "all": _every,
    "replayed": _replayed,
    "score": _score,
    "ivw": composite,
    "ddcg": composite,
    "total": total,
}
