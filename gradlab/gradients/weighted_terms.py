"""Terms of each horizon's gradient: one Jacobian of the policy, and weights on its rows.

    G_i = Σ_t J_t,iᵀ λ_t,i

    first   t = 0 only,  J = ∂π/∂θ,        λ = g_n                      (MPG eq. 6)
    all     t ≤ n,       J = ∂π/∂θ,        λ = γᵗ λⁿ_t                   (MPG eq. 5, SVG, MAAC)
    score   t ≤ n,       J = ∂ log π/∂θ,   λ = γᵗ Σ_{k≥t} γ^{k−t} r_k     (RP-PGM eq. 2.5)

so means, norms, kernels and variances are written once for all three kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.gradients.cut import Cut, severed
from gradlab.gradients.policy_jacobian import (
    PolicyJacobian,
    Trace,
    joined_factors,
    policy_jacobian,
)
from gradlab.gradients.recording import recorded_with_jacobians
from gradlab.gradients.rollout import (
    LinearizedPath,
    jacobian_noise,
    linearize_path,
    rollout,
    rollout_with_jacobians,
    tail_gradient,
)
from gradlab.gradients.starts import Starts
from gradlab.gradients.sweeps import action_gradients, discounted_costates
from gradlab.gradients.tail import Tail
from gradlab.gradients.ways import Name
from gradlab.networks.critics import judge
from gradlab.networks.policies import check_stochastic
from gradlab.systems.recorded import Recorded
from gradlab.systems.system import System


class Choices(Protocol):
    """The four choices of an estimator, as far as its terms rest on them."""

    @property
    def states(self) -> System: ...

    @property
    def jacobians(self) -> System | None: ...

    @property
    def actions(self) -> Name: ...

    @property
    def tail(self) -> Tail: ...

    @property
    def cut(self) -> Cut: ...


@dataclass(frozen=True)
class Carried:
    """λ [K, T, N, width] of K horizons, importance weights included, and the J they multiply.

    `ends[k]` is the last step at which the k-th λ is not zero.
    """

    costates: Tensor
    jacobian: PolicyJacobian
    ends: tuple[int, ...]

    def some(self, chosen: list[int]) -> Carried:
        """Some of the horizons."""
        ends = tuple(self.ends[k] for k in chosen)
        return Carried(self.costates[chosen], self.jacobian, ends)

    @property
    def bytes(self) -> int:
        """What λ and J take."""
        parts = [tensor for f in self.jacobian.factors for tensor in (f.signals, f.inputs)]
        held = [self.costates, *(tensor for tensor in parts if tensor is not None)]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def until_end(self, k: int) -> tuple[PolicyJacobian, Tensor]:
        """J and λ [T, N, width] of the k-th horizon, without the steps that it does not reach."""
        steps = self.ends[k] + 1
        samples = slice(0, steps * self.costates.shape[2])
        return self.jacobian.rows(samples), self.costates[k, :steps]


@dataclass(frozen=True)
class Course:
    """A path with K = ∂π/∂s along it, and what gives J = ∂π/∂θ at its states."""

    path: Path
    K: Tensor
    jacobians: Callable[[], PolicyJacobian]

    @cached_property
    def jacobian(self) -> PolicyJacobian:
        return self.jacobians()


@dataclass(frozen=True)
class Shared:
    """Paths and linearizations from one block of starts, made once for all estimators.

    Attributes:
        courses: by the system that makes the states, and the horizon.
        linear: by those, and the system that is differentiated.
    """

    courses: dict[tuple[int, int], Course] = field(default_factory=dict)
    linear: dict[tuple[int, int, int], LinearizedPath] = field(default_factory=dict)


class LogDensity(nn.Module):
    """log π_θ(a|s) as an "action" of width 1; what fixes a stands in the place of noise.

    a is fixed by itself where it was recorded, by the noise that drew it in a rollout: a squashed
    action that rounds to its limit has lost the noise, and with it its score.
    """

    def __init__(self, policy: nn.Module, width: int, drawn: bool) -> None:
        super().__init__()
        self.policy, self.noise_dim, self.drawn = policy, width, drawn

    def forward(self, state: Tensor, fixed: Tensor) -> Tensor:
        policy: Any = self.policy
        density = policy.log_prob_of_draw if self.drawn else policy.log_prob
        log_prob: Tensor = density(state, fixed)
        return log_prob[:, None]


class Asked(NamedTuple):
    """Where and for which horizons terms are made."""

    policy: nn.Module
    starts: Starts
    horizons: tuple[int, ...]
    seed: int
    termination: str


def carried(
    estimator: Choices,
    policy: nn.Module,
    starts: Starts,
    horizons: tuple[int, ...],
    seed: int,
    termination: str,
    shared: Shared | None = None,
) -> Carried:
    """λ and J of an estimator (without entropy: see `softened`) for some of its horizons.

    Args:
        shared: what other estimators made from the same starts, seed and termination.
    """
    requested = Asked(policy, starts, horizons, seed, termination)
    return TERMS[estimator.actions](estimator, requested, shared)


def _first(estimator: Choices, requested: Asked, shared: Shared | None) -> Carried:
    """θ in the first action."""
    policy, starts, horizons, seed, termination = requested
    tail = estimator.tail
    if shared is None:
        linear = linearized(estimator, policy, starts, seed, None, termination)
    else:
        linear = _course(estimator, policy, starts, seed, termination, shared)[1]
    gradient = tail_gradient(linear.path, tail.critic, tail.value, termination)
    g = action_gradients(linear, gradient, tail.discount)
    weight = starts.weight[:, None]
    jacobian = policy_jacobian(policy, starts.states, linear.path.policy_noise[0])
    return Carried(g[list(horizons), None] * weight, jacobian, (0,) * len(horizons))


def _every(estimator: Choices, requested: Asked, shared: Shared | None) -> Carried:
    """θ in every action."""
    policy, starts, horizons, seed, termination = requested
    tail, shared = estimator.tail, Shared() if shared is None else shared
    course, linear = _course(estimator, policy, starts, seed, termination, shared)
    gradient = tail_gradient(linear.path, tail.critic, tail.value, termination)
    costates = discounted_costates(linear, gradient, tail.discount, horizons, tail.terminal_action)
    counted = linear.path.alive if termination == "mask" else None
    terms = Carried(costates * starts.weight[:, None], course.jacobian, horizons)
    return _isolated(terms, counted)


def _course(
    estimator: Choices,
    policy: nn.Module,
    starts: Starts,
    seed: int,
    termination: str,
    shared: Shared,
) -> tuple[Course, LinearizedPath]:
    """The estimator's path and what it differentiates along it, made where nobody has."""
    states, horizon = estimator.states, estimator.tail.horizon
    model = states if estimator.jacobians is None else estimator.jacobians
    key = id(states), horizon
    if key not in shared.courses:
        traces: list[Trace] = []
        path, K = path_with_jacobians(states, policy, starts, horizon, seed, traces)
        shared.courses[key] = Course(path, K, partial(joined_factors, policy, traces, path))
    course = shared.courses[key]
    if (*key, id(model)) not in shared.linear:
        noise = jacobian_noise(states, model, course.path)
        shared.linear[*key, id(model)] = linearize_path(
            course.path, model, course.K, noise, termination
        )
    return course, severed(shared.linear[*key, id(model)], estimator.cut)


def _isolated(terms: Carried, counted: Tensor | None) -> Carried:
    """Keep what overflows at one step from spoiling horizons that end before it (0 · ∞).

    A step whose J is not finite, or too large to be squared, gets J = 0, and λ = NaN in every
    horizon that reaches it while it counts (`counted`: the alive steps under "mask").
    """
    factors, shape = terms.jacobian.factors, terms.costates.shape[1:3]
    parts = [x for f in factors for x in (f.signals, f.inputs) if x is not None]
    largest = [(torch.finfo(x.dtype).max / max(x[0].numel(), 1)) ** 0.5 for x in parts]
    sizes = zip(parts, largest, strict=True)
    if all(bool(x.abs().amax() <= limit) for x, limit in sizes if x.numel()):
        return terms
    sizes = zip(parts, largest, strict=True)
    bad = ~torch.stack([(x.flatten(1).abs() <= limit).all(dim=1) for x, limit in sizes]).all(dim=0)
    clean = tuple(
        replace(
            f,
            signals=f.signals.masked_fill(bad[:, None, None], 0.0),
            inputs=None if f.inputs is None else f.inputs.masked_fill(bad[:, None], 0.0),
        )
        for f in factors
    )
    lost = bad.reshape(shape) if counted is None else bad.reshape(shape) & counted
    costates = terms.costates.clone()
    for k, end in enumerate(terms.ends):
        costates[k, end + 1 :] = 0.0
        costates[k, : end + 1][lost[: end + 1]] = torch.nan
    return replace(terms, costates=costates, jacobian=replace(terms.jacobian, factors=clean))


def linearized(
    estimator: Choices,
    policy: nn.Module,
    starts: Starts,
    seed: int,
    traces: list[Trace] | None = None,
    termination: str = "ignore",
) -> LinearizedPath:
    """The estimator's path with the Jacobians of what it differentiates."""
    states = estimator.states
    path, K = path_with_jacobians(states, policy, starts, estimator.tail.horizon, seed, traces)
    model = states if estimator.jacobians is None else estimator.jacobians
    noise = jacobian_noise(states, model, path)
    return severed(linearize_path(path, model, K, noise, termination), estimator.cut)


def path_with_jacobians(
    states: System,
    policy: nn.Module,
    starts: Starts,
    horizon: int,
    seed: int,
    traces: list[Trace] | None = None,
) -> tuple[Path, Tensor]:
    """The path that `states` makes, or that was recorded, with K = ∂π/∂s along it."""
    if isinstance(states, Recorded):
        return recorded_with_jacobians(policy, starts, horizon, seed, traces)
    return rollout_with_jacobians(states, policy, starts, horizon, seed, traces=traces)


def _score(estimator: Choices, requested: Asked, shared: Shared | None) -> Carried:
    """θ in the density of every action."""
    policy, starts, horizons, seed, termination = requested
    check_stochastic(policy)
    states, horizon = estimator.states, estimator.tail.horizon
    if isinstance(states, Recorded):
        path, _ = recorded_with_jacobians(policy, starts, horizon, seed)
    else:
        path = rollout(states, policy, starts, horizon, seed)
    returns = _returns_to_go(estimator, path, horizons, termination)
    drawn = not isinstance(states, Recorded) and hasattr(policy, "log_prob_of_draw")
    fixed = path.policy_noise if drawn else path.actions
    density = LogDensity(policy, fixed.shape[2], drawn)
    jacobian = policy_jacobian(density, path.states.flatten(0, 1), fixed.flatten(0, 1))
    counted = path.alive if termination == "mask" else None
    return _isolated(Carried((returns * starts.weight)[..., None], jacobian, horizons), counted)


def _returns_to_go(
    estimator: Choices, path: Path, horizons: tuple[int, ...], termination: str
) -> Tensor:
    """γᵗ times the return from step t on, tail included, [K, H + 1, N]; 0 after each horizon."""
    tail, h1 = estimator.tail, path.horizon + 1
    gamma = tail.discount ** torch.arange(h1, dtype=path.states.dtype, device=path.states.device)
    alive = path.alive if termination == "mask" else torch.ones_like(path.alive)
    rewards = torch.where(alive[:-1], gamma[:-1, None] * path.rewards, 0.0)
    value = torch.where(alive, gamma[:, None] * _values(estimator, path), 0.0)
    result = rewards.new_zeros(len(horizons), h1, path.states.shape[1])
    for k, n in enumerate(horizons):
        result[k, : n + 1] = value[n]
        result[k, :n] += rewards[:n].flip(0).cumsum(dim=0).flip(0)
        if tail.value == "V" or tail.critic is None or tail.terminal_action == "detached":
            result[k, n] = 0.0
    return result


def _values(estimator: Choices, path: Path) -> Tensor:
    """The critic along the path, [H + 1, N]; 0 without one."""
    critic, shape = estimator.tail.critic, path.states.shape[:2]
    if critic is None:
        return path.states.new_zeros(shape)
    s, a = path.states.flatten(0, 1), path.actions.flatten(0, 1)
    with torch.no_grad():
        value = judge(critic, estimator.tail.value, s, a)
    return value.reshape(shape)


# λ and J of each way that θ is carried (`gradients.ways`).
TERMS: Mapping[str, Callable[[Choices, Asked, Shared | None], Carried]] = {
    "first": _first,
    "all": _every,
    "score": _score,
}
