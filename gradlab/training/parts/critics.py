"""Critics: of what they are values, and the loss by which they are fitted.

    mean square           ½ mean (y − critic)², y the target of the row
    importance-weighted   ½ mean w (y − critic)²,  w = min(c, π(a|s) / μ(a|s))    (SVG, algorithm 2)
    action gradient       mean h(‖∇_a δ(s, a)‖) + λ mean h(|δ(s, a)|),  a = π(s)              (MAGE)
                          δ = y(s, a, r̂, ŝ′) − Q(s, a),  r̂, ŝ′ = f(s, a, ξ)

MAGE (D'Oro & Jaśkowski 2020, section 4): y is differentiated through r̂, ŝ′ and the target policy.
The paper has h(x) = x; its published code, which DDPPO compares with, Huber's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from gradlab import validation
from gradlab.data.replay import Batch
from gradlab.networks.mlp import QCritic, VCritic
from gradlab.training.members import Network
from gradlab.training.parts.context import Context, Objective, Value, Values
from gradlab.training.parts.duals import Automatic
from gradlab.training.seed_models import model_step

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
