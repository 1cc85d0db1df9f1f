"""Targets that critics are fitted to: values with one method, `target(context, batch)` → [E, N].

    one step      r + γ Q′(s′, π′(s′) + clipped noise), the smaller of twins      (MPG eq. 11; TD3)
    n steps       Σ_{l<n} γ^l r_l + γⁿ Q′(s_n, π′(s_n)), the policy run from the batch (MPG eq. 11)
    state value   r + γ V′(s′), of actions that the policy would take                          (SVG)
    no critic     0
    soft          r + γ (min Q′(s′, a′) − α log π(a′|s′)),  a′ ~ π(·|s′)                       (SAC)
    STEVE         all horizons up to H of every member of the model   (`training.parts.steve`; MAAC)
    TD(λ)         λ-returns of on-policy windows with V′            (`parts.lambda_targets`; SHAC)

Where episodes are masked nothing is valued beyond a terminal state; a truncated episode is valued.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor

from gradlab.data.replay import Batch
from gradlab.training.models.seed_models import model_step
from gradlab.training.parts.context import Context, Objective
from gradlab.training.parts.critics import Kind, Q, V
from gradlab.training.parts.temperature import Automatic


class Target(Protocol):
    """What a row's `target` is.

    Attributes:
        name: for `gradlab list algorithms`.
        kind: what they value; critics: how many are fitted to it, side by side.
        least: the policy ascends the smallest of them (SAC), else the first (TD3).
        soft: it values r − α log π, and needs a stochastic policy; temperature: α (`temperature`).
        of_model: it rolls the model out; of_members: every member of a learned one by itself.
        of_paths: it follows the paths of an on-policy window.
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def critics(self) -> int: ...
    @property
    def least(self) -> bool: ...
    @property
    def soft(self) -> bool: ...
    @property
    def temperature(self) -> float | Automatic: ...
    @property
    def of_model(self) -> bool: ...
    @property
    def of_members(self) -> bool: ...
    @property
    def of_paths(self) -> bool: ...

    def __call__(self, context: Context, batch: Batch) -> Tensor: ...


@dataclass(frozen=True)
class OneStep:
    """r + γ Q′(s′, π′(s′)), the smaller of two where the critics are twins (MPG eq. 11; TD3).

    Attributes:
        twin: two critics and the smaller target.
        smoothing, limit: std and largest size of the noise on the target action, in units of the
            action's limit.
    """

    twin: bool = False
    smoothing: float = 0.0
    limit: float = 0.5
    kind: ClassVar[Kind] = Q
    least: ClassVar[bool] = False
    soft: ClassVar[bool] = False
    temperature: ClassVar[float] = 0.0
    of_model: ClassVar[bool] = False
    of_members: ClassVar[bool] = False
    of_paths: ClassVar[bool] = False

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
        return bootstrapped(batch, after, context.objective)


@dataclass(frozen=True)
class NStep:
    """Σ_{l<n} γ^l r_l + γⁿ Q′(s_n, π′(s_n)), the current policy run from each state of the batch.

    Attributes:
        system: whose rewards and states: the "simulator" (MPG-v1) or the "model" (ADP).
        tail: bounds of γⁿ Q′, as the published code clips the pendulum's; None: none.
    """

    system: Literal["simulator", "model"]
    steps: int = 25
    tail: tuple[float, float] | None = None
    kind: ClassVar[Kind] = Q
    critics: ClassVar[int] = 1
    least: ClassVar[bool] = False
    soft: ClassVar[bool] = False
    temperature: ClassVar[float] = 0.0
    of_members: ClassVar[bool] = False
    of_paths: ClassVar[bool] = False

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
class Soft:
    """r + γ (min Q′(s′, a′) − α log π(a′|s′)), a′ ~ π(s′): SAC's, at the temperature α."""

    temperature: float | Automatic = 0.03
    name: ClassVar[str] = "clipped double soft Q"
    kind: ClassVar[Kind] = Q
    critics: ClassVar[int] = 2
    least: ClassVar[bool] = True
    soft: ClassVar[bool] = True
    of_model: ClassVar[bool] = False
    of_members: ClassVar[bool] = False
    of_paths: ClassVar[bool] = False

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        noise = context.normal("target action", batch.action.shape[1:])
        action, log_prob = context.act(batch.next_state, noise)
        value = context.target_value(batch.next_state, action, log_prob)
        return bootstrapped(batch, value, context.objective)


@dataclass(frozen=True)
class StateOneStep:
    """r + γ V′(s′) along replayed transitions, for a stochastic policy without entropy (SVG).

    It is the policy's value where the actions are its own, on policy or by importance weights.
    """

    name: ClassVar[str] = "onestep V"
    kind: ClassVar[Kind] = V
    critics: ClassVar[int] = 1
    least: ClassVar[bool] = False
    soft: ClassVar[bool] = True
    temperature: ClassVar[float] = 0.0
    of_model: ClassVar[bool] = False
    of_members: ClassVar[bool] = False
    of_paths: ClassVar[bool] = False

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        return bootstrapped(batch, context.target_value(batch.next_state), context.objective)


@dataclass(frozen=True)
class NoCritic:
    """No critic is fitted: sums of rewards stop at their horizon (backpropagation through time).

    Attributes:
        stochastic: the policy is, without entropy.
    """

    stochastic: bool = False
    name: ClassVar[str] = "no critic"
    kind: ClassVar[Kind] = Q
    critics: ClassVar[int] = 0
    least: ClassVar[bool] = False
    temperature: ClassVar[float] = 0.0
    of_model: ClassVar[bool] = False
    of_members: ClassVar[bool] = False
    of_paths: ClassVar[bool] = False

    @property
    def soft(self) -> bool:
        return self.stochastic

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        return torch.zeros_like(batch.reward)


def within(action: Tensor, limit: Tensor | None) -> Tensor:
    """Clipped to the actuator's limits, where it has any."""
    return action if limit is None else torch.maximum(torch.minimum(action, limit), -limit)


def bootstrapped(batch: Batch, after: Tensor, objective: Objective) -> Tensor:
    """r + γ · value after, [E, N]."""
    going_on = 1 - batch.terminated if objective.masked else 1.0
    return objective.reward_scale * batch.reward + objective.discount * going_on * after
