"""Searches for actions that a model pays most for, all at an equal number of its roll-outs.

    score(a_0 … a_{H−1}) = Σ_{t<H} γᵗ r_t + γᴴ Q(s_H, π(s_H)),   s_{t+1} = f(s_t, a_t)

    gradient    Adam on the actions, from the first plan and from others around it
    projected   the same, back within the action limits after every step
    cem         means and standard deviations of the best tenth (PETS, Chua et al. 2018, alg. 1)
    mppi        of all, weighted by exp(score / (τ sd)) (Williams et al. 2017; TD-MPC2)

A gradient costs three roll-outs: one ahead, two back. Gradient searches give the best plan that
they met, by the model's own score; the others the mean of their last round, as published.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from gradlab.networks.interface import act, noise_dim
from gradlab.networks.mlp import judge
from gradlab.systems.system import System

_GRADIENT = 3  # roll-outs that a gradient costs
_CHAINS = 4  # plans that a gradient search begins from
_ROUNDS = 4  # of sampling
_ELITES = 0.1
_TEMPERATURE = 0.5  # τ, in standard deviations of a round's scores
_LEAST = 0.05  # standard deviation of an action that stays, in its own unit


@dataclass(frozen=True, eq=False)
class Imagination:
    """What plans are scored in: rows of starts [S], each with C plans.

    Attributes:
        unit: size of an action, [da]; limit: largest |action|, or None.
        noise: [H, S, D, noise_dim], of D roll-outs of every plan, the same for all plans.
    """

    model: System
    policy: nn.Module | None
    critic: nn.Module | None
    discount: float
    unit: Tensor
    limit: Tensor | None
    noise: Tensor

    @property
    def draws(self) -> int:
        return self.noise.shape[2]

    def within(self, actions: Tensor) -> Tensor:
        """Actions, none beyond its limit."""
        return actions if self.limit is None else actions.clamp(-self.limit, self.limit)

    def greedy(self, state: Tensor) -> Tensor:
        """Actions [N, da] without a plan: the policy's, without noise; 0 where there is none."""
        if self.policy is None:
            return state.new_zeros(len(state), self.model.action_dim)
        return act(self.policy, state, state.new_zeros(len(state), noise_dim(self.policy)))

    @torch.no_grad()
    def unplanned(self, states: Tensor, horizon: int) -> Tensor:
        """Actions [S, H, da] of the policy along its own path through the model."""
        actions = []
        for t in range(horizon):
            actions.append(self.within(self.greedy(states)))
            states = self.model.step(states, actions[t], self._noise(t, 0, len(states), 1)).state
        return torch.stack(actions, 1).nan_to_num(0.0)

    def scores(self, states: Tensor, plans: Tensor) -> Tensor:
        """[S, C], of plans [S, C, H, da]: means over the draws; −∞ where one is not finite."""
        S, C, H, _ = plans.shape
        state = states.repeat_interleave(C * self.draws, 0)
        total, alive = state.new_zeros(len(state)), state.new_ones(len(state))
        for t in range(H):
            action = plans[:, :, t].reshape(S * C, -1).repeat_interleave(self.draws, 0)
            after = self.model.step(state, action, self._noise(t, None, S, C))
            total = total + self.discount**t * alive * after.reward
            state, alive = after.state, alive * after.alive.to(alive)
        if self.policy is not None and self.critic is not None:
            tail = judge(self.critic, "Q", state, self.greedy(state))
            total = total + self.discount**H * alive * tail
        return (
            total.reshape(S, C, self.draws).mean(2).nan_to_num(-torch.inf, -torch.inf, -torch.inf)
        )

    def _noise(self, t: int, draw: int | None, starts: int, plans: int) -> Tensor | None:
        if not self.model.noise_dim:
            return None
        drawn = self.noise[t] if draw is None else self.noise[t][:, draw : draw + 1]
        return drawn[:starts, None].expand(-1, plans, -1, -1).reshape(-1, self.model.noise_dim)


_Search = Callable[[Imagination, Tensor, Tensor, int, torch.Generator], Tensor]


def gradient(
    imagined: Imagination, states: Tensor, first: Tensor, rollouts: int,
    generator: torch.Generator, projected: bool = False,
) -> Tensor:  # fmt: skip
    """The best plan [S, H, da] that Adam meets, from `first` and from plans around it."""
    drawn = _around(first, 0.5 * imagined.unit, _CHAINS, generator)
    plans = imagined.within(drawn) if projected else drawn
    best, value = first, imagined.scores(states, first[:, None]).detach()[:, 0]
    rate, velocity, square = 0.1 * imagined.unit, 0 * plans, 0 * plans
    for k in range(1, max(rollouts // (_GRADIENT * _CHAINS * imagined.draws), 1) + 1):
        score, slope = slopes(imagined, states, plans)
        better, at = score.max(1)
        chosen = plans[torch.arange(len(plans)), at]
        best = torch.where((better > value)[:, None, None], chosen, best)
        value = torch.maximum(value, better)
        velocity, square = 0.9 * velocity + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        away = velocity / (1 - 0.9**k) / ((square / (1 - 0.999**k)).sqrt() + 1e-12)
        plans = plans + rate * away
        plans = imagined.within(plans) if projected else plans
    return imagined.within(best)


def slopes(imagined: Imagination, states: Tensor, plans: Tensor) -> tuple[Tensor, Tensor]:
    """Scores [S, C], and their gradients in plans [S, C, H, da]; 0 where one is not finite."""
    with torch.enable_grad():
        open_plans = plans.detach().requires_grad_()
        score = imagined.scores(states, open_plans)
        if not score.requires_grad:
            return score, torch.zeros_like(plans)
        finite = torch.where(score.isfinite(), score, torch.zeros_like(score))
        (slope,) = torch.autograd.grad(finite.sum(), open_plans)
    return score.detach(), slope.nan_to_num(0.0, 0.0, 0.0)


@torch.no_grad()
def _sampled(
    imagined: Imagination, states: Tensor, first: Tensor, rollouts: int,
    generator: torch.Generator, weights: Callable[[Tensor], Tensor],
) -> Tensor:  # fmt: skip
    """The mean after some rounds, whose samples count by weights(scores [S, C]) → [S, C]."""
    mean, std = first, 0.5 * imagined.unit.expand_as(first)
    count = max(rollouts // (_ROUNDS * imagined.draws), 4)
    for _ in range(_ROUNDS):
        plans = imagined.within(_around(mean, std, count, generator))
        weight = weights(imagined.scores(states, plans))[..., None, None]
        mean = (weight * plans).sum(1)
        std = (weight * (plans - mean[:, None]) ** 2).sum(1).sqrt()
        std = torch.maximum(std, _LEAST * imagined.unit)
    return imagined.within(mean)


def _elites(scores: Tensor) -> Tensor:
    count = max(round(_ELITES * scores.shape[1]), 2)
    return torch.zeros_like(scores).scatter(1, scores.topk(count, 1).indices, 1 / count)


def _soft(scores: Tensor) -> Tensor:
    finite = scores.isfinite()
    if not finite.any():
        return torch.full_like(scores, 1 / scores.shape[1])
    spread = torch.where(finite, scores, scores[finite].mean()).std(1, keepdim=True)
    return torch.softmax(scores / (_TEMPERATURE * spread + 1e-12), 1).nan_to_num(0.0)


def _around(mean: Tensor, std: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Plans [S, C, H, da], the first of them the mean [S, H, da] itself."""
    shape = (len(mean), count, *mean.shape[1:])
    noise = torch.randn(shape, generator=generator, dtype=torch.float64).to(mean)
    noise[:, 0] = 0
    return mean[:, None] + std.expand_as(mean)[:, None] * noise


SEARCHES: dict[str, _Search] = {
    "gradient": gradient,
    "projected": partial(gradient, projected=True),
    "cem": partial(_sampled, weights=_elites),
    "mppi": partial(_sampled, weights=_soft),
}
