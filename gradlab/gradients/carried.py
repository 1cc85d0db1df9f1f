"""What each horizon's gradient is made of: one Jacobian of the policy, and weights on its rows.

    G_i = Σ_t J_t,iᵀ λ_t,i

    first   t = 0 only,  J = ∂π/∂θ,        λ = g_n                      (MPG eq. 6)
    all     t ≤ n,       J = ∂π/∂θ,        λ = γᵗ λⁿ_t                   (MPG eq. 5, SVG, MAAC)
    score   t ≤ n,       J = ∂ log π/∂θ,   λ = γᵗ Σ_{k≥t} γ^{k−t} r_k     (RP-PGM eq. 2.5)

so means, norms, kernels and variances are written once for all three kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.gradients.all_action import discounted_costates
from gradlab.gradients.first_action import action_gradients
from gradlab.gradients.policy_jacobian import (
    PolicyJacobian,
    Trace,
    joined_factors,
    policy_jacobian,
)
from gradlab.gradients.recorded_path import recorded_with_jacobians
from gradlab.gradients.rollout import (
    LinearizedPath,
    jacobian_noise,
    linearize_path,
    rollout_with_jacobians,
    tail_gradient,
)
from gradlab.gradients.starts import Starts
from gradlab.networks.policies import check_stochastic
from gradlab.systems.recorded import Recorded

if TYPE_CHECKING:
    from gradlab.gradients.estimator import Estimator


@dataclass(frozen=True)
class Carried:
    """λ [K, T, N, width] of K horizons, importance weights included, and the J they multiply.

    `ends[k]` is the last step at which the k-th λ is not zero.
    """

    costates: Tensor
    jacobian: PolicyJacobian
    ends: tuple[int, ...]


class LogDensity(nn.Module):
    """log π_θ(a|s) as an "action" of width 1 at a fixed a, which stands in the place of noise."""

    def __init__(self, policy: nn.Module, action_dim: int) -> None:
        super().__init__()
        self.policy, self.noise_dim = policy, action_dim

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        policy: Any = self.policy
        log_prob: Tensor = policy.log_prob(state, action)
        return log_prob[:, None]


def carried(
    estimator: Estimator,
    policy: nn.Module,
    starts: Starts,
    horizons: tuple[int, ...],
    seed: int,
    termination: str,
) -> Carried:
    """λ and J of an estimator (without entropy: see `softened`) for some of its horizons."""
    if estimator.actions == "score":
        return _score(estimator, policy, starts, horizons, seed, termination)
    tail = estimator.tail
    traces: list[Trace] | None = [] if estimator.actions == "all" else None
    linear = linearized(estimator, policy, starts, seed, traces)
    gradient = tail_gradient(linear.path, tail.critic, tail.value)
    weight = starts.weight[:, None]
    if traces is None:
        g = action_gradients(linear, gradient, tail.discount, termination)
        jacobian = policy_jacobian(policy, starts.states, linear.path.policy_noise[0])
        return Carried(g[list(horizons), None] * weight, jacobian, (0,) * len(horizons))
    costates = discounted_costates(
        linear, gradient, tail.discount, horizons, tail.terminal_action, termination
    )
    jacobian = joined_factors(policy, traces, linear.path)
    return _isolated(Carried(costates * weight, jacobian, horizons))


def _isolated(found: Carried) -> Carried:
    """Keep what is not finite at one step from spoiling horizons that end before it (0 · ∞).

    A step whose J is not finite gets J = 0, and λ = NaN in every horizon that reaches it.
    """
    factors, shape = found.jacobian.factors, found.costates.shape[1:3]
    parts = [x for f in factors for x in (f.signals, f.inputs) if x is not None]
    if all(bool(torch.isfinite(x.sum())) for x in parts):
        return found
    bad = ~torch.stack([torch.isfinite(x).flatten(1).all(dim=1) for x in parts]).all(dim=0)
    clean = tuple(
        replace(
            f,
            signals=f.signals.masked_fill(bad[:, None, None], 0.0),
            inputs=None if f.inputs is None else f.inputs.masked_fill(bad[:, None], 0.0),
        )
        for f in factors
    )
    costates = found.costates.clone()
    for k, end in enumerate(found.ends):
        costates[k, end + 1 :] = 0.0
        costates[k, : end + 1][bad.reshape(shape)[: end + 1]] = torch.nan
    return replace(found, costates=costates, jacobian=replace(found.jacobian, factors=clean))


def linearized(
    estimator: Estimator,
    policy: nn.Module,
    starts: Starts,
    seed: int,
    traces: list[Trace] | None = None,
) -> LinearizedPath:
    """The estimator's path with the Jacobians of what it differentiates."""
    states, horizon = estimator.states, estimator.tail.horizon
    if isinstance(states, Recorded):
        path, K = recorded_with_jacobians(policy, starts, horizon, seed, traces)
    else:
        path, K = rollout_with_jacobians(states, policy, starts, horizon, seed, traces=traces)
    model = states if estimator.jacobians is None else estimator.jacobians
    return linearize_path(path, model, K, jacobian_noise(states, model, path))


def _score(
    estimator: Estimator,
    policy: nn.Module,
    starts: Starts,
    horizons: tuple[int, ...],
    seed: int,
    termination: str,
) -> Carried:
    check_stochastic(policy)
    states, horizon = estimator.states, estimator.tail.horizon
    if isinstance(states, Recorded):
        path, _ = recorded_with_jacobians(policy, starts, horizon, seed)
    else:
        path, _ = rollout_with_jacobians(states, policy, starts, horizon, seed)
    returns = _returns_to_go(estimator, path, horizons, termination)
    density = LogDensity(policy, path.actions.shape[2])
    jacobian = policy_jacobian(density, path.states.flatten(0, 1), path.actions.flatten(0, 1))
    return _isolated(Carried((returns * starts.weight)[..., None], jacobian, horizons))


def _returns_to_go(
    estimator: Estimator, path: Path, horizons: tuple[int, ...], termination: str
) -> Tensor:
    """γᵗ times the return from step t on, tail included, [K, H + 1, N]; 0 after each horizon."""
    tail, h1 = estimator.tail, path.horizon + 1
    gamma = tail.discount ** torch.arange(h1, dtype=path.states.dtype, device=path.states.device)
    masked = termination == "mask"
    alive = path.alive.to(gamma.dtype) if masked else torch.ones_like(path.alive, dtype=gamma.dtype)
    rewards = gamma[:-1, None] * alive[:-1] * path.rewards
    value = gamma[:, None] * alive * _values(estimator, path)
    result = rewards.new_zeros(len(horizons), h1, path.states.shape[1])
    for k, n in enumerate(horizons):
        result[k, : n + 1] = value[n]
        result[k, :n] += rewards[:n].flip(0).cumsum(dim=0).flip(0)
        if tail.value == "V" or tail.critic is None or tail.terminal_action == "detached":
            result[k, n] = 0.0
    return result


def _values(estimator: Estimator, path: Path) -> Tensor:
    """The critic along the path, [H + 1, N]; 0 without one."""
    critic, shape = estimator.tail.critic, path.states.shape[:2]
    if critic is None:
        return path.states.new_zeros(shape)
    s, a = path.states.flatten(0, 1), path.actions.flatten(0, 1)
    with torch.no_grad():
        value: Tensor = critic(s) if estimator.tail.value == "V" else critic(s, a)
    return value.reshape(shape)
