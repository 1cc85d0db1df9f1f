"""Critics: of what they are values, the loss by which they are fitted, and to what.

    mean square           ½ mean (y − critic)², y the target of the row
    importance-weighted   ½ mean w (y − critic)²,  w = min(c, π(a|s) / μ(a|s))    (SVG, algorithm 2)
    action gradient       mean h(‖∇_a δ(s, a)‖) + λ mean h(|δ(s, a)|),  a = π(s)              (MAGE)
                          δ = y(s, a, r̂, ŝ′) − Q(s, a),  r̂, ŝ′ = f(s, a, ξ)

MAGE (D'Oro & Jaśkowski 2020, section 4): y is differentiated through r̂, ŝ′ and the target policy.
The paper has h(x) = x; its published code, which DDPPO compares with, Huber's.

Targets of critics, `target(context, batch)` → [E, N], and how target networks follow.

STEVE: targets of every horizon, weighted by how far an ensemble agrees on each of them.

    T_i = r + Σ_{j=1}^{i} γʲ (r̂_j − α log π_j) + γ^{i+1} (Q′_c(ŝ_{i+1}, a_{i+1}) − α log π_{i+1})
    y   = Σ_i w_i mean T_i,   w_i ∝ 1 / (var T_i + ε),   over members m × critics c,  i = 0 … H

from the replayed next state ŝ_1, each member by itself on common noise (Buckman et al. 2018, eq. 3;
MAAC, section 3). MAAC's code takes the smaller critic of each member, whose T_0 has no spread, so
that the one-step target has all the weight. A masked terminal state has no value beyond it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from gradlab import validation
from gradlab.data.replay import Batch
from gradlab.networks.mlp import QCritic, VCritic
from gradlab.training.members import Network
from gradlab.training.parts.context import Context, Objective, Value, Values
from gradlab.training.parts.duals import Automatic
from gradlab.training.seed_models import ensemble_of, model_step

Critic = QCritic | VCritic
Every = Callable[[Tensor, Tensor], Tensor]  # state, action → [E, C, N], every critic of every seed


@dataclass(frozen=True)
class CriticKind:
    """What a critic is a value of: Q(s, a), or V(s)."""

    name: str
    of_action: bool

    def module(self, state_dim: int, action_dim: int, shape: dict[str, Any]) -> Critic:
        """A fresh network; `shape`: hidden, activation, scale."""
        return (
            QCritic(state_dim, action_dim, **shape)
            if self.of_action
            else VCritic(state_dim, **shape)
        )

    def inputs(self, state: Tensor, action: Tensor | None) -> Tensor:
        """What the network is given, [E, N, in]."""
        if not self.of_action:
            return state
        assert action is not None
        return torch.cat([state, action], dim=2)

    def soft(self, objective: Objective, value: Tensor, log_prob: Tensor | None) -> Tensor:
        """The soft value [E, N] of a state, from the critic's and log π of the action there."""
        return objective.soft(value, log_prob) if self.of_action else value


Q, V = CriticKind("Q(s, a)", of_action=True), CriticKind("V(s)", of_action=False)


class Target(Protocol):
    """What a row's `target` is; a target says where it differs from the values given here.

    Attributes:
        name: for `gradlab list algorithms`.
        kind: what they value; critics: how many are fitted to it, side by side.
        least: the policy ascends the smallest of them (SAC), else the first (TD3).
        soft: it values r − α log π, and needs a stochastic policy; temperature: α (`temperature`).
        of_model: it rolls the model out; of_members: every member of a learned one by itself.
        of_paths: it follows the paths of an on-policy window.
    """

    least: ClassVar[bool] = False
    of_members: ClassVar[bool] = False
    of_paths: ClassVar[bool] = False

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> CriticKind:
        return Q

    @property
    def critics(self) -> int:
        return 1

    @property
    def soft(self) -> bool:
        return False

    @property
    def temperature(self) -> float | Automatic:
        return 0.0

    @property
    def of_model(self) -> bool:
        return False

    def __call__(self, context: Context, batch: Batch) -> Tensor: ...


@dataclass(frozen=True)
class Valuing:
    """How the critics of a row are called: C per seed, side by side in a `Network` of [E · C]."""

    kind: CriticKind
    count: int
    objective: Objective

    def every(self, network: Network, state: Tensor, action: Tensor | None) -> Tensor:
        """[E, C, N]"""
        x = self.kind.inputs(state, action)
        if self.count > 1:
            x = x[:, None].expand(-1, self.count, -1, -1).flatten(0, 1)
        return network(x).view(state.shape[0], self.count, -1)

    def all(self, network: Network) -> Values:
        """Each of a seed's critics."""

        def values(
            state: Tensor, action: Tensor | None = None, log_prob: Tensor | None = None
        ) -> Tensor:
            every = self.every(network, state, action).unbind(dim=1)
            return torch.stack([self.kind.soft(self.objective, one, log_prob) for one in every], 1)

        return values

    def least(self, network: Network) -> Value:
        """The smallest of a seed's critics (SAC; the targets of TD3)."""

        def value(
            state: Tensor, action: Tensor | None = None, log_prob: Tensor | None = None
        ) -> Tensor:
            smallest = self.every(network, state, action).amin(dim=1)
            return self.kind.soft(self.objective, smallest, log_prob)

        return value

    def first(self, network: Network) -> Value:
        """The first of a seed's critics, which the policies of DDPG and TD3 ascend."""
        firsts = network.every(self.count)

        def value(
            state: Tensor, action: Tensor | None = None, log_prob: Tensor | None = None
        ) -> Tensor:
            single = firsts(self.kind.inputs(state, action)).squeeze(2)
            return self.kind.soft(self.objective, single, log_prob)

        return value


def nothing(state: Tensor, action: Tensor | None = None, log_prob: Tensor | None = None) -> Tensor:
    """The value [E, N] of what lies beyond a horizon where there is no critic."""
    return state.new_zeros(state.shape[:2])


class CriticLoss(Protocol):
    """What a row's `critic_loss` is; a loss says where it differs from the values given here.

    Attributes:
        name: what `gradlab list algorithms` adds to the target, or "".
        densities: it needs those of the actions when they were collected.
        of_model: it differentiates the model, and critics by actions.
    """

    densities: ClassVar[bool] = False
    of_model: ClassVar[bool] = False

    @property
    def name(self) -> str: ...

    def __call__(
        self, context: Context, batch: Batch, critics: Every, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Loss of every critic [E, C], and its values at the batch [E, C, N]; target: [E, N]."""
        ...


@dataclass(frozen=True)
class MeanSquare(CriticLoss):
    """½ mean (y − critic)²."""

    name: ClassVar[str] = ""

    def __call__(
        self, context: Context, batch: Batch, critics: Every, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        value = critics(batch.state, batch.action)
        return 0.5 * (target[:, None] - value).square().mean(dim=2), value


@dataclass(frozen=True)
class ImportanceWeighted(CriticLoss):
    """½ mean w (y − critic)²: replayed actions as often as the policy would take them now.

    Attributes:
        most: largest weight.
    """

    most: float = 10.0
    name: ClassVar[str] = "importance-weighted"
    densities: ClassVar[bool] = True

    def __call__(
        self, context: Context, batch: Batch, critics: Every, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        value = critics(batch.state, batch.action)
        with torch.no_grad():
            weight = context.importance(batch, self.most)
        return 0.5 * (weight[:, None] * (target[:, None] - value).square()).mean(dim=2), value


@dataclass(frozen=True)
class ActionGradient(CriticLoss):
    """See above.

    Attributes:
        target: what gives y, the target of the row.
        weight: λ; 0.2 in the paper's experiments, and 1 / 5 in its code.
        threshold: below it h(x) is x² / 2 threshold, above it x − threshold / 2; 0: h(x) = x.
    """

    target: Target
    weight: float = 0.2
    threshold: float = 0.0
    name: ClassVar[str] = "action gradient of the TD error"
    of_model: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("weight", "threshold"):
            validation.number(f"MAGE's {name}", getattr(self, name), least=0)

    def __call__(
        self, context: Context, batch: Batch, critics: Every, target: Tensor
    ) -> tuple[Tensor, Tensor]:
        model, (_, rows) = context.model, batch.reward.shape
        assert model is not None
        drawn = context.along("penalty actions", 1, rows, context.noise_dim)
        noise = context.along("penalty model noise", 1, rows, model.noise_dim)
        action, _ = context.frozen(batch.state, None if drawn is None else drawn[0])
        action = action.detach().requires_grad_()
        after, reward, alive = model_step(
            model, batch.state, action, None if noise is None else noise[0]
        )
        wanted = self.target(context, Batch(batch.state, action, reward, after, 1 - alive))
        (slope,) = torch.autograd.grad(wanted.sum(), action)
        value = critics(batch.state, action)
        slopes = [
            torch.autograd.grad(of_one.sum(), action, create_graph=True)[0]
            for of_one in value.unbind(dim=1)
        ]
        unlike = (slope[:, None] - torch.stack(slopes, dim=1)).norm(dim=3)
        error = wanted.detach()[:, None] - value
        return self._mean(unlike) + self.weight * self._mean(error), value

    def _mean(self, error: Tensor) -> Tensor:
        """h over the rows, [E, C]."""
        zero = torch.zeros_like(error)
        return smooth_l1_loss(error, zero, reduction="none", beta=self.threshold).mean(dim=2)


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
    """

    system: Literal["simulator", "model"]
    steps: int = 25

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
