"""Paths, their linearizations and what gradients along them are made of, each made once.

    G_i = Σ_t J_t,iᵀ λ_t,i        `Carried`: λ and J of several horizons
    γᵗ Σ_{k≥t} γ^{k−t} r_k        `returns_to_go`, tail included

The ways of carrying θ (`weighted_terms`, `mixing`) differ in J and λ alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gradlab import validation
from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients.policy_jacobian import PolicyJacobian, Trace, joined_factors
from gradlab.gradients.rollout import (
    LinearizedPath,
    jacobian_noise,
    linearize_path,
    recorded_with_jacobians,
    rollout_with_jacobians,
)
from gradlab.gradients.starts import Starts
from gradlab.gradients.tail import Tail
from gradlab.gradients.ways import Name
from gradlab.networks.mlp import judge
from gradlab.systems.system import Recorded, System


@dataclass(frozen=True)
class Cut:
    """Derivatives that a gradient takes as zero or as smaller, values left as they are.

    A cut is `detach` in the computation, a bias by choice for less variance; the truth is not cut.

    Attributes:
        transition: ∂s′/∂s = 0: the next state depends on the action alone.
        decay: α in [0, 1], multiplies ∂s′/∂s at every step (`g_decay`, Zhang et al. 2024, "Back to
            Newton's Laws").
        stop: k, steps of a path after which the state is detached, again and again, as truncated
            backpropagation through time does; 0: never.
    """

    transition: bool = False
    decay: float = 1.0
    stop: int = 0

    def __post_init__(self) -> None:
        validation.instance("transition of a cut", self.transition, bool, "True or False")
        if not 0 <= validation.number("decay of a cut", self.decay, "a number from 0 to 1") <= 1:
            raise InputError(f"decay of a cut is {self.decay!r}, expected a number from 0 to 1")
        validation.whole("stop of a cut", self.stop)

    def __bool__(self) -> bool:
        return self.transition or self.stop > 0 or self.decay < 1

    def __str__(self) -> str:
        parts = ["transition"] * self.transition + [f"decay {self.decay:g}"] * (self.decay < 1)
        return ", ".join(parts + [f"stop {self.stop}"] * (self.stop > 0))


UNCUT = Cut()


def severed(linear: LinearizedPath, cut: Cut) -> LinearizedPath:
    """The same path with the cut derivatives zero, and decayed."""
    if not cut:
        return linear
    A = torch.zeros_like(linear.A) if cut.transition else cut.decay * linear.A
    if not cut.stop:
        return replace(linear, A=A)
    B = linear.B.clone()
    A[cut.stop - 1 :: cut.stop] = B[cut.stop - 1 :: cut.stop] = 0.0
    return replace(linear, A=A, B=B)


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

    @property
    def replay(self) -> System | None: ...


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


class TermRequest(NamedTuple):
    """Where and for which horizons terms are made."""

    policy: nn.Module
    starts: Starts
    horizons: tuple[int, ...]
    seed: int
    termination: str


def course_of(
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


def isolated(terms: Carried, counted: Tensor | None) -> Carried:
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
    estimator: Choices, policy: nn.Module, starts: Starts, seed: int, termination: str = "ignore"
) -> LinearizedPath:
    """The estimator's path with the Jacobians of what it differentiates."""
    states = estimator.states
    path, K = path_with_jacobians(states, policy, starts, estimator.tail.horizon, seed)
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


def returns_to_go(
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
