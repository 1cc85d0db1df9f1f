"""Gymnasium's MuJoCo tasks with derivatives in torch.

env = gradlab.differentiable("Hopper-v5", batch=64)
state, reward, alive = env.step(state, action)          # Gymnasium's own step, to the last bit
loss = -reward.mean();  loss.backward()                 # by certified Jacobians
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.environments import ENVIRONMENTS, Environment
from gradlab.systems.implicit_jacobians import price, unsupported
from gradlab.systems.mujoco import MujocoEnvironment
from gradlab.systems.physics import thread_count
from gradlab.systems.step_gradients import StepRecord, differentiated
from gradlab.systems.system import Certificate, Linearization, System, Transition, check_step


class HasSimulator(Protocol):
    """A `gradlab.Task`."""

    @property
    def simulator(self) -> System: ...


def differentiable(
    environment: str | Environment | MujocoEnvironment | HasSimulator,
    batch: int | None = None,
    second_order: bool = False,
    jacobians: str = "exact",
) -> DifferentiableEnvironment:
    """A Gymnasium MuJoCo task whose step can stand in any torch loss; also a System.

    Args:
        environment: an id as "Hopper-v5", or a task (`gradlab.tasks.mujoco`, which has the weights
            of the reward as arguments), its simulator, or a row as in `systems/environments.py`.
        batch: number of states that every step is given; None: any number.
        second_order: second derivatives, too, by central differences of Jacobians: twice the
            Jacobians for each product of the Hessian and a vector. Without it a second backward
            pass through a step is an InputError.
        jacobians: "exact", central differences of whole steps, or "fast", by the inverse dynamics
            (`implicit_jacobians`), with relative errors up to 1e-4, where the number of operations
            is smaller with the threads that torch may use.

    Raises:
        InputError: no such environment, or a task of another simulator; an argument is none of
            these.

    Warns:
        UserWarning: Gymnasium's reward is no function of state and action (Ant, Humanoid), and
            what is left out of it; or the model is none that "fast" knows, and exact ones are
            taken.
    """
    if batch is not None:
        validation.whole("batch", batch, 1)
    validation.instance("second_order", second_order, bool, "True or False")
    validation.word("jacobians", jacobians, ("exact", "fast"))
    system = _simulator(environment)
    if system.environment.left_out:
        warnings.warn(
            f"{system.environment.env_id}: Gymnasium's reward is no function of state and action; "
            f"left out here: {system.environment.left_out}",
            stacklevel=2,
        )
    system = _fastest(system) if jacobians == "fast" else _exact(system)
    return DifferentiableEnvironment(system, batch, second_order)


@dataclass(eq=False)
class DifferentiableEnvironment:
    """See `differentiable`. It keeps the last step and its Jacobians, once they were needed.

    Attributes:
        system: values and Jacobians: its `step` and `linearize`.
    """

    noise_dim: ClassVar[int] = 0
    differentiable: ClassVar[bool] = True

    system: MujocoEnvironment
    batch: int | None = None
    second_order: bool = False
    _last: StepRecord | None = field(default=None, init=False, repr=False)

    @cached_property
    def _exact(self) -> MujocoEnvironment:
        """Whose Jacobians are differenced: errors of fast ones would be multiplied."""
        return _exact(self.system)

    @property
    def state_dim(self) -> int:
        return self.system.state_dim

    @property
    def action_dim(self) -> int:
        return self.system.action_dim

    @property
    def linearization_price(self) -> float:
        """As in `MujocoEnvironment`."""
        return self.system.linearization_price

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        """s', r, alive of states [N, ds] and actions [N, da], also by `s, r, alive = env.step(…)`.

        Values are those of `MujocoEnvironment.step`, to the last bit. Derivatives are those of
        `linearize`, made in the backward pass and once per step; where their certificate has a
        flag they are what `linearize` gives, and `flagged` marks them. Reverse mode, also inside
        `torch.func.vjp`, `jacrev` and `vmap`; without weight in the loss a row adds nothing, even
        if it has diverged.

        Raises:
            InputError: as `MujocoEnvironment.step`; another number of rows than `batch`.
        """
        for name, value in (("state", state), ("action", action)):
            validation.instance(name, value, Tensor, "a tensor (torch.from_numpy makes one)")
            if not value.is_floating_point():
                raise InputError(f"{name} is {value.dtype}, expected float64 or float32")
        check_step(self, state, action, noise)
        if self.batch is not None and len(state) != self.batch:
            raise InputError(
                f"state has {len(state)} rows, expected batch={self.batch}: batch=None takes any "
                f"number"
            )
        self._last = StepRecord(self.system, self._exact if self.second_order else None)
        return Transition(*differentiated(self._last, state, action))

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        """Certified A, B, r_s, r_a, as `MujocoEnvironment.linearize`."""
        return self.system.linearize(state, action, noise)

    @property
    def certificate(self) -> Certificate:
        """Of the last step's Jacobians, which are made for it unless a backward pass did.

        Raises:
            InputError: no step was made.
        """
        if self._last is None or self._last.at is None:
            raise InputError("certificate of the last step: none was made, call step first")
        return self._last.linearized(*self._last.at).certificate

    @property
    def flagged(self) -> Tensor:
        """bool [N]: rows of the last step where a contact or a limit switched within the stencil,
        and the Jacobian is a jump over a step instead of a derivative."""
        return self.certificate.flags

    def sample_noise(
        self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64
    ) -> Tensor:
        return self.system.sample_noise(n, generator, dtype)

    def sample_starts(self, n: int, generator: torch.Generator) -> Tensor:
        """Gymnasium's reset law, float64 [n, ds]."""
        return self.system.sample_starts(n, generator)

    def alive(self, state: Tensor) -> Tensor:
        """bool [N]: is a state outside the terminal set?"""
        return self.system.alive(state)

    def contacts(self, state: Tensor) -> Tensor:
        """bool [N]: does anything touch?"""
        return self.system.contacts(state)


def mujoco_environment(system: System) -> MujocoEnvironment | None:
    """The environment that a system steps, or None."""
    inner = system.system if isinstance(system, DifferentiableEnvironment) else system
    return inner if isinstance(inner, MujocoEnvironment) else None


def _exact(system: MujocoEnvironment) -> MujocoEnvironment:
    return replace(system, implicit=False) if system.implicit else system


def _fastest(system: MujocoEnvironment) -> MujocoEnvironment:
    exact = _exact(system)
    why = unsupported(system.physics.model)
    if why is not None:
        name = system.environment.env_id
        warnings.warn(f"{name} has exact Jacobians alone, no fast ones: {why}", stacklevel=3)
        return exact
    threads = thread_count()
    pays = price(system.physics, threads) < exact.linearization_price / threads
    return replace(system, implicit=pays)


def _simulator(environment: object) -> MujocoEnvironment:
    if isinstance(environment, str) and environment in ENVIRONMENTS:
        return MujocoEnvironment(ENVIRONMENTS[environment])
    if isinstance(environment, Environment):
        return MujocoEnvironment(environment)
    system: Any = getattr(environment, "simulator", environment)
    inner = mujoco_environment(system)
    if inner is not None:
        return inner
    if getattr(system, "differentiable", False):
        raise InputError(
            f"environment is {validation.shown(environment)}, whose step torch differentiates "
            f"already: call its step"
        )
    raise InputError(
        f"environment is {validation.shown(environment)}, expected one of "
        f"{', '.join(ENVIRONMENTS)}, or a task of one (gradlab.tasks.mujoco)"
    )
