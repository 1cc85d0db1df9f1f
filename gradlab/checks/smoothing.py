"""Pathwise gradients against those of the expected return: first and zeroth order, by state.

The return R of the simulator's H steps, its first action smoothed by σ u, u ~ N(0, I):

    ∇_a E R(a + σu)  =  E ∇R(a + σu)           first order: exact, yet blind to jumps of R
                     =  E u (R₊ − R₋) / 2σ     zeroth order: no derivative, R± = R(a ± σu)

Per state K pairs with common noise give K differences of both, less (uuᵀ − I) ḡ, of mean 0, with ḡ
the first-order mean of the other pairs. A state disagrees where |t| is beyond Student's quantile at
1% over all states and actions (Bonferroni). There the mixture α ∇¹ + (1 − α) ∇⁰ of least error has
α = v₀ / (v₀ + v₁ + b²). (Suh et al. 2022, "Do differentiable simulators give better policy
gradients?", section 3: empirical bias.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy
import torch
from torch import Tensor

from gradlab.checks.inspection import Inspection
from gradlab.data.noise import stream
from gradlab.gradients.rollout import linearize_path, rollout_with_jacobians
from gradlab.gradients.setting import Setting
from gradlab.gradients.starts import Starts
from gradlab.gradients.sweeps import closed_loop_reward_gradient, sensitivities
from gradlab.networks.interface import act
from gradlab.runs.check_results import EMPIRICAL, CheckResult
from gradlab.systems.ended import linearize_running, step_running
from gradlab.systems.entropy import Entropic
from gradlab.systems.system import System
from gradlab.truth.scout import linearization_price

STATES, PAIRS = 16, 32
FEW_STATES, FEW_PAIRS = 2, 8
SECONDS = 5.0  # of one core, for the Jacobians along all pairs
SCALE = 0.1  # σ over the limit of an action, or its size
LEVEL = 0.01  # chance of a false alarm over all states
LEAST = 1e-9  # of the gradient: smaller disagreements are rounding


@dataclass(frozen=True)
class Orders:
    """Gradients in the first action of M states by K pairs, [M, K, da] each."""

    first: Tensor
    zeroth: Tensor
    draws: Tensor


def smoothing(inspected: Inspection, simulator: System) -> list[CheckResult]:
    """One result about the simulator; none with entropy, whose actions are augmented."""
    horizon = max(
        (estimator.tail.horizon for estimator in inspected.pathwise().values()), default=0
    )
    augmented = any(
        isinstance(estimator.states, Entropic) for estimator in inspected.estimators.values()
    )
    if augmented or horizon < 1:
        return []
    states, pairs = _affordable(simulator, horizon)
    begin = inspected.setting.starts
    few = begin.block(slice(0, min(states, len(begin.states))))
    setting = replace(inspected.setting, simulator=simulator, starts=few, horizon=horizon)
    orders, sigma = both_orders(setting, inspected.action_limit, pairs)
    return [judged(orders, sigma, horizon)]


def _affordable(simulator: System, horizon: int) -> tuple[int, int]:
    """How many states, and pairs at each: fewer where Jacobians are dear."""
    price = 2 * horizon * linearization_price(simulator)
    if price * STATES * PAIRS <= SECONDS:
        return STATES, PAIRS
    return min(max(int(SECONDS / (price * FEW_PAIRS)), FEW_STATES), STATES), FEW_PAIRS


def both_orders(
    setting: Setting, limit: tuple[float, ...] | None, pairs: int = PAIRS
) -> tuple[Orders, Tensor]:
    """Every pair rolled out and differentiated, and σ per action.

    Args:
        setting: whose horizon rewards are summed.
        limit: largest |action| of each, None where the task does not clip.
    """
    few, seed = setting.starts, setting.seed
    m, noise = len(few.states), few.policy_noise(setting.policy, seed, 0)
    with torch.no_grad():
        action = act(setting.policy, few.states, noise)
    sigma = _scale(action, limit)
    da = action.shape[1]
    u = torch.randn(m * pairs, da, generator=stream(seed, "smoothing"), dtype=action.dtype)
    begin = Starts(
        few.states.repeat_interleave(pairs, 0),
        few.weight.repeat_interleave(pairs),
        torch.arange(m * pairs),
    )
    middle = action.repeat_interleave(pairs, 0)
    up, down = (
        _returned(replace(setting, starts=begin), middle + sign * sigma * u) for sign in (1.0, -1.0)
    )
    zeroth = u * (up[0] - down[0])[:, None] / 2
    first = sigma * (up[1] + down[1]) / 2  # in units of u, so that actions can be compared
    shape = (m, pairs, da)
    return Orders(first.reshape(shape), zeroth.reshape(shape), u.reshape(shape)), sigma


def _scale(action: Tensor, limit: tuple[float, ...] | None) -> Tensor:
    """σ of each action."""
    if limit is not None:
        return SCALE * action.new_tensor(limit)
    return SCALE * action.square().mean(dim=0).sqrt().clamp(min=1e-2)


def _returned(setting: Setting, action: Tensor) -> tuple[Tensor, Tensor]:
    """The return of the setting's horizon [N] and its gradient in the first action [N, da]."""
    simulator, begin, horizon = setting.simulator, setting.starts, setting.horizon
    mask = setting.termination == "mask"
    xi = begin.dynamics_noise(simulator, setting.seed, 0)
    with torch.no_grad():
        out = step_running(simulator, begin.states, action, xi)
    one = linearize_running(simulator, begin.states, action, xi)
    returns, gradient = out.reward, one.r_a
    if horizon == 1:
        return returns, gradient
    then = replace(begin, states=out.state)
    path, K = rollout_with_jacobians(simulator, setting.policy, then, horizon - 1, setting.seed, 1)
    path = replace(path, alive=path.alive & out.alive) if mask else path
    linear = linearize_path(path, simulator, K, path.dynamics_noise, setting.termination)
    gamma = setting.discount ** torch.arange(1, horizon, dtype=returns.dtype)
    counted = torch.where(path.alive[:-1], path.rewards, 0.0) if mask else path.rewards
    D = torch.cat([one.B[None], sensitivities(linear, one.B)[:-1]])
    c = closed_loop_reward_gradient(linear)
    return (
        returns + gamma @ counted,
        gradient + torch.einsum("h,hnsa,hns->na", gamma, D, c),
    )


def judged(orders: Orders, sigma: Tensor, horizon: int) -> CheckResult:
    """How many states disagree, by how much, and what mixture would do there."""
    first, zeroth, u = orders.first, orders.zeroth, orders.draws
    finite = (torch.isfinite(first) & torch.isfinite(zeroth)).flatten(1).all(dim=1)
    first, zeroth, u = first[finite], zeroth[finite], u[finite]
    m, k, da = first.shape
    if not m:
        return CheckResult(EMPIRICAL, "no state with finite returns", "nothing to compare", True)
    others = (first.sum(dim=1, keepdim=True) - first) / (k - 1)
    baseline = u * (u * others).sum(dim=2, keepdim=True) - others
    gap = zeroth - first - baseline
    mean, se = gap.mean(dim=1), gap.std(dim=1) / k**0.5
    size = first.mean(dim=1).norm(dim=1, keepdim=True)
    t = torch.where(mean.abs() > LEAST * size, mean / se, 0.0).abs().amax(dim=1)
    beyond = t > scipy.stats.t.ppf(1 - LEVEL / (2 * m * da), k - 1)
    count, share = int(beyond.sum()), float(beyond.double().mean())
    rolled_out = (
        f"{m} states, {k} pairs each, first action ± {_sizes(sigma)}, {horizon} steps of the "
        f"simulator"
    )
    if not count:
        result = f"first- and zeroth-order gradients do not disagree in any state ({rolled_out})"
        return CheckResult(EMPIRICAL, result, "no empirical bias detected", True)
    result = (
        f"first- and zeroth-order gradients disagree by {float(t[beyond].median()):.2g} standard "
        f"errors in {share:.0%} of the states ({count} of {rolled_out})"
    )
    alpha = _alpha(first[beyond], zeroth[beyond], gap[beyond])
    meaning = (
        f"the pathwise gradient is exact but not that of the expected return there; "
        f"α = {alpha:.2g} of it mixes best with the zeroth order"
    )
    return CheckResult(EMPIRICAL, result, meaning, False)


def _alpha(first: Tensor, zeroth: Tensor, gap: Tensor) -> float:
    """v₀ / (v₀ + v₁ + b²) of the means, summed over states."""
    k = first.shape[1]
    v1, v0, vd = (float(x.var(dim=1).sum()) / k for x in (first, zeroth, gap))
    bias2 = max(float(gap.mean(dim=1).square().sum()) - vd, 0.0)
    return v0 / (v0 + v1 + bias2) if v0 + v1 + bias2 > 0 else 1.0


def _sizes(sigma: Tensor) -> str:
    return ", ".join(np.format_float_positional(x, 2, fractional=False, trim="-") for x in sigma)
