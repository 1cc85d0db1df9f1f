"""Policy losses and TD(λ) targets along on-policy windows, linearized all at once.

    loss = −mean Σ_{t<h} γᵗ (r_t − α log π_t) + γʰ V′(s_h)
    n_t = γ λ_{t+1} where the path goes on, γ ∂V′/∂s at its end,  u_t = r_a + Bᵀ n_t
    λ_t = r_s + Aᵀ n_t + Kᵀ u_t − α ∂log π_t/∂s,   K = ∂π_θ(s_t, ε_t)/∂s
    ∇   = Σ_t γᵗ (u_t · ∂π_θ(s_t, ε_t)/∂θ − α ∂log π_t/∂θ)
    G_t = r_t − α log π_t + γ ((1 − λ) V′(s_{t+1}) + λ G_{t+1}),     at a path's end λ = 0

Through the simulator (SHAC, Xu et al. 2022, eq. 5, 8), or along its states through a model (DMO,
Amigo et al. 2025). By halves (ABPT, Li et al. 2025): −½ this − ½ mean Q(s_t, π(s_t)). By variances
(AGPO, Gao et al. 2024; there of gradients in θ), J_h = V′ and

    J_t = (1 − ω_t) Q(s_t, π(s_t)) + ω_t (r_t + γ J_{t+1}),   ω_t = v₀² / (v₀² + v₁²)
    v₀, v₁ = tr Var ∂Q/∂a_t, tr Var ∂(r_t + γ V′)/∂a_t        over the paths of the window

A window is [E, steps · agents, ·]; cut into paths it is [E, paths · steps, ·].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gradlab import validation
from gradlab.data.replay import Batch
from gradlab.errors import Failure
from gradlab.training.parts.context import Context, Floats
from gradlab.training.parts.critics import CriticKind, Q, Target, V
from gradlab.training.parts.duals import Automatic
from gradlab.training.parts.policy_losses import PolicyLoss, Term
from gradlab.training.seed_models import model_slopes, simulator_slopes


def in_paths(batch: Batch, steps: int, agents: int) -> Batch:
    """The rows of a window, those of one path of `steps` steps side by side."""

    def ordered(values: Tensor) -> Tensor:
        apart = values.reshape(len(values), -1, steps, agents, *values.shape[2:])
        return apart.transpose(2, 3).flatten(1, 3)

    return Batch(**{name: ordered(values) for name, values in batch.tensors.items()})


def goes_on(paths: Batch, steps: int) -> Tensor:
    """Whether the next row is the next step of the same episode, bool [E, paths, steps]; False at
    the last one."""
    after, state = (split(x, steps) for x in (paths.next_state, paths.state))
    same = paths.terminated.new_zeros(after.shape[:3]).bool()
    same[..., :-1] = (after[:, :, :-1] == state[:, :, 1:]).all(dim=3)
    return same & (split(paths.terminated, steps) < 0.5)


def split(values: Tensor, steps: int) -> Tensor:
    """[E, paths · steps, ·] → [E, paths, steps, ·]."""
    return values.reshape(len(values), -1, steps, *values.shape[2:])


_Jacobians = Literal["simulator", "model"]
_Tail = Literal["least", "mean", "none"]
_Blend = Literal["none", "half", "variance"]
# Of an action that the same policy gives again; products of float32 may be rounded to bfloat16.
_ROUNDING = {torch.float64: 1e-6, torch.float32: 0.05}


@dataclass(frozen=True)
class WindowReturn(PolicyLoss):
    """See above.

    Attributes:
        jacobians: whose they are, at the simulator's states.
        tail: V′ at the end of a path: the smallest of the target critics, their mean, or none.
        blend: with Q(s, a) at every state, by halves or by variances; none: critics are of V(s).
    """

    jacobians: _Jacobians = "simulator"
    tail: _Tail = "least"
    blend: _Blend = "none"
    paths: ClassVar[bool] = True
    noises: ClassVar[bool] = True

    @property
    def name(self) -> str:
        valued = {"least": " to V′", "mean": " to the mean V′", "none": ""}
        how = {"none": "", "half": "by halves", "variance": "by their variances"}[self.blend]
        critic = f", and Q at its states, {how}" if self.amended else ""
        return f"{self.jacobians}'s Jacobians along its windows{valued[self.tail]}{critic}"

    @property
    def amended(self) -> bool:
        """Whether the critics are of Q(s, a)."""
        return self.blend != "none"

    @property
    def of_simulator(self) -> bool:
        return self.jacobians == "simulator"

    def __call__(
        self, context: Context, batch: Batch, terms: Sequence[Term], weights: Floats
    ) -> tuple[Tensor, int]:
        steps = terms[0].horizon
        paths = in_paths(batch, steps, context.agents)
        slopes, tail = self._slopes(context, paths), self._tail(context, paths)
        # ∂(s′, r)/∂(s, a) with the reward in the critic's scale.
        scale = torch.ones(slopes.shape[2], 1, device=slopes.device, dtype=slopes.dtype)
        scale[-1] = context.objective.reward_scale
        slopes = scale * slopes
        acted, blended = _acted(context, paths), None
        if self.blend == "variance":
            blended = _blended(context, paths, steps, slopes, tail[1])
        path = _Path(context, paths, steps, slopes, tail, blended)
        value, carried = path.value(acted.log_prob), path.carried(acted)
        surrogate = (carried - carried.detach()) + value
        mean = surrogate.sum(dim=1) / (paths.state.shape[1] // steps)
        if self.blend == "half":
            at_once = context.value(paths.state, acted.action, acted.log_prob)
            mean = (mean + at_once.mean(dim=1)) / 2
        return -torch.from_numpy(weights[:, 0]).to(mean) * mean, path.longest

    def _slopes(self, context: Context, paths: Batch) -> Tensor:
        if paths.slopes is not None:
            return paths.slopes
        if self.of_simulator:
            return simulator_slopes(context.simulator, paths)
        assert context.model is not None
        noise = context.along("model noise", 1, paths.state.shape[1], context.model.noise_dim)
        return model_slopes(context.model, paths, None if noise is None else noise[0])

    def _tail(self, context: Context, paths: Batch) -> tuple[Tensor, Tensor]:
        """γ V′ of every next state [E, N], with θ in the action there, and its derivative
        [E, N, ds]."""
        if self.tail == "none":
            return torch.zeros_like(paths.reward), torch.zeros_like(paths.state)
        with torch.enable_grad():
            after = paths.next_state.detach().clone().requires_grad_()
            ahead = _tail_action(context, after) if self.amended else ()
            if self.tail == "least":
                value = context.target_value(after, *ahead)
            else:
                value = context.target_values(after, *ahead).mean(dim=1)
            (slope,) = torch.autograd.grad(value.sum(), after, retain_graph=self.amended)
        objective = context.objective
        going_on = 1 - paths.terminated if objective.masked else torch.ones_like(paths.reward)
        beyond = objective.discount * going_on
        value = value if self.amended else value.detach()
        return beyond * value, beyond[..., None] * slope


def _tail_action(context: Context, after: Tensor) -> tuple[Tensor, Tensor | None]:
    """The policy's action with θ in states [E, N, ds] after a step, and its log π."""
    noise = context.along("tail actions", 1, after.shape[1], context.noise_dim)
    return context.act(after, None if noise is None else noise[0])


@dataclass(frozen=True, eq=False)
class _Acted:
    """Actions of the policy with θ at given states, [E, N, da], their log π [E, N] or None, and
    the derivatives of both in the states: [E, N, da, ds] and [E, N, ds]."""

    action: Tensor
    log_prob: Tensor | None
    K: Tensor
    k: Tensor | None


def _acted(context: Context, paths: Batch) -> _Acted:
    """The stored actions, with θ."""
    noise = paths.policy_noise
    inferred = noise is None and context.noise_dim > 0
    if inferred:
        noise = context.noise_of(paths.state, paths.action)
    state = paths.state.detach().clone().requires_grad_()
    action, log_prob = context.act(state, noise)
    allowed = _ROUNDING[action.dtype] * (1 + paths.action.abs())
    off = (action.detach() - paths.action).abs() > allowed
    if not inferred and off.any():
        share = float(off.any(dim=2).double().mean())
        raise Failure(
            f"{share:.1%} of a window's actions are not the policy's own: its gradient is that of "
            f"the policy that collected it, so each window is used for one update"
        )
    K = torch.stack([_slope(one, state) for one in action.unbind(dim=2)], dim=2)
    soft = log_prob is not None and _weighs(context.objective.temperature)
    return _Acted(action, log_prob, K, _slope(log_prob, state) if soft else None)  # type: ignore[arg-type]


def _slope(output: Tensor, state: Tensor) -> Tensor:
    """Of outputs [E, N] in the states of their rows."""
    return torch.autograd.grad(output.sum(), state, retain_graph=True, materialize_grads=True)[0]


def _weighs(temperature: float | Tensor) -> bool:
    return isinstance(temperature, Tensor) or temperature != 0


@dataclass(frozen=True, eq=False)
class _Blended:
    """Q(s_t, a_t) [E, N] with its derivatives in state and action, and 1 − ω, its share of each
    step, [E, paths, steps]."""

    value: Tensor
    by_state: Tensor
    by_action: Tensor
    share: Tensor


def _blended(
    context: Context, paths: Batch, steps: int, slopes: Tensor, beyond: Tensor
) -> _Blended:
    """The critic at the window's states, weighed by variances; beyond: γ ∂V′/∂s [E, N, ds]."""
    with torch.enable_grad():
        state = paths.state.detach().clone().requires_grad_()
        action = paths.action.detach().clone().requires_grad_()
        value = context.value(state, action, None)
        by_state, by_action = torch.autograd.grad(value.sum(), (state, action))
    joint = torch.cat([beyond, torch.ones_like(beyond[..., :1])], dim=2)
    simulated = torch.einsum("enij,eni->enj", slopes, joint)[..., state.shape[2] :]
    v0, v1 = (
        split(x, steps).var(dim=1, correction=0).sum(dim=2).square() for x in (by_action, simulated)
    )
    tiny = torch.finfo(v0.dtype).tiny  # neither varies: half of each
    share = (v1 + tiny) / (v0 + v1 + 2 * tiny)
    return _Blended(
        value.detach(), by_state, by_action, share[:, None].expand(-1, value.shape[1] // steps, -1)
    )


@dataclass(frozen=True, eq=False)
class _Path:
    """Paths of a window, [E, paths · steps, ·], with their slopes and what lies beyond each step.

    Attributes:
        slopes: ∂(s′, r)/∂(s, a), the reward in its own scale.
        tail: γ V′ and its derivative, after every step.
        blended: the critic in the place of what follows; None: nowhere.
    """

    context: Context
    rows: Batch
    steps: int
    slopes: Tensor
    tail: tuple[Tensor, Tensor]
    blended: _Blended | None = None

    @property
    def goes_on(self) -> Tensor:
        """Bool [E, paths, steps]: not where an episode ends, nor at the horizon in force."""
        same, cut = goes_on(self.rows, self.steps), self.context.cut
        if cut is None:
            return same
        step = torch.arange(1, self.steps + 1, device=same.device)
        return same & (step % cut[:, None] != 0)[:, None]

    @property
    def longest(self) -> int:
        """Steps of the longest path."""
        cut = self.context.cut
        return self.steps if cut is None else min(self.steps, int(cut.max()))

    @property
    def discounts(self) -> Tensor:
        """γᵗ, t from the start of each path, [E, paths, steps]."""
        same, gamma = self.goes_on, self.context.objective.discount
        series = [torch.ones_like(same[..., 0], dtype=self.rows.state.dtype)]
        for t in range(self.steps - 1):
            kept = gamma if self.blended is None else gamma * (1 - self.blended.share[..., t])
            series.append(torch.where(same[..., t], kept * series[-1], 1.0))
        return torch.stack(series, dim=2)

    def value(self, log_prob: Tensor | None) -> Tensor:
        """Returns of the window's paths, summed for each environment's steps, [E, N]."""
        objective = self.context.objective
        ends = ~self.goes_on.flatten(1)
        earned = objective.reward_scale * self.rows.reward + torch.where(ends, self.tail[0], 0.0)
        if self.blended is not None:
            earned = earned + self.blended.share.flatten(1) * (self.blended.value - earned)
        if log_prob is not None and _weighs(objective.temperature):
            earned = objective.soft(earned, log_prob.detach())
        return self.discounts.flatten(1) * earned

    def carried(self, acted: _Acted) -> Tensor:
        """Σ of what θ carries into the return, [E, N]: its derivative in θ is the gradient's."""
        carried = (self._adjoints(acted) * acted.action).sum(dim=2)
        if acted.k is not None:
            carried = self.context.objective.soft(carried, acted.log_prob)
        return self.discounts.flatten(1) * carried

    def _adjoints(self, acted: _Acted) -> Tensor:
        """u of every action, at γ⁰, [E, N, da]."""
        ds, objective = self.rows.state.shape[2], self.context.objective
        J = split(self.slopes, self.steps)
        K, beyond = split(acted.K, self.steps), split(self.tail[1], self.steps)
        k, same = None, self.goes_on[..., None]
        if acted.k is not None:
            alpha = objective.temperature
            weight = alpha[..., None] if isinstance(alpha, Tensor) else alpha
            k = split(weight * acted.k, self.steps)
        q, share = None, beyond  # of no critic
        if self.blended is not None:
            both = torch.cat([self.blended.by_state, self.blended.by_action], dim=2)
            q, share = split(both, self.steps), self.blended.share[..., None]
        after, cotangents = torch.zeros_like(beyond[:, :, 0]), []
        for t in reversed(range(self.steps)):
            n = torch.where(same[:, :, t], objective.discount * after, beyond[:, :, t])
            joint = torch.cat([n, torch.ones_like(n[..., :1])], dim=2)
            pulled = torch.einsum("epij,epi->epj", J[:, :, t], joint)
            if q is not None:
                pulled = pulled + share[:, :, t] * (q[:, :, t] - pulled)
            u = pulled[..., ds:]
            after = pulled[..., :ds] + torch.einsum("epij,epi->epj", K[:, :, t], u)
            if k is not None:
                after = after - k[:, :, t]
            cotangents.append(u)
        return torch.stack(cotangents[::-1], dim=2).flatten(1, 2)


@dataclass(frozen=True)
class StateLambda(Target):
    """See above; V′ is the smallest of the target critics.

    Attributes:
        trace: λ.
        critics: how many are fitted to it.
        temperature: α, of the entropy inside the return; 0: none.
        stochastic: whether the policy is.
        actions: critics are of Q(s, a).
    """

    trace: float = 0.95
    critics: int = 1
    temperature: float | Automatic = 0.0
    stochastic: bool = True
    actions: bool = False
    least: ClassVar[bool] = True
    of_paths: ClassVar[bool] = True

    def __post_init__(self) -> None:
        validation.number("trace", self.trace, least=0, most=1)
        if self.critics not in (1, 2):
            raise validation.expected("critics", self.critics, "1 or 2")

    @property
    def kind(self) -> CriticKind:
        """Of the critics that are fitted."""
        return Q if self.actions else V

    @property
    def name(self) -> str:
        of = "Q" if self.actions else "V"
        return f"TD({self.trace:g}) {'twin ' if self.critics == 2 else ''}{of}"

    @property
    def soft(self) -> bool:
        return self.stochastic

    def __call__(self, context: Context, batch: Batch) -> Tensor:
        objective, agents = context.objective, context.agents
        steps = batch.reward.shape[1] // agents
        paths = in_paths(batch, steps, agents)
        paid = objective.reward_scale * paths.reward
        earned = paid
        if self.temperature:
            earned = objective.soft(paid, context.frozen(paths.state, paths.policy_noise)[1])
        going_on = 1 - paths.terminated if objective.masked else 1.0
        ahead = _tail_action(context, paths.next_state) if self.actions else ()
        value = objective.discount * going_on * context.target_value(paths.next_state, *ahead)
        returns = _traced(
            split(earned, steps), split(value, steps), goes_on(paths, steps), self.trace,
            objective.discount,
        )  # fmt: skip
        own = split(earned - paid, steps) if self.actions else 0.0  # its entropy is added to Q
        return (returns - own).transpose(1, 2).flatten(1)


def _traced(earned: Tensor, value: Tensor, same: Tensor, trace: float, discount: float) -> Tensor:
    """G of every step, from rewards and γ V′ after them and whether a path goes on there; all of
    them [E, paths, steps]."""
    later, returns = torch.zeros_like(value[..., 0]), []
    for t in reversed(range(value.shape[2])):
        mixed = (1 - trace) * value[..., t] + trace * discount * later
        later = earned[..., t] + torch.where(same[..., t], mixed, value[..., t])
        returns.append(later)
    return torch.stack(returns[::-1], dim=2)
