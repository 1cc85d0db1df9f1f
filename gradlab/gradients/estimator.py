"""A policy gradient as one frozen value: four choices.

    states     who produces s_0, s_1, …
    jacobians  who is differentiated along those states: A, B, r_s and r_a
    actions    which actions carry θ: "first" (MPG eq. 6) or "all" (MPG eq. 5, BPTT)
    tail       horizon n, discount and the critic that values s_n

n = 0 is the deterministic policy gradient J_0; `dataclasses.replace` makes the next estimator.
Gradients ascend Σ_{t<n} γᵗ r_t + γⁿ Q(s_n, a_n), θ flattened in `policy.parameters()` order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.gradients import gram
from gradlab.gradients.all_action import discounted_costates
from gradlab.gradients.first_action import action_gradients
from gradlab.gradients.policy_jacobian import PolicyJacobian, policy_jacobian
from gradlab.gradients.rollout import (
    LinearizedPath,
    Starts,
    TailGradient,
    as_starts,
    jacobian_noise,
    linearize_path,
    rollout_with_jacobians,
    tail_gradient,
)
from gradlab.networks.interface import check_critic, check_policy
from gradlab.systems.system import System

TERMINATIONS = ("ignore", "mask")
STEPS = 25  # steps whose policy Jacobians are held at once


@dataclass(frozen=True)
class Tail:
    """Where the sum stops.

    Attributes:
        horizon: n ≥ 0 model steps before the critic.
        critic: module valuing (s_n, a_n), or s_n alone for a V critic; None: no tail.
        discount: γ in (0, 1].
        value: "Q" or "V".
        terminal_action: "attached", or "detached": θ of the tail action is frozen, its state path
            kept.
    """

    horizon: int
    critic: nn.Module | None
    discount: float
    value: Literal["Q", "V"] = "Q"
    terminal_action: Literal["attached", "detached"] = "attached"

    def __post_init__(self) -> None:
        if not isinstance(self.horizon, int) or self.horizon < 0:
            raise InputError(f"horizon is {self.horizon!r}, expected an integer ≥ 0")
        if not 0.0 < self.discount <= 1.0:
            raise InputError(f"discount is {self.discount!r}, expected a number in (0, 1]")
        if self.value not in ("Q", "V"):
            raise InputError(f"value is {self.value!r}, expected 'Q' or 'V'")
        if self.terminal_action not in ("attached", "detached"):
            raise InputError(
                f"terminal_action is {self.terminal_action!r}, expected 'attached' or 'detached'"
            )


@dataclass(frozen=True)
class Estimator:
    """states × jacobians × actions × tail. `jacobians` may be None where horizon is 0."""

    states: System
    jacobians: System | None
    actions: Literal["first", "all"]
    tail: Tail

    def __post_init__(self) -> None:
        if self.actions not in ("first", "all"):
            raise InputError(f"actions is {self.actions!r}, expected 'first' or 'all'")
        if self.jacobians is None and self.tail.horizon > 0:
            raise InputError(
                f"jacobians is None but horizon is {self.tail.horizon}: only horizon 0 needs none"
            )
        model = self.jacobians
        if model is not None:
            for name in ("state_dim", "action_dim"):
                if getattr(model, name) != getattr(self.states, name):
                    raise InputError(
                        f"jacobians has {name} {getattr(model, name)}, states has "
                        f"{getattr(self.states, name)}: both must use the task's one coordinate"
                    )
        leaves_nothing = (
            self.tail.critic is None
            or self.tail.value == "V"
            or (self.actions == "all" and self.tail.terminal_action == "detached")
        )
        if self.tail.horizon == 0 and leaves_nothing:
            raise InputError(
                "horizon is 0, which leaves no θ to differentiate: it needs a Q critic and an "
                "attached terminal action"
            )

    def gradients(
        self, policy: nn.Module, starts: Tensor | Path, seed: int = 0, termination: str = "ignore"
    ) -> Tensor:
        """Per-sample ascent gradients, [N, P]."""
        begin = self._check(policy, starts, termination)
        linear, tail = self.linearized(policy, begin, seed)
        if self.actions == "first":
            g = action_gradients(linear, tail, self.tail.discount, termination)[-1]
            return gram.sample_gradients(_start_jacobian(policy, linear), g * begin.weight[:, None])
        return all_action_gradients(policy, linear, tail, self.tail, termination)

    def mean_gradient(
        self, policy: nn.Module, starts: Tensor | Path, seed: int = 0, termination: str = "ignore"
    ) -> Tensor:
        """Mean ascent gradient over the starts, [P]."""
        if self.actions == "all":
            return self.gradients(policy, starts, seed, termination).mean(dim=0)
        begin = self._check(policy, starts, termination)
        linear, tail = self.linearized(policy, begin, seed)
        g = action_gradients(linear, tail, self.tail.discount, termination)[-1:]
        weighted = g * begin.weight[:, None]
        return gram.mean_gradients(_start_jacobian(policy, linear), weighted)[0]

    def linearized(
        self, policy: nn.Module, starts: Starts, seed: int
    ) -> tuple[LinearizedPath, TailGradient]:
        """The rollout, its Jacobians and the critic's gradients along it."""
        path, K = rollout_with_jacobians(self.states, policy, starts, self.tail.horizon, seed)
        model = self.jacobians if self.jacobians is not None else self.states
        noise = jacobian_noise(self.states, model, path)
        linear = linearize_path(path, model, K, noise)
        return linear, tail_gradient(path, self.tail.critic, self.tail.value)

    def _check(self, policy: nn.Module, starts: Tensor | Path, termination: str) -> Starts:
        if termination not in TERMINATIONS:
            raise InputError(f"termination is {termination!r}, expected one of {TERMINATIONS}")
        begin = as_starts(starts, self.states.state_dim)
        check_policy(policy, begin.states, self.states.action_dim)
        if self.tail.critic is not None:
            check_critic(self.tail.critic, self.tail.value, begin.states, self.states.action_dim)
        return begin


def all_action_gradients(
    policy: nn.Module,
    linear: LinearizedPath,
    tail: TailGradient,
    shape: Tail,
    termination: str,
) -> Tensor:
    """Per-sample gradients [N, P] with θ in every action: Σ_{t≤n} γᵗ J(s_t)ᵀ λⁿ_t."""
    horizon = shape.horizon
    (costates,) = discounted_costates(
        linear, tail, shape.discount, (horizon,), shape.terminal_action, termination
    )
    costates = costates * linear.path.weight[:, None]
    total = linear.path.states.new_zeros(1)
    for begin in range(0, horizon + 1, STEPS):
        steps = slice(begin, min(begin + STEPS, horizon + 1))
        s, e = (x[steps].flatten(0, 1) for x in (linear.path.states, linear.path.policy_noise))
        total = total + gram.path_gradients(policy_jacobian(policy, s, e), costates[steps])
    return total


def _start_jacobian(policy: nn.Module, linear: LinearizedPath) -> PolicyJacobian:
    return policy_jacobian(policy, linear.path.states[0], linear.path.policy_noise[0])
