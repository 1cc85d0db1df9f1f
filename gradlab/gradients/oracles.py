"""True policy gradients, each by its own road, so that they can check one another.

    closed form   linear-quadratic system and linear policy: Lyapunov equations
    unrolled      the simulator's own Jacobians chained until the remainder is negligible
    differences   common-random-number returns along directions of θ

Two gradients are meant by "true" (matched truths), with d the law of the starts:
    first  E_d[J_θπᵀ ∂_a Q^π(s, π(s))]          all  ∇_θ E_d[V^π(s)]
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from gradlab.data.noise import stream
from gradlab.gradients import gram
from gradlab.gradients.all_action import discounted_costates
from gradlab.gradients.first_action import closed_loop_reward_gradient, sensitivities
from gradlab.gradients.policy_jacobian import PolicyJacobian, policy_jacobian
from gradlab.gradients.rollout import (
    LinearizedPath,
    linearize_path,
    rollout_with_jacobians,
    tail_gradient,
)
from gradlab.gradients.starts import Starts
from gradlab.hooks import Progress, silent
from gradlab.networks.interface import act
from gradlab.systems.linear import LinearQuadratic
from gradlab.systems.system import System

BLOCK = 50  # steps unrolled between two looks at convergence
RECENT = 20  # last steps whose largest term starts the geometric remainder
OVERFLOW = 250.0  # log |D| at which a chain is given up as divergent
LARGEST_LOG = 700.0  # of a float64
DIRECTIONS = 8
STEPS = 25  # steps whose policy Jacobians are held at once


def effective_horizon(discount: float) -> int:
    """Steps after which γᵀ is below 1%."""
    return int(np.ceil(np.log(0.01) / np.log(discount)))


def lqr_gradient(
    system: LinearQuadratic,
    weight: Tensor,
    second_moment: Tensor,
    discount: float,
    actions: str,
) -> Tensor:
    """Closed-form gradient in W of u = W s, flattened [da · ds].

    With K = −W, P the cost-to-go, M = (R + γBᵀPB)K − γBᵀPA and Σ = Σ_t γᵗ E[s sᵀ] (without 1 − γ):
    ∇_W = 2 M Σ for all actions, 2 M E_d[s sᵀ] for the first.

    Args:
        second_moment: E_d[s sᵀ] of the starts, [ds, ds] (mean included).

    Raises:
        ValueError: where √γ(A − BK) is not stable, so that no gradient exists.
    """
    A, B, Q, R, noise = (
        x.double().numpy()
        for x in (system.A, system.B, system.Q, system.R, system.noise_covariance)
    )
    K, S0, gamma = -weight.double().numpy(), second_moment.double().numpy(), discount
    closed = np.sqrt(gamma) * (A - B @ K)
    if np.abs(np.linalg.eigvals(closed)).max() >= 1:
        raise ValueError("sqrt(discount) * (A - B K) is unstable: the gradient does not exist")
    P = scipy.linalg.solve_discrete_lyapunov(closed.T, Q + K.T @ R @ K)
    M = (R + gamma * B.T @ P @ B) @ K - gamma * B.T @ P @ A
    visits = scipy.linalg.solve_discrete_lyapunov(closed, S0 + gamma / (1 - gamma) * noise)
    gradient = 2 * M @ (visits if actions == "all" else S0)
    return torch.from_numpy(gradient).flatten()


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
    simulator: System,
    policy: nn.Module,
    starts: Starts,
    discount: float,
    *,
    termination: str = "ignore",
    seed: int = 0,
    at_least: int = BLOCK,
    at_most: int = 1000,
    tolerance: float = 0.01,
    progress: Progress = silent,
) -> Unrolled:
    """Chain the simulator's Jacobians until the geometric remainder is below the tolerance.

    The tolerance is relative to the norm of the mean gradient, or to its standard error where
    that is larger (near an optimum). Gives up where a chain has left any use (log |D| > 250),
    where after two effective horizons most chains still outgrow the discount, or at `at_most`.
    """
    noise = starts.policy_noise(policy, seed, 0)
    jacobian = policy_jacobian(policy, starts.states, noise)
    terms: list[Tensor] = []
    logs: list[Tensor] = []
    flagged, D = 0, None
    now, alive = starts, torch.ones_like(starts.group, dtype=torch.bool)
    while True:
        done = BLOCK * len(terms)
        path, K = rollout_with_jacobians(simulator, policy, now, BLOCK, seed, first=done)
        path = replace(path, alive=path.alive & alive)
        linear = linearize_path(path, simulator, K, path.dynamics_noise, termination)
        block = sensitivities(linear, D)
        terms.append(_reward_terms(linear, block, D, discount, done))
        logs.append(_log_norm(block))
        flagged += int(linear.flags.sum())
        D, alive = block[-1], path.alive[-1]
        now = replace(starts, states=path.states[-1])
        result = _judged(terms, logs, discount, jacobian, starts.weight, tolerance, flagged)
        progress("truth", result.horizon, at_most)
        outgrown = float(result.lyapunov.median()) > -float(np.log(discount))
        diverged = float(logs[-1].max()) >= OVERFLOW
        diverged |= outgrown and result.horizon >= 2 * effective_horizon(discount)
        enough = result.converged and result.horizon >= at_least
        if enough or diverged or result.horizon >= at_most:
            progress("truth", at_most, at_most)
            return result


def _reward_terms(
    linear: LinearizedPath,
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
    gradients, half = term.cumsum(dim=0), len(term) // 2
    lyapunov = (log[-1] - log[half - 1]) / (len(log) - half)
    ratio = (lyapunov + float(np.log(discount))).exp()
    latest = term[-RECENT:].norm(dim=2).amax(dim=0)
    left = torch.where(ratio < 1, latest * ratio / (1 - ratio), torch.inf)
    remainder = (_reach(jacobian) * left * weight).mean()
    g = gradients[-1:] * weight[:, None]
    norm = gram.mean_gradients(jacobian, g).norm()
    error = (gram.squared_norms(jacobian, g)[0].mean() / len(weight)).sqrt()
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


def _log_norm(D: Tensor) -> Tensor:
    """log |D| of each step and start; a chain that left the finite numbers counts as largest."""
    norm: Tensor = D.flatten(2).norm(dim=2).nan_to_num(nan=torch.inf)
    return norm.log().clamp(-LARGEST_LOG, LARGEST_LOG)


def _reach(jacobian: PolicyJacobian) -> Tensor:
    """Frobenius norm of J_i, [N]: how far an action gradient of 1 reaches in θ."""
    eye = torch.eye(jacobian.action_dim, dtype=jacobian.factors[0].signals.dtype)
    rows = eye[:, None].expand(-1, jacobian.samples, -1)
    return gram.squared_norms(jacobian, rows).sum(dim=0).sqrt()


def unroll_all_actions(
    simulator: System,
    policy: nn.Module,
    starts: Starts,
    horizon: int,
    discount: float,
    *,
    termination: str = "ignore",
    seed: int = 0,
) -> Tensor:
    """Per-start gradients of the simulator's T-step return with θ in every action, [N, P]."""
    path, K = rollout_with_jacobians(simulator, policy, starts, horizon, seed)
    linear = linearize_path(path, simulator, K, path.dynamics_noise, termination)
    (costates,) = discounted_costates(linear, tail_gradient(path, None, "Q"), discount, (horizon,))
    costates = costates * path.weight[:, None]
    total = path.states.new_zeros(1)
    for begin in range(0, horizon + 1, STEPS):
        steps = slice(begin, min(begin + STEPS, horizon + 1))
        s, e = (x[steps].flatten(0, 1) for x in (path.states, path.policy_noise))
        total = total + gram.path_gradients(policy_jacobian(policy, s, e), costates[steps])
    return total


@dataclass(frozen=True)
class Differences:
    """Central differences of returns along directions of θ, on common random numbers.

    Attributes:
        narrow, wide: at step ε and 2ε, for every truncation, [T, directions, n].
        directions: [directions, P], unit length.
    """

    narrow: Tensor
    wide: Tensor
    directions: Tensor


def common_random_differences(
    simulator: System,
    policy: nn.Module,
    starts: Starts,
    horizon: int,
    discount: float,
    *,
    actions: str = "first",
    n: int = 64,
    termination: str = "ignore",
    seed: int = 0,
    progress: Progress = silent,
) -> Differences:
    """Differences of the T-step return for T = 1 … horizon along 8 random directions.

    The step ε moves actions by about a thousandth of their size. With `actions="first"` only the
    first action sees the perturbed parameters. Noise equals the rollouts' of the same seed, so
    that a difference is paired with the unrolled gradient of the same start.
    """
    count = min(n, len(starts.states))
    few = starts.block(slice(0, count))
    s0, e0 = few.states, few.policy_noise(policy, seed, 0)
    theta = nn.utils.parameters_to_vector(policy.parameters()).detach()
    draw = torch.randn(DIRECTIONS, len(theta), generator=stream(seed, "directions")).to(theta)
    trained = torch.cat([p.new_full((p.numel(),), p.requires_grad) for p in policy.parameters()])
    directions = nn.functional.normalize(draw * trained, dim=1)
    epsilon = _step_size(policy, s0, e0, directions)
    signs = [1.0, -1.0, 2.0, -2.0]
    moved = [perturbed(policy, sign * epsilon * v) for v in directions for sign in signs]
    copies = len(moved)
    state = s0.repeat(copies, 1)
    total, returns = state.new_zeros(len(state)), []
    alive = torch.ones(len(state), dtype=torch.bool, device=state.device)
    for t in range(horizon):
        e = few.policy_noise(policy, seed, t)
        with torch.no_grad():
            if t == 0 or actions == "all":
                pieces = zip(moved, state.reshape(copies, count, -1), strict=True)
                action = torch.cat([act(each, rows, e) for each, rows in pieces])
            else:
                action = act(policy, state, e.repeat(copies, 1))
            xi = few.dynamics_noise(simulator, seed, t).repeat(copies, 1)
            out = simulator.step(state, action, xi)
        counted = torch.where(alive, out.reward, 0.0) if termination == "mask" else out.reward
        total = total + discount**t * counted
        returns.append(total)
        alive, state = alive & out.alive, out.state
        progress("finite differences", t + 1, horizon)
    table = torch.stack(returns).reshape(horizon, DIRECTIONS, len(signs), count)
    plus, minus, plus2, minus2 = table.unbind(dim=2)
    return Differences((plus - minus) / (2 * epsilon), (plus2 - minus2) / (4 * epsilon), directions)


def perturbed(policy: nn.Module, step: Tensor) -> nn.Module:
    """A copy of the policy at θ + step."""
    moved = copy.deepcopy(policy)
    theta = nn.utils.parameters_to_vector(moved.parameters()).detach()
    nn.utils.vector_to_parameters(theta + step, moved.parameters())
    return moved


def _step_size(policy: nn.Module, states: Tensor, noise: Tensor, directions: Tensor) -> float:
    jacobian = policy_jacobian(policy, states, noise)
    reach = float(gram.along(jacobian, directions).square().mean().sqrt())
    with torch.no_grad():
        size = float(act(policy, states, noise).square().mean().sqrt())
    return 1e-3 * max(size, 1e-2) / max(reach, 1e-12)
