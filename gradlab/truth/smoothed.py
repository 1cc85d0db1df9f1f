"""The gradient of a smoothed return: of E R with σ u, u ~ N(0, I), added to actions; by scores.

    first   E_d[J_θπᵀ ∂_a E_u Q^π(s, a + σ u)]:  u (R₊ − R₋)/2σ, R± the return from a ± σ u on
    all     ∇_θ E_d[V of the policy π + σ u]:    Σ_t γᵗ J_θπ(s_t)ᵀ u_t/σ (G_t − b_t)

A jump of the return counts with its whole effect, where a pathwise gradient of the plain return is
blind to it (Suh et al. 2022, section 3). σ → 0 gives the plain gradient where the return is smooth.
Paths from one start come in pairs ± u on common noise of policy and dynamics, each pair on noise of
its own; b_t is the mean of the start's other pairs.

Pathwise gradients ḡ_t along one path from the start, on noise that no pair shares, are a control
variate: with them u_t/σ (G_t − b_t) becomes ḡ_t + u_t/σ (G_t − Σ_{k≥t} ḡ_k σ u_k − b_t), whose mean
is the same whatever ḡ is, since it is a constant of the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradlab import validation
from gradlab.data.noise import child, stream
from gradlab.errors import InputError
from gradlab.gradients import gram
from gradlab.gradients.policy_jacobian import policy_jacobian
from gradlab.gradients.rollout import tail_gradient
from gradlab.gradients.starts import policy_noise_at
from gradlab.gradients.sweeps import discounted_costates
from gradlab.gradients.tail import Setting
from gradlab.networks.interface import act
from gradlab.progress import Progress, silent
from gradlab.systems.system import standard_normal, step_running
from gradlab.truth.agreement import precision_of, sweep_precision, unchecked
from gradlab.truth.oracles import piece
from gradlab.truth.score_actions import advantage
from gradlab.truth.truth import Truth

_ROWS = 6400  # policy Jacobians held at once


@dataclass(frozen=True)
class Smoothing:
    """How a return is smoothed.

    Attributes:
        sigma: standard deviation of what is added to actions, action units; one number or one for
            each action.
        actions: "first": to the first alone, θ in that action; "all": to every one, θ in all.
        pairs: pairs of paths from each start, at least 2.
        controlled: by pathwise gradients, which cost one path of Jacobians from each start.
    """

    sigma: float | tuple[float, ...]
    actions: Literal["first", "all"] = "all"
    pairs: int = 16
    controlled: bool = True

    def __post_init__(self) -> None:
        sizes = self.sigma if isinstance(self.sigma, tuple) and self.sigma else (self.sigma,)
        for size in sizes:
            if not validation.number("sigma", size, "a positive number, or one per action") > 0:
                raise InputError(f"sigma is {self.sigma!r}, expected positive numbers")
        validation.word("actions of a smoothing", self.actions, ("first", "all"))
        validation.whole("pairs", self.pairs, 2)

    def __str__(self) -> str:
        sizes = self.sigma if isinstance(self.sigma, tuple) else (self.sigma,)
        words = {"first": "the first action", "all": "all actions"}[self.actions]
        return f"smoothed by {', '.join(f'{size:g}' for size in sizes)} in {words}"


def smoothed_truth(setting: Setting, smoothing: Smoothing, progress: Progress = silent) -> Truth:
    """The reference for estimators with θ in the same actions.

    Args:
        setting: whose horizon T ≥ 1 rewards are summed; without entropy.

    Raises:
        InputError: no rewards are summed, σ does not fit the actions, or paths leave the finite
            numbers.
    """
    validation.whole("horizon of a smoothed return", setting.horizon, 1)
    width = setting.simulator.action_dim
    if isinstance(smoothing.sigma, tuple) and len(smoothing.sigma) != width:
        raise InputError(f"sigma has {len(smoothing.sigma)} entries, expected {width}, the actions")
    paths = _followed(setting, smoothing, progress)
    lost = int((~paths.to_go.isfinite()).any(dim=0).any(dim=1).sum())
    if lost:
        raise InputError(
            f"smoothed paths from {lost} of {paths.to_go.shape[1]} starts leave the finite "
            f"numbers: lower sigma or the horizon"
        )
    slopes = _slopes(setting, smoothing)
    weights = _weights(paths, slopes, smoothing)
    first, every = None, None
    if smoothing.actions == "first":
        g, begin = weights[0].mean(dim=1), setting.starts  # over a start's paths
        noise = begin.policy_noise(setting.policy, setting.seed, 0)
        jacobian = policy_jacobian(setting.policy, begin.states, noise)
        first = unchecked(g, sweep_precision(g[None], jacobian, begin))
    else:
        G = _in_every_action(setting, paths, weights)
        every = unchecked(G, precision_of(G, setting.starts))
    nothing = float("nan")
    return Truth(
        status="cut",
        horizon=setting.horizon,
        first=first,
        every=every,
        lyapunov=nothing,
        remainder=nothing,
        flagged=0.0,
        boundary=nothing,
        boundary_se=nothing,
        reason=f"the return of {setting.horizon} steps, {smoothing}, by scores",
        checked=False,
    )


@dataclass(frozen=True, eq=False)
class _Paths:
    """T steps of R = 2 · pairs paths from each of N starts; partners in a pair are neighbours.

    Attributes:
        states: [T, N, R, ds]; noise: the policy's, [T, N, R, dn]; moved: u/σ, [T, N, R, da].
        to_go: Σ_{k≥t} γᵏ r_k, [T, N, R]; alive: [T, N, R].
    """

    states: Tensor
    noise: Tensor
    moved: Tensor
    to_go: Tensor
    alive: Tensor


def _followed(setting: Setting, smoothing: Smoothing, progress: Progress) -> _Paths:
    begin, R = setting.starts.states, 2 * smoothing.pairs
    n, masked = len(begin), setting.termination == "mask"
    sigma = torch.as_tensor(smoothing.sigma).to(begin)
    sign = torch.tensor([1.0, -1.0]).to(begin).repeat(n * smoothing.pairs)[:, None]
    state, alive = begin.repeat_interleave(R, dim=0), torch.ones(n * R, dtype=torch.bool)
    states, noises, moves, rewards, lives = [], [], [], [], []
    for t in range(setting.horizon):
        smooths = t == 0 or smoothing.actions == "all"
        generator = stream(setting.seed, "smoothed truth", t)
        drawn = standard_normal(n * smoothing.pairs, setting.simulator.action_dim, generator)
        u = sign * drawn.to(begin).repeat_interleave(2, dim=0) * float(smooths)
        noise = _policy_noise(setting, smoothing, t)
        generator = stream(child(setting.seed, "smoothed truth"), "dynamics", t)
        drawn = setting.simulator.sample_noise(n * smoothing.pairs, generator, begin.dtype)
        shocks = drawn.to(begin).repeat_interleave(2, dim=0)
        states.append(state)
        noises.append(noise)
        moves.append(u / sigma)
        lives.append(alive)
        with torch.no_grad():
            action = act(setting.policy, state, noise) + sigma * u
            out = step_running(setting.simulator, state, action, shocks)
        paid = torch.where(alive, out.reward, 0.0) if masked else out.reward
        rewards.append(setting.discount**t * paid)
        alive, state = (alive & out.alive if masked else alive), out.state
        if masked:  # a finished path waits where nothing overflows
            state = torch.where(alive[:, None], state, states[0])
        progress("smoothed truth", t + 1, setting.horizon)

    def divided(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts).view(len(parts), n, R, *parts[0].shape[1:])

    to_go = divided(rewards).flip(0).cumsum(dim=0).flip(0)
    return _Paths(divided(states), divided(noises), divided(moves), to_go, divided(lives))


def _policy_noise(setting: Setting, smoothing: Smoothing, t: int) -> Tensor:
    """ε of every path: the measurement's in the first action where only that one is smoothed."""
    starts, policy, n = setting.starts, setting.policy, len(setting.starts.states)
    if t == 0 and smoothing.actions == "first":
        return starts.policy_noise(policy, setting.seed, 0).repeat_interleave(
            2 * smoothing.pairs, dim=0
        )
    seed = child(setting.seed, "smoothed truth")
    drawn = policy_noise_at(policy, n * smoothing.pairs, seed, t, starts.states)
    return drawn.repeat_interleave(2, dim=0)


def _slopes(setting: Setting, smoothing: Smoothing) -> Tensor:
    """ḡ_t with its γᵗ along one path on the measurement's noise, [T, N, da]; 0 where it is lost."""
    starts, T = setting.starts, setting.horizon
    if not smoothing.controlled:
        return starts.states.new_zeros(T, len(starts.states), setting.simulator.action_dim)
    linear = piece(setting, T)
    nothing = tail_gradient(linear.path, None, "Q")
    slopes = discounted_costates(linear, nothing, setting.discount, (T,))[0, :T]
    sound = slopes.isfinite().all(dim=2).all(dim=0)
    return torch.where(sound[:, None], slopes, 0.0)


def _weights(paths: _Paths, slopes: Tensor, smoothing: Smoothing) -> Tensor:
    """ḡ_t + u_t/σ (G_t − Σ_{k≥t} ḡ_k σ u_k − b_t) of every path, [T, N, R, da]."""
    sigma2 = torch.as_tensor(smoothing.sigma).to(slopes) ** 2
    predicted = torch.einsum("tna,tnra->tnr", slopes, sigma2 * paths.moved)
    residual = paths.to_go - predicted.flip(0).cumsum(dim=0).flip(0)
    left = torch.stack([advantage(of_step) for of_step in residual])
    weights = slopes[:, :, None] + paths.moved * left[..., None]
    return weights * paths.alive[..., None]


def _in_every_action(setting: Setting, paths: _Paths, weights: Tensor) -> Tensor:
    """Mean over a start's paths of Σ_t J_tᵀ weights_t, importance weights included, [N, P]."""
    costates, parts = weights / paths.to_go.shape[2], []
    for rows in _blocks(paths):
        # Samples are (step and path, start), so that the sum over both is one product.
        states, noise, costate = (
            x[:, rows].transpose(1, 2).flatten(0, 1) for x in (paths.states, paths.noise, costates)
        )
        jacobian = policy_jacobian(setting.policy, states.flatten(0, 1), noise.flatten(0, 1))
        parts.append(gram.path_gradients(jacobian, costate))
    return torch.cat(parts) * setting.starts.weight[:, None]


def _blocks(paths: _Paths) -> Iterator[slice]:
    T, n, R = paths.to_go.shape
    size = max(1, _ROWS // (T * R))
    return (slice(begin, min(begin + size, n)) for begin in range(0, n, size))
