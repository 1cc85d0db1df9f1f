"""Targets of critics, `target(context, batch)` → [E, N], and how target networks follow.

STEVE: targets of every horizon, weighted by how far an ensemble agrees on each of them.

    T_i = r + Σ_{j=1}^{i} γʲ (r̂_j − α log π_j) + γ^{i+1} (Q′_c(ŝ_{i+1}, a_{i+1}) − α log π_{i+1})
    y   = Σ_i w_i mean T_i,   w_i ∝ 1 / (var T_i + ε),   over members m × critics c,  i = 0 … H

from the replayed next state ŝ_1, each member by itself on common noise (Buckman et al. 2018, eq. 3;
MAAC, section 3). MAAC's code takes the smaller critic of each member, whose T_0 has no spread, so
that the one-step target has all the weight. A masked terminal state has no value beyond it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from gradlab import validation
from gradlab.data.replay import Batch
from gradlab.training.members import Network
from gradlab.training.parts.context import Context, Objective
from gradlab.training.parts.critics import CriticKind, Target, V
from gradlab.training.parts.duals import Automatic
from gradlab.training.seed_models import ensemble_of, model_step

LEAST_VARIANCE = 1e-8  # ε, as in STEVE's published code


@dataclass(frozen=True)
class Steve(Target):
    """Targets of horizons 0 to `horizon`, by the inverse of their variance.

    Attributes:
        horizon: H, model steps of the longest.
        temperature: α.
    """

    horizon: int = 3
    temperature: float | Automatic = 0.03
    critics: ClassVar[int] = 2
    least: ClassVar[bool] = True
    soft: ClassVar[bool] = True
    of_model: ClassVar[bool] = True
    of_members: ClassVar[bool] = True

    def __post_init__(self) -> None:
        validation.whole("STEVE's horizon", self.horizon, 1)

    @property
    def name(self) -> str:
        return f"STEVE, horizons 0 to {self.horizon}"

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        return inverse_variance_mean(self.candidates(context, batch))

    def candidates(self, context: Context, batch: Batch) -> Tensor:
        """T_i of every member and critic, [H + 1, E, M, C, N]."""
        objective, ensemble = context.objective, ensemble_of(context.model)
        members, (seeds, rows) = ensemble.members, batch.reward.shape
        drawn = context.along("expansion actions", self.horizon + 1, rows, context.noise_dim)
        noise = context.along("expansion noise", self.horizon, rows, ensemble.noise_dim - 1)
        assert noise is not None
        state, total = batch.next_state, objective.reward_scale * batch.reward
        alive = 1 - batch.terminated if objective.masked else torch.ones_like(total)
        found = []
        for i in range(self.horizon + 1):
            here = None if drawn is None else repeated(drawn[i], state.shape[1] // rows)
            action, log_prob = context.act(state, here)
            discount = objective.discount ** (i + 1)
            tail = discount * alive[:, None] * context.target_values(state, action, log_prob)
            candidate = total[:, None] + tail  # [E, C, N], then [E, C, M · N]
            found.append(candidate.view(seeds, candidate.shape[1], -1, rows).transpose(1, 2))
            if i == self.horizon:
                break
            if i == 0:
                state, action, total, alive = (
                    repeated(value, members) for value in (state, action, total, alive)
                )
                log_prob = None if log_prob is None else repeated(log_prob, members)
            after, reward, still = ensemble.step_by_member(state, action, noise[i])
            gained = objective.soft(objective.reward_scale * reward, log_prob)
            total = total + discount * alive * gained
            if objective.masked:
                alive = alive * still
            state = after
        return torch.stack([candidate.expand(-1, members, -1, -1) for candidate in found])


def inverse_variance_mean(candidates: Tensor) -> Tensor:
    """y [E, N] of candidates [H + 1, E, M, C, N]; their variance is divided by M · C."""
    spread = candidates.flatten(2, 3)
    weight = 1 / (spread.var(dim=2, correction=0) + LEAST_VARIANCE)
    return (weight * spread.mean(dim=2)).sum(dim=0) / weight.sum(dim=0)


def repeated(rows: Tensor, members: int) -> Tensor:
    """Rows [E, N, …] once for each member, member after member: [E, M · N, …]."""
    return rows.repeat(1, members, *(1 for _ in rows.shape[2:]))


class TargetNetwork(Protocol):
    """What a row's `target_policy` and `target_critic` are."""

    def __call__(self, target: Network, live: Network, iteration: int, acted: bool) -> None:
        """Move `target` in place after an update; `acted`: the policy was updated, too."""
        ...


@dataclass(frozen=True)
class Polyak:
    """A moving average over updates of the policy, by the share `tau`."""

    tau: float

    @torch.no_grad()
    def __call__(self, target: Network, live: Network, iteration: int, acted: bool) -> None:
        if acted:
            torch._foreach_lerp_(target.parameters, live.parameters, self.tau)


@dataclass(frozen=True)
class Copied:
    """The network as it was at the last multiple of `every` updates of the critic."""

    every: int = 1

    def __post_init__(self) -> None:
        validation.whole("every", self.every, 1)

    @torch.no_grad()
    def __call__(self, target: Network, live: Network, iteration: int, acted: bool) -> None:
        if (iteration + 1) % self.every == 0:
            torch._foreach_copy_(target.parameters, live.parameters)


@dataclass(frozen=True)
class OneStep(Target):
    """r + γ Q′(s′, π′(s′)), the smaller of two where the critics are twins (MPG eq. 11; TD3).

    Attributes:
        twin: two critics and the smaller target.
        smoothing, limit: std and largest size of the noise on the target action, in units of the
            action's limit.
    """

    twin: bool = False
    smoothing: float = 0.0
    limit: float = 0.5

    @property
    def name(self) -> str:
        return "clipped double Q" if self.twin else "onestep"

    @property
    def critics(self) -> int:
        return 2 if self.twin else 1

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        action, _ = context.target_act(batch.next_state, None)
        if self.smoothing:
            noise = context.normal("smoothing", batch.action.shape[1:])
            size = torch.ones(()) if context.limit is None else context.limit
            shift = (self.smoothing * noise).clamp(-self.limit, self.limit) * size
            action = within(action + shift, context.limit)
        after = context.target_value(batch.next_state, action)
        return _bootstrapped(batch, after, context.objective)


@dataclass(frozen=True)
class NStep(Target):
    """Σ_{l<n} γ^l r_l + γⁿ Q′(s_n, π′(s_n)), the current policy run from each state of the batch.

    Attributes:
        system: whose rewards and states: the "simulator" (MPG-v1) or the "model" (ADP).
        tail: bounds of γⁿ Q′, as the published code clips the pendulum's; None: none.
    """

    system: Literal["simulator", "model"]
    steps: int = 25
    tail: tuple[float, float] | None = None

    @property
    def name(self) -> str:
        return f"{self.steps}-step {self.system}"

    @property
    def of_model(self) -> bool:
        return self.system != "simulator"

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        """The batch's own action first, then the current policy."""
        system = context.simulator if self.system == "simulator" else context.model
        assert system is not None
        state, action, objective = batch.state, batch.action, context.objective
        noise = context.along("target noise", self.steps, state.shape[1], system.noise_dim)
        total = torch.zeros_like(batch.reward)
        alive = torch.ones_like(total)
        for t in range(self.steps):
            drawn = None if noise is None else noise[t]
            state, reward, still = model_step(system, state, action, drawn)
            total = total + objective.discount**t * objective.reward_scale * alive * reward
            if objective.masked:
                alive = alive * still
            action, _ = context.act(state, None)
        last, _ = context.target_act(state, None)
        tail = objective.discount**self.steps * context.target_value(state, last)
        if self.tail is not None:
            tail = tail.clamp(*self.tail)
        return total + alive * tail


@dataclass(frozen=True)
class Soft(Target):
    """r + γ (min Q′(s′, a′) − α log π(a′|s′)), a′ ~ π(s′): SAC's, at the temperature α."""

    temperature: float | Automatic = 0.03
    name: ClassVar[str] = "clipped double soft Q"
    critics: ClassVar[int] = 2
    least: ClassVar[bool] = True
    soft: ClassVar[bool] = True

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        noise = context.normal("target action", batch.action.shape[1:])
        action, log_prob = context.act(batch.next_state, noise)
        value = context.target_value(batch.next_state, action, log_prob)
        return _bootstrapped(batch, value, context.objective)


@dataclass(frozen=True)
class StateOneStep(Target):
    """r + γ V′(s′) along replayed transitions, for a stochastic policy without entropy (SVG).

    It is the policy's value where the actions are its own, on policy or by importance weights.
    """

    name: ClassVar[str] = "onestep V"
    kind: ClassVar[CriticKind] = V
    soft: ClassVar[bool] = True

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        return _bootstrapped(batch, context.target_value(batch.next_state), context.objective)


@dataclass(frozen=True)
class NoCritic(Target):
    """No critic is fitted: sums of rewards stop at their horizon (backpropagation through time).

    Attributes:
        stochastic: the policy is, without entropy.
    """

    stochastic: bool = False
    name: ClassVar[str] = "no critic"
    critics: ClassVar[int] = 0

    @property
    def soft(self) -> bool:
        return self.stochastic

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        return torch.zeros_like(batch.reward)


def within(action: Tensor, limit: Tensor | None) -> Tensor:
    """Clipped to the actuator's limits, where it has any."""
    return action if limit is None else torch.maximum(torch.minimum(action, limit), -limit)


def _bootstrapped(batch: Batch, after: Tensor, objective: Objective) -> Tensor:
    """r + γ · value after, [E, N]."""
    going_on = 1 - batch.terminated if objective.masked else 1.0
    return objective.reward_scale * batch.reward + objective.discount * going_on * after
