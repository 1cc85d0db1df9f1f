"""Gymnasium's MuJoCo tasks with derivatives in torch.

env = gradlab.differentiable("Hopper-v5", batch=64)
state, reward, alive = env.step(state, action)          # Gymnasium's own step, to the last bit
loss = -reward.mean();  loss.backward()                 # by certified Jacobians

Automatic differentiation through a step that only its `linearize` can differentiate.

    forward   (s, a) → s', r, alive                                the system's own step
    backward  g_s = Aᵀ λ + r_s ρ,   g_a = Bᵀ λ + r_a ρ             λ, ρ: cotangents of s', r

Jacobians are made at the first backward pass that reaches a step, and kept with it. They have no
derivatives themselves.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.function import RowStep
from gradlab.systems.mujoco import ENVIRONMENTS, Environment, MujocoEnvironment
from gradlab.systems.system import (
    Certificate,
    Linearization,
    Noise,
    System,
    Transition,
    Wrapped,
    check_step,
    inner,
)


class _StepRecord:
    """One step of a batch: where it was, and its Jacobians once they were needed."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.at: tuple[Tensor, ...] = ()
        self._of: tuple[Tensor, ...] = ()
        self._linear: Linearization | None = None

    def values(self, *at: Tensor) -> tuple[Tensor, ...]:
        """s', r and alive."""
        self.at = tuple(x.detach().clone() for x in at)
        return tuple(self.system.step(*self.at))

    def linearized(self, *at: Tensor) -> Linearization:
        """Jacobians at these rows; those of the last call where it was of the same."""
        same = len(self._of) > 0 and all(map(torch.equal, self._of, at))
        if self._linear is None or not same:
            self._of = tuple(x.detach().clone() for x in at)
            self._linear = self.system.linearize(*self._of)
        return self._linear

    def pullback(
        self, state: Tensor, action: Tensor, by_state: Tensor, by_reward: Tensor
    ) -> tuple[Tensor, ...]:
        """g_s and g_a."""
        linear = self.linearized(state, action)
        row, weight = by_state.unsqueeze(-2), by_reward.unsqueeze(-1)
        by_s = (row @ linear.A).squeeze(-2) + weight * linear.r_s
        by_a = (row @ linear.B).squeeze(-2) + weight * linear.r_a
        # A diverged row has no Jacobian, and without weight it must not make NaN of the gradient.
        unused = ((by_state == 0).all(-1) & (by_reward == 0)).unsqueeze(-1)
        return tuple(torch.where(unused, torch.zeros_like(g), g) for g in (by_s, by_a))


def differentiable(environment: Any, batch: int | None = None) -> DifferentiableEnvironment:
    """A Gymnasium MuJoCo task whose step can stand in any torch loss; also a System.

    Args:
        environment: an id as "Hopper-v5", or a task (`gradlab.tasks.mujoco`, which has the weights
            of the reward as arguments), its simulator, or a row as in `systems/mujoco.py`.
        batch: number of states that every step is given; None: any number.

    Raises:
        InputError: no such environment, or a task of another simulator; an argument is none of
            these.

    Warns:
        UserWarning: Gymnasium's reward is no function of state and action (Ant, Humanoid), and
            what is left out of it.
    """
    if batch is not None:
        validation.whole("batch", batch, 1)
    system = _simulator(environment)
    if system.environment.left_out:
        warnings.warn(
            f"{system.environment.env_id}'s reward is no function of state and action; left out "
            f"here: {system.environment.left_out}",
            stacklevel=2,
        )
    return DifferentiableEnvironment(system, batch)


@dataclass(eq=False)
class DifferentiableEnvironment(Wrapped):
    """See `differentiable`. It keeps the last step and its Jacobians, once they were needed.

    Attributes:
        system: values and Jacobians: its `step` and `linearize`.
    """

    noise_dim = 0
    differentiable = True

    system: MujocoEnvironment
    batch: int | None = None
    _last: _StepRecord | None = field(default=None, init=False, repr=False)

    linearize = inner("linearize")
    sample_starts = inner("sample_starts")
    alive = inner("alive")
    contacts = inner("contacts")

    def step(self, state: Tensor, action: Tensor, noise: Noise = None) -> Transition:
        """s', r, alive of states [N, ds] and actions [N, da], also by `s, r, alive = env.step(…)`.

        Values are those of `MujocoEnvironment.step`, to the last bit. Derivatives are those of
        `linearize`, made in the backward pass and once per step; where their certificate has a
        flag they are what `linearize` gives, and `flagged` marks them. Reverse mode, also inside
        `torch.func.grad` and `vmap`; without weight in the loss a row adds nothing, even if it has
        diverged.

        Raises:
            InputError: as `MujocoEnvironment.step`; another number of rows than `batch`.
        """
        for name, value in (("state", state), ("action", action)):
            if not isinstance(value, Tensor) or not value.is_floating_point():
                raise validation.expected(name, value, "a tensor in float64 or float32")
        check_step(self, state, action, noise)
        if self.batch not in (None, n := len(state)):
            raise InputError(f"state has {n} rows, expected batch={self.batch} (None: any number)")
        last = self._last = _StepRecord(self.system)
        given = (last.values, last.pullback, state, action)
        return Transition(*RowStep.apply(*given))  # type: ignore[no-untyped-call]

    @property
    def certificate(self) -> Certificate:
        """Of the last step's Jacobians, which are made for it unless a backward pass did.

        Raises:
            InputError: no step was made.
        """
        if self._last is None or not self._last.at:
            raise InputError("certificate of the last step: none was made, call step first")
        return self._last.linearized(*self._last.at).certificate

    @property
    def flagged(self) -> Tensor:
        """bool [N]: rows of the last step where a contact or a limit switched within the stencil,
        and the Jacobian is a jump over a step instead of a derivative."""
        return self.certificate.flags


def mujoco_environment(system: System) -> MujocoEnvironment | None:
    """The environment that a system steps, or None."""
    inner = system.system if isinstance(system, DifferentiableEnvironment) else system
    return inner if isinstance(inner, MujocoEnvironment) else None


def _simulator(environment: Any) -> MujocoEnvironment:
    if isinstance(environment, str) and environment in ENVIRONMENTS:
        environment = ENVIRONMENTS[environment]
    if isinstance(environment, Environment):
        return MujocoEnvironment(environment)
    system = getattr(environment, "simulator", environment)
    if (found := mujoco_environment(system)) is not None:
        return found
    known = f"one of {', '.join(ENVIRONMENTS)}, or a task of one (gradlab.tasks.mujoco)"
    if getattr(system, "differentiable", False):
        known += "; torch differentiates this one's step already"
    raise validation.expected("environment", environment, known)
