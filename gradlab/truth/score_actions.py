"""The true gradient with θ in the first k actions by score functions: no derivative of a simulator.

    g_i = Σ_{t<k} γᵗ E[∇_θ log π(a_t|s_t) (G_t − b_t)],   G_t = Σ_{u≥t} γ^{u−t} (r_u − α log π_u)

(RP-PGM eq. 2.5), where chains of Jacobians outgrow the discount. Paths from one start come in pairs
with opposite noise in the first k actions; the baseline of a path is the mean return of the other
pairs. With θ in all T actions (`score_gradients`) a baseline φ(s)·β_t, φ = (1, s, s²), fitted to
other starts is taken off before: it needs a third of the starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gradlab.data.trajectories import stream
from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.gradients.setting import Setting, grouping
from gradlab.networks.policies import check_stochastic
from gradlab.progress import Progress, silent
from gradlab.systems.system import standard_normal, step_running
from gradlab.truth.agreement import PRECISION, EarlyTruth, Status, precision_of
from gradlab.truth.oracles import effective_horizon

PAIRS = 8
_LEFT = 0.01  # γᵀ of a return's end
_TOGETHER = 64  # starts whose gradients are taken at once
_TERMS = 40_000  # and log densities, where there are those of many steps
_CACHED = 2048  # states that are acted on at once: the layers of more leave a core's cache
_FOLDS = 4  # of starts, each of whose baseline the others fit


def score_truth(
    setting: Setting,
    counts: Sequence[int],
    *,
    temperature: float = 0.0,
    pairs: int = PAIRS,
    progress: Progress = silent,
) -> EarlyTruth:
    """The truth for several numbers of actions that carry θ.

    Args:
        setting: the plain system with a policy that has a density; entropy is no part of it.
        temperature: α, in rewards per nat.
        pairs: pairs of paths from each start.

    Raises:
        InputError: fewer than two pairs, or a policy without noise or density.
    """
    check_stochastic(setting.policy)
    if pairs < 2:
        raise InputError(f"pairs is {pairs}, expected at least 2: one is the other's baseline")
    early = max(counts)
    steps = effective_horizon(setting.discount, _LEFT) + early - 1
    paths = _followed(setting, early, steps, pairs, temperature, progress)
    lost = int((~paths.to_go.isfinite()).any(dim=0).any(dim=1).sum())
    if lost:
        n = paths.to_go.shape[1]
        return EarlyTruth("none", 0, Finding("truth_score_lost", "fail", "", lost, n=n), None)
    parts = [
        setting.discount**t * _score_products(setting.policy, *step)
        for t, step in enumerate(paths.steps())
    ]
    sums = torch.stack(parts).cumsum(dim=0) * setting.starts.weight[:, None]
    status: Status
    share = float(precision_of(sums[0], setting.starts).relative)
    if share <= PRECISION:
        status, found = "score", Finding("truth_score", "pass", "", steps)
    else:
        status = "imprecise"
        found = Finding("truth_score_imprecise", "undecided", "", share, threshold=PRECISION)
    return EarlyTruth(status, steps, found, lambda count: sums[count - 1])


def score_gradients(
    setting: Setting,
    *,
    temperature: float = 0.0,
    pairs: int = PAIRS,
    progress: Progress = silent,
) -> Tensor:
    """Σ_{t<T} γᵗ ∇_θ log π(a_t|s_t) (G_t − b_t) of the T-step return, weights included, [N, P].

    Args:
        setting: the plain system with a policy that has noise and a density, and the horizon T.
        temperature, pairs: as of `score_truth`.
    """
    T = setting.horizon
    paths = _followed(setting, T, T, pairs, temperature, progress)
    residual = torch.stack([
        advantage(to_go - fitted)
        for to_go, fitted in zip(paths.to_go, _baselines(setting, paths), strict=True)
    ])  # fmt: skip
    gamma = T * setting.discount ** torch.arange(T).to(
        residual
    )  # the mean over samples is T's part
    weights = gamma[:, None, None] * residual * paths.alive
    n, parts = len(setting.starts.states), []
    size = max(1, _TERMS // (T * 2 * pairs))
    for begin in range(0, n, size):
        rows = slice(begin, begin + size)
        # Samples are (step and path) of a start, so that one gradient is the sum over both.
        some = (
            x[:, rows].transpose(0, 1).flatten(1, 2) for x in (paths.states, paths.noise, weights)
        )
        parts.append(_score_products(setting.policy, *some))
    return torch.cat(parts) * setting.starts.weight[:, None]


def _baselines(setting: Setting, paths: _Paths) -> Iterator[Tensor]:
    """φ(s_t)·β_t of every step [N, R], β_t fitted on the folds that a start is not in."""
    fold = grouping(setting.starts)[0] % _FOLDS
    for state, to_go, alive in zip(paths.states, paths.to_go, paths.alive, strict=True):
        fitted = torch.zeros_like(to_go)
        centred = state - state.flatten(0, 1).mean(dim=0)
        scaled = centred / centred.flatten(0, 1).square().mean(dim=0).sqrt().clamp(min=1e-12)
        phi = torch.cat([torch.ones_like(state[..., :1]), scaled, scaled**2], dim=2)
        phi = phi * alive[..., None]
        ridge = 1e-6 * torch.eye(phi.shape[2]).to(phi)
        for k in range(_FOLDS):
            own, others = fold == k, fold != k
            x, y = phi[others].flatten(0, 1), to_go[others].flatten()
            beta = torch.linalg.solve(x.T @ x / len(x) + ridge, x.T @ y / len(x))
            fitted[own] = phi[own] @ beta
        yield fitted


@dataclass(frozen=True, eq=False)
class _Paths:
    """The first K steps of all paths, with R = 2 · pairs from each of N starts.

    Attributes:
        states: [K, N, R, ds]; noise: the policy's, [K, N, R, da]; to_go: G_t, [K, N, R], 0 once a
            path has ended; alive: [K, N, R].
    """

    states: Tensor
    noise: Tensor
    to_go: Tensor
    alive: Tensor

    def steps(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """States, noise and advantages G_t − b_t of each step."""
        for t, to_go in enumerate(self.to_go):
            yield self.states[t], self.noise[t], advantage(to_go) * self.alive[t]


def advantage(to_go: Tensor) -> Tensor:
    """G − b [N, R] of returns [N, R], where partners in a pair are neighbours."""
    n, count = to_go.shape
    pair = to_go.view(n, -1, 2).sum(dim=2).repeat_interleave(2, dim=1)
    return to_go - (to_go.sum(dim=1, keepdim=True) - pair) / (count - 2)


def _followed(
    setting: Setting, early: int, steps: int, pairs: int, alpha: float, progress: Progress
) -> _Paths:
    policy, starts = setting.policy, setting.starts.states
    n, masked = len(starts), setting.termination == "mask"
    state = starts.repeat_interleave(2 * pairs, dim=0)
    alive = torch.ones(len(state), dtype=torch.bool, device=starts.device)
    states, noises, lives, rewards = [], [], [], []
    for t in range(steps):
        drawn = standard_normal(n * pairs, policy.noise_dim, stream(setting.seed, "score", t))  # type: ignore[arg-type]
        noise = drawn.to(starts).repeat_interleave(2, dim=0)
        if t < early:
            noise[1::2] *= -1
            states.append(state)
            noises.append(noise)
            lives.append(alive)
        elif not alive.any():
            break
        state, reward, still = _stepped(setting, t, state, noise, alive, alpha)
        rewards.append(reward)
        alive = still if masked else alive
        progress("truth", t + 1, steps)
    progress("truth", steps, steps)

    def divided(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts).view(len(parts), n, 2 * pairs, *parts[0].shape[1:])

    total, sums = torch.zeros_like(rewards[0]), []
    for reward in reversed(rewards):
        total = reward + setting.discount * total
        sums.append(total)
    to_go = divided(sums[::-1][:early])
    return _Paths(divided(states), divided(noises), to_go, divided(lives))


def _stepped(
    setting: Setting, t: int, state: Tensor, noise: Tensor, alive: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Next states, soft rewards and which of the paths are alive then; the others rest, unpaid."""
    simulator, rows = setting.simulator, alive.nonzero().flatten()
    if not len(rows):
        return state, torch.zeros_like(state[:, 0]), alive
    drawn = simulator.sample_noise(
        len(state) // 2, stream(setting.seed, "score dynamics", t), state.dtype
    )
    moved = drawn.to(state).repeat_interleave(2, dim=0)
    action, density = _acted(setting.policy, state[rows], noise[rows])
    out = step_running(simulator, state[rows], action, moved[rows])
    reward = state.new_zeros(len(state)).index_copy(0, rows, out.reward - alpha * density)
    return state.index_copy(0, rows, out.state), reward, alive.index_copy(0, rows, out.alive)


@torch.no_grad()
def _acted(policy: Any, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Action [N, da] and log π [N]; NaN where a state is not finite."""
    parts = []
    pairs = zip(torch.split(state, _CACHED), torch.split(noise, _CACHED), strict=True)
    for s, e in pairs:
        if hasattr(policy, "with_log_prob"):
            parts.append(policy.with_log_prob(s, e))
        else:
            action = policy(s, e)
            parts.append((action, policy.log_prob(s, action)))
    actions, densities = zip(*parts, strict=True)
    return torch.cat(actions), torch.cat(densities)


class _LogProb(nn.Module):
    """log π of draws whose actions are held fixed."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, state: Tensor, noise: Tensor) -> Tensor:
        policy: Any = self.policy
        density: Tensor
        if hasattr(policy, "log_prob_of_draw"):
            density = policy.log_prob_of_draw(state, noise)
        else:
            density = policy.log_prob(state, policy(state, noise).detach())
        return density


def _score_products(policy: nn.Module, states: Tensor, noise: Tensor, weights: Tensor) -> Tensor:
    """Mean over a start's paths of w ∇_θ log π, [N, P]; states [N, R, ds], weights [N, R]."""
    module = _LogProb(policy)
    parameters = {name: value.detach() for name, value in module.named_parameters()}

    def mean(theta: dict[str, Tensor], s: Tensor, e: Tensor, w: Tensor) -> Tensor:
        density: Tensor = functional_call(module, theta, (s, e))
        return (w * density).mean()

    each = vmap(grad(mean), in_dims=(None, 0, 0, 0), chunk_size=_TOGETHER)
    slopes = each(parameters, states, noise, weights)
    return torch.cat([slope.flatten(1) for slope in slopes.values()], dim=1)
