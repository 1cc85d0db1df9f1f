"""Every horizon of one estimator at once: mean gradients and exact per-sample squared norms.

By kernels over the policy's layer factors (`gradients.gram`). Samples are taken in blocks, so
memory is flat in N; noise is drawn for the whole batch, so the draws do not depend on the blocks.
The mean of one horizon alone is plain backpropagation through time where autograd can pass.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.data.trajectories import Path
from gradlab.errors import InputError
from gradlab.gradients.estimator import BLOCK, Estimator, checked, first_horizon, softened
from gradlab.gradients.gram import path_mean_gradients, path_squared_norms
from gradlab.gradients.rollout import noise_mode
from gradlab.gradients.setting import Starts
from gradlab.gradients.weighted_terms import carried
from gradlab.networks.interface import act
from gradlab.networks.mlp import judge
from gradlab.systems.system import Recorded, System


@dataclass(frozen=True)
class _HorizonGradients:
    """Gradients of the horizons n_1 … n_K.

    Attributes:
        horizons: K values.
        means: [K, P] float64.
        squared_norms: |G_i|² of every sample, [K, N].
        grouped: some samples share a group, so that they are not independent.
    """

    horizons: tuple[int, ...]
    means: Tensor
    squared_norms: Tensor
    grouped: bool = False

    @property
    def non_finite(self) -> Tensor:
        """How many samples have no finite gradient at each horizon, [K]; they spoil its mean."""
        return (~torch.isfinite(self.squared_norms)).sum(dim=1)

    def variance(self) -> Tensor:
        """Trace of the per-sample covariance, [K]; from a float32 policy, what is below 1e-6 of
        |mean|² is rounding.

        Raises:
            InputError: samples share groups (use `measure`).
        """
        n = self.squared_norms.shape[1]
        if self.grouped or n < 2:
            raise InputError("samples share groups or are fewer than 2: use gradlab.measure")
        norms = self.squared_norms.double().mean(dim=1)
        return n / (n - 1) * (norms - self.means.square().sum(dim=1))


def horizon_gradients(
    estimator: Estimator,
    policy: nn.Module,
    starts: Tensor | Path | Starts,
    *,
    horizons: Sequence[int] | None = None,
    seed: int = 0,
    termination: str = "ignore",
    block: int = BLOCK,
) -> _HorizonGradients:
    """Means and squared norms for horizons up to the estimator's own.

    Args:
        horizons: a grid; None: 0 (or 1, where 0 would leave no θ) … estimator.tail.horizon.
        block: samples at once; values do not depend on it beyond rounding.

    Raises:
        InputError: a horizon outside of 0 … estimator.tail.horizon.
    """
    begin = checked(estimator, policy, starts, termination)
    chosen = _chosen(estimator, horizons)
    plain, policy = softened(estimator, policy)
    n, norms = len(begin.states), []
    means: Tensor | None = None
    for rows in begin.blocks(block):
        terms = carried(plain, policy, rows, chosen, seed, termination)
        norms.append(path_squared_norms(terms.jacobian, terms.costates))
        mean = path_mean_gradients(terms.jacobian, terms.costates, terms.ends)
        share = mean.double() * (len(rows.states) / n)
        means = share if means is None else means.add_(share)
    assert means is not None  # there is a start, and so a block
    grouped = len(np.unique(begin.group.cpu().numpy())) < n
    return _HorizonGradients(chosen, means, torch.cat(norms, dim=1), grouped)


def _chosen(estimator: Estimator, horizons: Sequence[int] | None) -> tuple[int, ...]:
    low, high = first_horizon(estimator), estimator.tail.horizon
    if horizons is None:
        return tuple(range(low, high + 1))
    wrong = [h for h in horizons if not low <= h <= high]
    if wrong or not horizons:
        raise InputError(f"horizons {list(horizons)} are not all within {low} … {high}")
    return tuple(horizons)


def mean_gradient(
    estimator: Estimator,
    policy: nn.Module,
    starts: Tensor | Path | Starts,
    seed: int = 0,
    termination: str = "ignore",
) -> Tensor:
    """Mean gradient [P] alone, which `Estimator.mean_gradient` gives, by one plain backward pass
    where autograd can pass."""
    begin = checked(estimator, policy, starts, termination)
    plain, soft = softened(estimator, policy)
    if not _autograd_passes(plain):
        return estimator.mean_gradient(policy, begin, seed, termination)
    parameters = list(soft.parameters())
    trained = [p for p in parameters if p.requires_grad]
    with torch.enable_grad():
        mean = _mean_return(plain, soft, begin, seed, termination)
        if not mean.requires_grad:  # a critic that no action moves, alone
            return torch.cat([torch.zeros_like(p).flatten() for p in parameters])
        grads = iter(torch.autograd.grad(mean, trained, materialize_grads=True))
    return torch.cat(
        [(next(grads) if p.requires_grad else torch.zeros_like(p)).flatten() for p in parameters]
    )


def objective(
    estimator: Estimator,
    policy: nn.Module,
    starts: Tensor | Path | Starts,
    seed: int = 0,
    termination: str = "ignore",
) -> Tensor:
    """A scalar whose gradient in θ is the mean gradient: the n-step return, mean over the starts.

    Where autograd cannot pass, as of a score or a cut path, it is ⟨θ, mean gradient⟩, whose value
    means nothing.
    """
    begin = checked(estimator, policy, starts, termination)
    plain, soft = softened(estimator, policy)
    if _autograd_passes(plain):
        return _mean_return(plain, soft, begin, seed, termination)
    mean = estimator.mean_gradient(policy, begin, seed, termination)
    theta = torch.cat([p.flatten() for p in policy.parameters()])
    return theta @ mean.to(theta)


def _autograd_passes(estimator: Estimator) -> bool:
    """Through the estimator's path, all of whose derivatives are counted?"""
    model = estimator.jacobians if estimator.jacobians is not None else estimator.states
    detached = not estimator.way.pathwise or bool(estimator.cut) or estimator.replay is not None
    return not detached and not isinstance(estimator.states, Recorded) and model.differentiable


def _mean_return(
    estimator: Estimator, policy: nn.Module, starts: Starts, seed: int, termination: str
) -> Tensor:
    """The n-step return, weighted mean over the starts, with its graph."""
    return (_returns(estimator, policy, starts, seed, termination) * starts.weight).mean()


def _returns(
    estimator: Estimator,
    policy: nn.Module,
    starts: Starts,
    seed: int,
    termination: str,
) -> Tensor:
    """n-step returns [N] with their graph."""
    tail, n = estimator.tail, len(starts.states)
    model = estimator.jacobians if estimator.jacobians is not None else estimator.states
    frozen = copy.deepcopy(policy).requires_grad_(False)
    s, alive = starts.states, torch.ones(n, dtype=torch.bool, device=starts.states.device)
    total = s.new_zeros(n)

    def choose(t: int, carries: bool) -> Tensor:
        e = starts.policy_noise(policy, seed, t)
        return act(policy if carries else frozen, s, e)

    for t in range(tail.horizon):
        a = choose(t, carries=estimator.way.carries(t))
        xi = starts.dynamics_noise(estimator.states, seed, t)
        s_next, reward, on = _step(estimator.states, model, s, a, xi)
        if termination == "mask":
            # A finished sample waits at its start, where nothing overflows, and counts no more.
            reward = torch.where(alive, reward, 0.0)
            alive = alive & on
            s_next = torch.where(alive[:, None], s_next, starts.states)
        total, s = total + tail.discount**t * reward, s_next
    if tail.critic is not None:
        attached = estimator.way.every and tail.terminal_action == "attached"
        a = s[:, :0]  # a V critic's
        if tail.value == "Q":
            a = choose(tail.horizon, carries=tail.horizon == 0 or attached)
        value = judge(tail.critic, tail.value, s, a)
        value = torch.where(alive, value, 0.0) if termination == "mask" else value
        total = total + tail.discount**tail.horizon * value
    return total


def _step(
    states: System, model: System, s: Tensor, a: Tensor, xi: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Next state and reward: values of `states`, derivatives of `model`."""
    if model is states:
        out = states.step(s, a, xi)
        return out.state, out.reward, out.alive
    with torch.no_grad():
        true = states.step(s, a, xi)
    noise = None
    if noise_mode(states, model) == "inferred":
        noise = getattr(model, "infer_noise")(s.detach(), a.detach(), true.state)  # noqa: B009
    out = model.step(s, a, noise)
    state = true.state + (out.state - out.state.detach())
    return state, true.reward + (out.reward - out.reward.detach()), true.alive
