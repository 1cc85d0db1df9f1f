"""Losses of the policy: values with one method, `loss(context, batch, terms, weights)`.

    X_n(s) = Σ_{t<n} γᵗ (r_t − α log π_t) + γⁿ (Q(s_n, a_n) − α log π_n)
    loss   = −Σ_n w_n mean X_n                                 (MPG eq. 8, 9; SAC; MAAC section 3)

"first": a_0 alone carries θ, later actions come from a frozen copy with their state path kept (MPG
eq. 6). "all": every action carries θ (eq. 5). All horizons share one rollout; a seed without weight
on the longer ones rests at its first states. Closed-form systems step by `_RolloutSteps`, whose
Jacobians of all steps are made at once in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol, final, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from gradlab.data.replay import Batch
from gradlab.gradients.ways import WAYS, Way
from gradlab.options import COUNT, Within, check
from gradlab.systems.system import System, Transition
from gradlab.training.parts.context import Act, Context, Floats
from gradlab.training.seed_models import Model, model_step

NEGLIGIBLE = 1e-5  # weight below which a term's rollout is skipped


@dataclass(frozen=True)
class Term:
    """One estimator of the mixture: J_n of MPG eq. 6 ("first") or eq. 5 ("all").

    Attributes:
        horizon: n model steps; 0 is the data-driven gradient, which needs no model.
        actions: which actions carry θ.
    """

    horizon: int
    actions: Literal["first", "all"] = "first"

    @property
    def way(self) -> Way:
        """Which actions carry θ, and how."""
        return WAYS[self.actions]


class PolicyLoss(Protocol):
    """What a row's `loss` is; a loss says where it differs from the values given here.

    Attributes:
        name: what `gradlab list algorithms` adds to the gradient, or "".
        horizon: the one that its terms must have; None: any.
        densities: it needs those of the actions when they were collected.
        paths: it follows those of an on-policy batch, cut to the length of its horizon.
        noises: it needs the noise with which its batch was collected.
        of_simulator: it differentiates the simulator along its batch, and rolls no model out.
    """

    horizon: ClassVar[int | None] = None
    densities: ClassVar[bool] = False
    paths: ClassVar[bool] = False
    noises: ClassVar[bool] = False

    @property
    def name(self) -> str: ...
    @property
    def amended(self) -> bool | None:
        """Whether critics are of Q(s, a); None: of either."""
        return None

    @property
    def of_simulator(self) -> bool:
        return False

    def __call__(
        self, context: Context, batch: Batch, terms: Sequence[Term], weights: Floats
    ) -> tuple[Tensor, int]:
        """Loss of every seed [E], and the longest rollout made; `weights`: [E, terms]."""
        ...


@dataclass(frozen=True)
class MixtureLoss(PolicyLoss):
    """The weighted mixture of n-step model returns, from first states of the law μ = βν + (1 − β)ζ:

        ν   states that the environments visited, as they lie in replay (DPG, SVG, MAAC)
        ζ   the task's law of starts, in which episodes begin (backpropagation through time)

    RP-PGM (proposition 5.8, remark 5.9) takes ν where no model is rolled out, ζ where it is to the
    end, and a mixture in between. The share is exact in every batch, rounded to a state.

    Attributes:
        samples: paths from each state, with actions and model noise of their own (MAAC).
        beta: β.
    """

    samples: COUNT = 1
    beta: Annotated[float, Within(0, most=1)] = 1.0

    def __post_init__(self) -> None:
        check(self)

    @property
    def name(self) -> str:
        paths = "" if self.samples == 1 else f"{self.samples} paths per state"
        share = f"{1 - self.beta:.0%} " if self.beta else ""
        return ", ".join(filter(None, (f"from {share}starts" if self.beta < 1 else "", paths)))

    def __call__(
        self, context: Context, batch: Batch, terms: Sequence[Term], weights: Floats
    ) -> tuple[Tensor, int]:
        shares = np.where(weights > NEGLIGIBLE, weights, 0.0)
        kept = np.flatnonzero(shares.any(axis=0)).tolist()
        state = batch.visited
        if count := round((1 - self.beta) * state.shape[1]):
            begun = context.starts("policy starts", count)
            state = torch.cat([begun, state[:, count:]], dim=1)
        if self.samples > 1:
            state = state.repeat_interleave(self.samples, dim=1)
        horizon = max(terms[k].horizon for k in kept)
        longest = max(term.horizon for term in terms)
        noise = _drawn(context, state.shape[1], longest, rolled_out=horizon > 0)
        loss = state.new_zeros(state.shape[0])
        for actions in dict.fromkeys(terms[k].actions for k in kept):
            chosen = {terms[k].horizon: shares[:, k] for k in kept if terms[k].actions == actions}
            later = context.act if WAYS[actions].all_actions else context.frozen
            loss = loss - _weighted_return(context, later, chosen, state, noise)
        return loss, horizon


@dataclass(frozen=True, eq=False)
class _Noise:
    """Of a rollout: the policy's first [E, N, noise_dim] and later [H, E, N, noise_dim], the
    model's [H, E, N, noise_dim]; None where nothing is drawn."""

    first: Tensor | None
    later: Tensor | None
    model: Tensor | None


def _drawn(context: Context, rows: int, steps: int, *, rolled_out: bool) -> _Noise:
    width, model = context.noise_dim, context.model
    first = context.normal("action", (rows, width)) if width else None
    if not rolled_out or model is None:
        return _Noise(first, None, None)
    later = context.along("later actions", steps, rows, width)
    return _Noise(first, later, context.along("model noise", steps, rows, model.noise_dim))


def _weighted_return(
    context: Context, later: Act, chosen: dict[int, Floats], state: Tensor, noise: _Noise
) -> Tensor:
    """Σ_n w_n mean X_n [E] of the horizons n → w_n [E] in `chosen`, along one rollout."""
    objective, model = context.objective, followed(context.model, state.shape[:2].numel())
    last, discount = max(chosen), objective.discount
    total = state.new_zeros(state.shape[0])
    rewards = state.new_zeros(state.shape[:2])
    alive = torch.ones_like(rewards)
    here = _Here(state, *context.act(state, noise.first))
    home = here.detached()
    # The longest horizon to which each seed gives a weight, [E].
    longest = np.max([n * (weight > 0) for n, weight in chosen.items()], axis=0)
    for t in range(last + 1):
        if t in chosen:
            value = context.value(here.state, here.action, here.log_prob)
            tail = rewards + discount**t * alive * value
            total = total + state.new_tensor(chosen[t]) * tail.mean(dim=1)
        if t == last:
            break
        assert model is not None
        over = longest <= t
        here = _at_rest(over, home, here)
        drawn = None if noise.model is None else noise.model[t]
        after, reward, still = model_step(model, here.state, here.action, drawn)
        rewards = rewards + discount**t * objective.reward_scale * alive * reward
        if here.log_prob is not None:
            rewards = rewards - discount**t * objective.temperature * alive * here.log_prob
        if objective.masked:
            alive = alive * still
        acted = later(after, None if noise.later is None else noise.later[t])
        here = _at_rest(over, home, _Here(after, *acted))
    return total


@dataclass(frozen=True, eq=False)
class _Here:
    """Where a rollout is: state [E, N, ds], action [E, N, da], log π [E, N] or None."""

    state: Tensor
    action: Tensor
    log_prob: Tensor | None

    def detached(self) -> _Here:
        """Without θ; the state is a given one."""
        log_prob = None if self.log_prob is None else self.log_prob.detach()
        return _Here(self.state, self.action.detach(), log_prob)


def _at_rest(over: NDArray[np.bool_], home: _Here, here: _Here) -> _Here:
    """Where a rollout is, seeds without use for further steps at home."""
    if not over.any():
        return here
    resting = torch.from_numpy(over).to(here.state.device)[:, None, None]
    log_prob = here.log_prob
    if log_prob is not None and home.log_prob is not None:
        log_prob = torch.where(resting[..., 0], home.log_prob, log_prob)
    return _Here(
        torch.where(resting, home.state, here.state),
        torch.where(resting, home.action, here.action),
        log_prob,
    )


ROWS = 4096  # of states that are linearized at once: more leave the processor's cache
MOST = 1024  # rows of a step, from which on autograd is as fast
_Slopes = tuple[Tensor, Tensor, Tensor, Tensor]  # A, B, r_s, r_a of one step


@runtime_checkable
class _ClosedForm(Protocol):
    """A system whose `linearize` has formulas for its Jacobians, and takes about as long as a step.

    Attributes:
        closed_form: true; without it a system is taken not to have them.
    """

    closed_form: ClassVar[bool]


def followed(model: Model | None, rows: int) -> Model | None:
    """A model along a rollout of so many rows that is differentiated once: by `RolloutSteps` where
    that is faster than autograd."""
    if isinstance(model, _ClosedForm) and model.closed_form and rows <= MOST:
        return RolloutSteps(model)
    return model


@final
class RolloutSteps:
    """Steps of one rollout, in the place of its system's.

    Jacobians are made at the first backward pass that reaches any of the steps, and kept.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self._at: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self._slopes: list[_Slopes] = []

    @property
    def noise_dim(self) -> int:
        return self.system.noise_dim

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        return Transition(*_Step.apply(self, state, action, noise))  # type: ignore[no-untyped-call]

    def append(self, state: Tensor, action: Tensor, noise: Tensor | None) -> int:
        """Remembers where a step is made; its number."""
        self._at.append((state.detach(), action.detach(), noise))
        self._slopes.clear()
        return len(self._at) - 1

    def slopes(self, k: int) -> _Slopes:
        """Of the step of that number."""
        if not self._slopes:
            count = max(1, ROWS // max(len(self._at[0][0]), 1))
            for first in range(0, len(self._at), count):
                states, actions, noises = zip(*self._at[first : first + count], strict=True)
                noise = None if noises[0] is None else torch.cat(noises)
                found = self.system.linearize(torch.cat(states), torch.cat(actions), noise)
                parts = (
                    torch.split(x, len(states[0])) for x in (found.A, found.B, found.r_s, found.r_a)
                )
                self._slopes += list(zip(*parts, strict=True))
        return self._slopes[k]


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, path: RolloutSteps, state: Tensor, action: Tensor, noise: Tensor | None
    ) -> tuple[Tensor, ...]:
        after = path.system.step(state, action, noise)
        ctx.path, ctx.number = path, path.append(state, action, noise)
        ctx.mark_non_differentiable(after.alive)
        return after.state, after.reward, after.alive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_state: Tensor, by_reward: Tensor, _: Tensor) -> tuple[Any, ...]:
        A, B, r_s, r_a = ctx.path.slopes(ctx.number)
        row, weight = by_state[:, None], by_reward[:, None]
        by_s = torch.baddbmm((weight * r_s)[:, None], row, A)[:, 0]
        by_a = torch.baddbmm((weight * r_a)[:, None], row, B)[:, 0]
        return None, by_s, by_a, None
