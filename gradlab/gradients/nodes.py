"""The actions of a path as nodes, with what both orders of their gradients are made of.

The Gaussian head of a policy, z = (μ, log σ), where both orders of a gradient meet.

    u = μ + σ ε,  a = squash(u)
    first order     ∂R/∂z = λ_u (1, σ ε),  λ_u = (∂a/∂u) ∂R/∂a       through the action
    zeroth order    R ∂ log π/∂z = R (ε/σ, ε² − 1)                   through its density

Both estimate ∂E[R]/∂z of one action, entry by entry, and reach θ by one Jacobian J = ∂z/∂θ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients.courses import Choices, Shared, TermRequest, course_of, returns_to_go
from gradlab.gradients.policy_jacobian import PolicyJacobian, from_factors, trace
from gradlab.gradients.rollout import LinearizedPath, TailGradient, tail_gradient
from gradlab.gradients.sweeps import discounted_costates
from gradlab.networks.policies import check_stochastic


class _Head(nn.Module):
    """state [N, ds] → z [N, 2 da]; the parameters are the policy's own."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, state: Tensor) -> Tensor:
        policy: Any = self.policy
        return torch.cat(policy.normal(state), dim=1)


@dataclass(frozen=True)
class _Draws:
    """What turns gradients in actions and returns into signals at z; [..., da] each.

    Attributes:
        noise: ε; std: σ; slope: ∂a/∂u.
    """

    noise: Tensor
    std: Tensor
    slope: Tensor

    def __getitem__(self, at: int) -> _Draws:
        return _Draws(self.noise[at], self.std[at], self.slope[at])

    def at(self, counted: Tensor) -> _Draws:
        """Without effect where [..., N] is not counted."""
        here = counted[..., None]
        std, slope = torch.where(here, self.std, 1.0), torch.where(here, self.slope, 0.0)
        return _Draws(self.noise, std, slope)

    def first(self, action_gradient: Tensor) -> Tensor:
        """∂R/∂z [..., 2 da] of ∂R/∂a."""
        latent = self.slope * action_gradient
        return torch.cat([latent, latent * self.std * self.noise], dim=-1)

    def zeroth(self, returns: Tensor) -> Tensor:
        """R ∂ log π/∂z [..., 2 da] of R [...]."""
        score = torch.cat([self.noise / self.std, self.noise**2 - 1], dim=-1)
        return returns[..., None] * score

    def in_noise(self, action_gradient: Tensor) -> Tensor:
        """∂R/∂ε of ∂R/∂a."""
        return self.slope * self.std * action_gradient


def check_head(policy: nn.Module) -> None:
    """
    Raises:
        InputError: the policy is deterministic, or no Gaussian whose head can be read.
    """
    check_stochastic(policy)
    if not (hasattr(policy, "normal") and hasattr(policy, "slope")):
        raise InputError(
            f"{type(policy).__name__} shows no Gaussian head: mixed gradients need its methods "
            f"normal(state) -> (mean, log_std) and slope(latent) -> da/du, each [N, da]"
        )


@torch.no_grad()
def draws_along(policy: nn.Module, path: Path) -> _Draws:
    """Noise, spread and slope of every action of a path, [H + 1, N, da] each."""
    shown: Any = policy
    mean, log_std = shown.normal(path.states.flatten(0, 1))
    std = log_std.exp()
    slope = shown.slope(mean + std * path.policy_noise.flatten(0, 1))
    shape = path.policy_noise.shape
    return _Draws(path.policy_noise, std.reshape(shape), slope.reshape(shape))


_CLIP = 3.0  # standard deviations at which a baseline's features stop


@dataclass(frozen=True)
class Nodes:
    """N paths of H steps; K horizons.

    Attributes:
        linear: the path, and what is differentiated along it.
        tail: gradients of the critic.
        draws: at every action; jacobian: J = ∂z/∂θ, samples (t, i); K: ∂z/∂s, [H + 1, N, 2 da, ds].
        to_go: γᵗ times the return from step t on, [K, H + 1, N].
        counted: the alive steps, where termination masks the others.
    """

    estimator: Choices
    horizons: tuple[int, ...]
    linear: LinearizedPath
    tail: TailGradient
    draws: _Draws
    jacobian: PolicyJacobian
    K: Tensor
    to_go: Tensor
    counted: Tensor | None

    @property
    def first(self) -> Tensor:
        """Pathwise signals, [K, H + 1, N, 2 da]."""
        tail = self.estimator.tail
        return self.draws.first(
            discounted_costates(
                self.linear, self.tail, tail.discount, self.horizons, tail.terminal_action
            )
        )

    def advantage(self, baseline: Baseline) -> Tensor:
        """Returns to go less the baseline, 0 past an end."""
        advantage = self.to_go - baseline.at(self.linear.path.states)
        return advantage if self.counted is None else torch.where(self.counted, advantage, 0.0)


def nodes(estimator: Choices, requested: TermRequest, shared: Shared | None) -> Nodes:
    """The estimator's path with both orders' parts.

    Raises:
        InputError: the policy has no Gaussian head.
    """
    policy, starts, horizons, seed, termination = requested
    check_head(policy)
    shared = Shared() if shared is None else shared
    course, linear = course_of(estimator, policy, starts, seed, termination, shared)
    path, tail, head = course.path, estimator.tail, _Head(policy)
    states = path.states.flatten(0, 1)
    traced = trace(head, states, states[:, :0])
    K = traced.K.reshape(*path.states.shape[:2], *traced.K.shape[1:])
    counted = path.alive if termination == "mask" else None
    draws = draws_along(policy, path)
    if counted is not None:  # a finished path may go on to anything
        K, draws = torch.where(counted[..., None, None], K, 0.0), draws.at(counted)
    return Nodes(
        estimator,
        horizons,
        linear,
        tail_gradient(path, tail.critic, tail.value, termination),
        draws,
        from_factors(head, traced.factors, states, states[:, :0]),
        K,
        returns_to_go(estimator, path, horizons, termination),
        counted,
    )


@dataclass(frozen=True)
class Baseline:
    """b_t(s) = w_t · (1, x, x²), x = (s − centre)/scale cut at ±3: a fit of the return to go.

    Attributes:
        centre, scale: [H + 1, ds]; weights: [K, H + 1, 1 + 2 ds].
    """

    centre: Tensor
    scale: Tensor
    weights: Tensor

    def at(self, states: Tensor) -> Tensor:
        """[K, H + 1, N] at states [H + 1, N, ds]."""
        features = _features(states, self.centre, self.scale)
        return torch.einsum("tnf,ktf->ktn", features, self.weights)


def fitted_baseline(states: Tensor, to_go: Tensor) -> Baseline:
    """By least squares, step by step; 0 where a sample is not finite."""
    finite = states.isfinite().all(dim=2).all(dim=1)
    known = torch.where(finite[:, None, None], states, 0.0)
    centre, scale = known.mean(dim=1), known.std(dim=1)
    scale = torch.where(scale > 0, scale, 1.0)
    targets = to_go.permute(1, 2, 0)
    sound = targets.isfinite().all(dim=1, keepdim=True) & finite[:, None, None]
    targets = torch.where(sound, targets, 0.0)
    features = _features(known, centre, scale).cpu()
    solved = torch.linalg.lstsq(features, targets.cpu(), driver="gelsd").solution
    return Baseline(centre, scale, solved.permute(2, 0, 1).to(states))


def _features(states: Tensor, centre: Tensor, scale: Tensor) -> Tensor:
    x = ((states - centre[:, None]) / scale[:, None]).clamp(-_CLIP, _CLIP)
    return torch.cat([torch.ones_like(x[..., :1]), x, x**2], dim=-1)
