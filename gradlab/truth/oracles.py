"""True policy gradients by several methods, so that they can check one another.

    unrolled      the simulator's own Jacobians chained until the remainder is negligible
    differences   common-random-number returns along directions of θ (`common_random`)
    score         the likelihood ratio, `named.likelihood_ratio`: no derivative of the simulator

    first  E_d[J_θπᵀ ∂_a Q^π(s, π(s))]          all  ∇_θ E_d[V^π(s)]

Noise belongs to a step's number: a path that is continued equals the path made at once.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.trajectories import Path
from gradlab.gradients.policy_jacobian import PolicyJacobian, policy_jacobian
from gradlab.gradients.rollout import (
    Trajectory,
    closed_loop_reward_gradient,
    discounted_costates,
    linearize_path,
    rollout_with_jacobians,
    sensitivities,
    tail_gradient,
)
from gradlab.gradients.setting import Setting
from gradlab.networks.interface import flat_parameters
from gradlab.progress import Progress, silent
from gradlab.statistics import chains


def piece(
    setting: Setting, steps: int, *, first: int = 0, before: Path | None = None
) -> Trajectory:
    """`steps` steps of the simulator's path with its own Jacobians.

    Args:
        first: number of the first step; before: a path that ends there, None where `first` is 0.
    """
    simulator, now = setting.simulator, setting.starts
    if before is not None:
        now = replace(now, states=before.states[-1])
    path, K = rollout_with_jacobians(
        simulator, setting.policy, now, steps, setting.seed, first=first
    )
    if before is not None:
        path = replace(path, alive=path.alive & before.alive[-1])
    return linearize_path(path, simulator, K, path.dynamics_noise, setting.termination)


def joined(pieces: Sequence[Trajectory]) -> Trajectory:
    """The whole path of pieces that follow one another."""
    return reduce(Trajectory.followed_by, pieces)


BLOCK = 50  # steps unrolled between two looks at convergence
_RECENT = 20  # last steps whose largest term starts the geometric remainder
_OVERFLOW = 250.0  # log |D| at which a chain is given up as divergent
_LARGEST_LOG = 700.0  # of a float64
AT_MOST = 1000  # steps that a truth is unrolled for
TOLERANCE = 0.01  # remainder over the norm of a converged truth
_TYPICAL = 64  # starts whose chains' singular values are followed
STEPS, ROWS = 25, 6400  # policy Jacobians held at once: per start, and in all


def effective_horizon(discount: float, left: float = 0.01) -> int:
    """Steps after which γᵀ is below what may be left of it."""
    return int(np.ceil(np.log(left) / np.log(discount)))


@dataclass(frozen=True)
class Unrolled:
    """The simulator's first-action gradients for every truncation T = 1 … T_max.

    Attributes:
        gradients: Σ_{t<T} of the reward terms, [T_max, N, da].
        lyapunov: closed-loop exponent per step of each start over the second half, [N].
        remainder: bound on the norm of what the mean gradient misses beyond T_max (geometric).
        converged: every chain decays faster than 1/γ and the remainder is below the tolerance.
        flagged: steps whose Jacobian failed its certificate.
        lost: starts whose rollout or chain left the finite numbers; lost_at: the first such step.
    """

    gradients: Tensor
    lyapunov: Tensor
    remainder: float
    converged: bool
    flagged: int
    lost: int
    lost_at: int

    @property
    def horizon(self) -> int:
        return self.gradients.shape[0]


def unroll_first_action(
    setting: Setting,
    *,
    at_least: int = BLOCK,
    at_most: int = AT_MOST,
    tolerance: float = TOLERANCE,
    block: int = BLOCK,
    progress: Progress = silent,
    keep: list[Trajectory] | None = None,
) -> Unrolled:
    """Chain the simulator's Jacobians until the geometric remainder is below the tolerance.

    The tolerance is relative to the norm of the mean gradient, or to its standard error where
    that is larger (near an optimum). Gives up where a chain has left any use (log |D| > 250),
    where after two effective horizons most chains still outgrow the discount, or at `at_most`.

    Args:
        block: steps between two looks at convergence.
        keep: filled with the pieces of the path, where given.
    """
    policy, starts, discount = setting.policy, setting.starts, setting.discount
    noise = starts.policy_noise(policy, setting.seed, 0)
    jacobian = policy_jacobian(policy, starts.states, noise)
    terms: list[Tensor] = []
    logs: list[Tensor] = []
    flagged, D, before = 0, None, None
    while True:
        done = block * len(terms)
        linear = piece(setting, block, first=done, before=before)
        if keep is not None:
            keep.append(linear)
        swept = sensitivities(linear, D)
        terms.append(_reward_terms(linear, swept, D, discount, done))
        logs.append(_log_norm(swept))
        flagged += int(linear.flags.sum())
        D, before = swept[-1], linear.path
        result = _judged(terms, logs, discount, jacobian, starts.weight, tolerance, flagged)
        progress("truth", result.horizon, at_most)
        outgrown = float(result.lyapunov.median()) > -float(np.log(discount))
        diverged = float(logs[-1].max()) >= _OVERFLOW
        diverged |= outgrown and result.horizon >= 2 * effective_horizon(discount)
        enough = result.converged and result.horizon >= at_least
        if enough or diverged or result.horizon >= at_most:
            progress("truth", at_most, at_most)
            return result


def _reward_terms(
    linear: Trajectory,
    D: Tensor,
    before: Tensor | None,
    discount: float,
    done: int,
) -> Tensor:
    """γᵗ D_tᵀ c_t of one block of steps, [BLOCK, N, da]; r_a where t = 0."""
    c, h = closed_loop_reward_gradient(linear), linear.path.horizon
    gamma = discount ** torch.arange(done, done + h, dtype=D.dtype, device=D.device)
    later = torch.einsum("hnsa,hns->hna", D[:-1], c[1:])
    now = linear.r_a[0] if before is None else torch.einsum("nsa,ns->na", before, c[0])
    return gamma[:, None, None] * torch.cat([now[None], later])


def _judged(
    terms: list[Tensor],
    logs: list[Tensor],
    discount: float,
    jacobian: PolicyJacobian,
    weight: Tensor,
    tolerance: float,
    flagged: int,
) -> Unrolled:
    term, log = torch.cat(terms), torch.cat(logs)
    gradients, lyapunov = term.cumsum(dim=0), _exponents(log)
    ratio = (lyapunov + float(np.log(discount))).exp()
    latest = term[-_RECENT:].norm(dim=2).amax(dim=0)
    left = torch.where(ratio < 1, latest * ratio / (1 - ratio), torch.inf)
    eye = torch.eye(jacobian.action_dim, dtype=jacobian.factors[0].signals.dtype)
    rows = eye[:, None].expand(-1, jacobian.samples, -1)
    # In θ, of an action gradient of 1.
    reach = jacobian.squared_norms(rows[:, None]).sum(dim=0).sqrt()
    remainder = (reach * left * weight).mean()
    g = gradients[-1:] * weight[:, None]
    norm = (jacobian.T @ g).norm() / len(weight)
    error = (jacobian.squared_norms(g[:, None])[0].mean() / len(weight)).sqrt()
    converged = bool(remainder <= tolerance * torch.maximum(norm, error))
    lost = ~torch.isfinite(term).all(dim=2)
    lost_at = int(lost.any(dim=1).int().argmax()) if bool(lost.any()) else -1
    return Unrolled(
        gradients,
        lyapunov,
        float(remainder),
        converged,
        flagged,
        int(lost.any(dim=0).sum()),
        lost_at,
    )


def closed_loop_exponent(linear: Trajectory, steps: int) -> float:
    """λ per step of M_{t−1} ⋯ M_0, M = A + BK, over the second half of the first steps of a path:
    the mean over the starts (the first 64), as `gradlab jacobians` has it. NaN below two steps."""
    if steps < 2:
        return float("nan")
    M = linear.A[:steps, :_TYPICAL] + linear.B[:steps, :_TYPICAL] @ linear.K[:steps, :_TYPICAL]
    lost = linear.flags[:steps, :_TYPICAL] | ~torch.isfinite(M).flatten(2).all(dim=2)
    chained, skip = M.cpu().numpy(), lost.cpu().numpy()
    rates = chains.exponents(chains.log_singular_values(chained, skip), skip)
    return float(rates[:, 0].mean())


def exponents(D: Tensor) -> Tensor:
    """Growth per step of sensitivities [T, N, ds, da] over the second half, [N]."""
    return _exponents(_log_norm(D))


def _exponents(log: Tensor) -> Tensor:
    half = len(log) // 2
    return (log[-1] - log[half - 1]) / (len(log) - half)


def _log_norm(D: Tensor) -> Tensor:
    """log |D| of each step and start; a chain that left the finite numbers counts as largest."""
    norm: Tensor = D.flatten(2).norm(dim=2).nan_to_num(nan=torch.inf)
    return norm.log().clamp(-_LARGEST_LOG, _LARGEST_LOG)


def unroll_all_actions(setting: Setting) -> Tensor:
    """Per-start gradients of the simulator's H-step return with θ in every action, [N, P]."""
    linear = piece(setting, setting.horizon)
    return all_action_gradients(linear, setting.policy, setting.horizon, setting.discount)


def all_action_gradients(
    linear: Trajectory, policy: nn.Module, horizon: int, discount: float
) -> Tensor:
    """Σ_{t<T} γᵗ J_θπ(s_t)ᵀ λ_t of the T-step return along a path of at least T steps, [N, P]."""
    return early_action_gradients(linear, policy, horizon, horizon, discount)


def early_action_gradients(
    linear: Trajectory, policy: nn.Module, count: int, horizon: int, discount: float
) -> Tensor:
    """Σ_{t<k} γᵗ J_θπ(s_t)ᵀ λ_t of the T-step return, θ in its first k = `count` actions, [N, P].

    For k = 1 that is the gradient with θ in the first action, for k = T that with all of them.
    """
    costates = _costates(linear, (horizon,), discount)[0]
    parts = [
        jacobian.gradients(costates[:count, rows])
        for rows, jacobian in _jacobians(linear, policy, count)
    ]
    return torch.cat(parts)


def all_action_remainder(
    linear: Trajectory, policy: nn.Module, horizon: int, discount: float
) -> tuple[Tensor, float]:
    """Those gradients [N, P], and what more steps would add to their mean:

        |g_T − g_m| γᵀ⁻ᵐ/(1 − γᵀ⁻ᵐ),   m = 3T/4

    A loop that has converged still visits states, and each adds γᵗ J_θπ(s_t)ᵀ λ_t: at a resting
    point or in process noise the sum goes on to grow like 1 − γᵀ, which this extrapolates.
    """
    m, n = 3 * horizon // 4, len(linear.path.group)
    long, short = _costates(linear, (horizon, m), discount)
    parts, mean = [], long.new_zeros(1)
    for rows, jacobian in _jacobians(linear, policy, horizon):
        parts.append(jacobian.gradients(long[:horizon, rows]))
        some = short[:m, rows].reshape(1, -1, short.shape[2])
        mean = mean + (jacobian.rows(slice(0, some.shape[1])).T @ some)[0] / n
    G, left = torch.cat(parts), discount ** (horizon - m)
    return G, float((G.mean(dim=0) - mean).norm()) * left / (1 - left)


def _costates(linear: Trajectory, horizons: tuple[int, ...], discount: float) -> Tensor:
    """γᵗ λ_t of each T-step return, [K, H + 1, N, da], importance weights included."""
    tail = tail_gradient(linear.path, None, "Q")
    costates = discounted_costates(linear, tail, discount, horizons)
    return costates * linear.path.weight[:, None]


def _jacobians(
    linear: Trajectory, policy: nn.Module, horizon: int
) -> Iterator[tuple[slice, PolicyJacobian]]:
    """The policy's Jacobian along the path, all steps of some starts at a time: a sum over steps
    is then one product, and is written once."""
    path, n = linear.path, len(linear.path.group)
    size = max(1, min(ROWS, STEPS * n) // max(horizon, 1))
    for begin in range(0, n, size):
        rows = slice(begin, min(begin + size, n))
        states, noise = path.states[:horizon, rows], path.policy_noise[:horizon, rows]
        yield rows, policy_jacobian(policy, states.flatten(0, 1), noise.flatten(0, 1))


def perturbed(policy: nn.Module, step: Tensor) -> nn.Module:
    """A copy of the policy at θ + step."""
    moved = copy.deepcopy(policy)
    nn.utils.vector_to_parameters(flat_parameters(policy) + step, moved.parameters())
    return moved
