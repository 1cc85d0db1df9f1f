"""Gymnasium's MuJoCo tasks with derivatives in torch.

env = gradlab.differentiable("Hopper-v5", batch=64)
state, reward, alive = env.step(state, action)          # Gymnasium's own step, to the last bit
loss = -reward.mean();  loss.backward()                 # by certified Jacobians

Automatic differentiation through a step that only its `linearize` can differentiate.

    forward   (s, a) → s', r, alive                                the system's own step
    backward  g_s = Aᵀ λ + r_s ρ,   g_a = Bᵀ λ + r_a ρ             λ, ρ: cotangents of s', r
    again     ∂(uᵀ g)/∂λ = A u_s + B u_a,   ∂(uᵀ g)/∂ρ = r_s u_s + r_a u_a

Jacobians are made at the first backward pass that reaches a step, and kept with it. They have no
derivatives themselves.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.mujoco import ENVIRONMENTS, Environment, MujocoEnvironment
from gradlab.systems.system import Certificate, Linearization, System, Transition, check_step, inner


class _StepRecord:
    """One step of a batch: where it was, and its Jacobians once they were needed.

    Attributes:
        at: state and action, copies.
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self.at: tuple[Tensor, Tensor] | None = None
        self._of: tuple[Tensor, Tensor] | None = None
        self._linear: Linearization | None = None

    def linearized(self, state: Tensor, action: Tensor) -> Linearization:
        """Jacobians at these rows; those of the last call where it was of the same."""
        last, given = self._of, (state, action)
        same = last is not None and all(map(torch.equal, last, given))
        if self._linear is None or not same:
            self._of = state.detach().clone(), action.detach().clone()
            self._linear = self.system.linearize(*self._of)
        return self._linear


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(record: _StepRecord, state: Tensor, action: Tensor) -> tuple[Tensor, ...]:
        after = record.system.step(state, action)
        record.at = state.detach().clone(), action.detach().clone()
        return after.state, after.reward, after.alive

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.record, state, action = inputs
        ctx.save_for_backward(state, action)
        ctx.mark_non_differentiable(output[2])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        (state, action), (by_state, by_reward, _) = ctx.saved_tensors, cotangents
        if torch._C._functorch.is_legacy_batchedtensor(by_state):
            # `torch.autograd.grad(…, is_grads_batched=True)` knows no rule of `vmap` below.
            linear = ctx.record.linearized(state, action)
            return None, *_pulled_back(linear, by_state, by_reward)
        given = (ctx.record, state, action, by_state, by_reward)
        return None, *_Pullback.apply(*given)  # type: ignore[no-untyped-call]

    @staticmethod
    def jvp(ctx: Any, *along: Tensor | None) -> Any:
        raise InputError(
            "a step has reverse mode only: use torch.func.vjp or jacrev in the place of jvp and "
            "jacfwd, or linearize"
        )

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], record: _StepRecord, *inputs: Tensor) -> Any:
        out = _Step.apply(record, *_more_rows(info, dims[1:], inputs))  # type: ignore[no-untyped-call]
        axes = (-2, -1, -1)
        return tuple(_apart(info, x, axis) for x, axis in zip(out, axes, strict=True)), (0, 0, 0)


class _Pullback(torch.autograd.Function):
    """g_s, g_a of cotangents [..., N, ds] and [..., N] at states and actions of N rows."""

    @staticmethod
    def forward(record: _StepRecord, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        state, action, by_state, by_reward = inputs
        return _pulled_back(record.linearized(state, action), by_state, by_reward)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.record = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, u_s: Tensor, u_a: Tensor) -> tuple[Tensor | None, ...]:
        _, *needs = ctx.needs_input_grad
        if any(needs[:2]):
            raise InputError("a step is differentiated a second time: it has first derivatives")
        state, action, *_ = ctx.saved_tensors
        linear = ctx.record.linearized(state, action)
        onward = torch.einsum("nij,...nj->...ni", linear.A, u_s)
        onward = onward + torch.einsum("nij,...nj->...ni", linear.B, u_a)
        gained = (linear.r_s * u_s).sum(-1) + (linear.r_a * u_a).sum(-1)
        return None, None, None, onward, gained

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, ...], record: _StepRecord, *inputs: Tensor) -> Any:
        """Cotangents of the same states share their Jacobians; other states are further rows."""
        state, action, *cotangents = inputs
        if dims[1] is None and dims[2] is None:
            given = (state, action, *_in_front(info, dims[3:], cotangents))
            return _Pullback.apply(record, *given), (0, 0)  # type: ignore[no-untyped-call]
        rows = _more_rows(info, dims[1:], inputs)
        out = _Pullback.apply(record, *rows)  # type: ignore[no-untyped-call]
        return tuple(_apart(info, x, -2) for x in out), (0, 0)


def _pulled_back(
    linear: Linearization, by_state: Tensor, by_reward: Tensor
) -> tuple[Tensor, Tensor]:
    row, weight = by_state.unsqueeze(-2), by_reward.unsqueeze(-1)
    by_s = (row @ linear.A).squeeze(-2) + weight * linear.r_s
    by_a = (row @ linear.B).squeeze(-2) + weight * linear.r_a
    # A diverged row has no Jacobian, and without weight it must not make NaN of the gradient.
    unused = ((by_state == 0).all(-1) & (by_reward == 0)).unsqueeze(-1)
    by_s, by_a = (torch.where(unused, torch.zeros_like(g), g) for g in (by_s, by_a))
    return by_s, by_a


def _in_front(info: Any, dims: Any, inputs: Any) -> list[Tensor]:
    """vmap's axis as the first one of every input."""
    b = info.batch_size
    return [
        x.expand(b, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(inputs, dims, strict=True)
    ]


def _more_rows(info: Any, dims: Any, inputs: Any) -> list[Tensor]:
    """vmap's axis as further rows of s, a, λ and ρ."""
    rows = []
    for x, axis in zip(_in_front(info, dims, inputs), (-2, -2, -2, -1), strict=False):
        rows.append(x.movedim(0, axis - 1).flatten(axis - 1, axis))
    return rows


def _apart(info: Any, x: Tensor, axis: int) -> Tensor:
    """Further rows as vmap's axis, in front."""
    shape = list(x.shape)
    shape[axis : axis + 1 or None] = [info.batch_size, x.shape[axis] // info.batch_size]
    return x.reshape(shape).movedim(axis - 1, 0)


class _HasSimulator(Protocol):
    """A `gradlab.Task`."""

    @property
    def simulator(self) -> System: ...


def differentiable(
    environment: str | Environment | MujocoEnvironment | _HasSimulator,
    batch: int | None = None,
) -> DifferentiableEnvironment:
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
            f"{system.environment.env_id}: Gymnasium's reward is no function of state and action; "
            f"left out here: {system.environment.left_out}",
            stacklevel=2,
        )
    return DifferentiableEnvironment(system, batch)


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
    _last: _StepRecord | None = field(default=None, init=False, repr=False)

    state_dim = inner("state_dim")
    action_dim = inner("action_dim")
    linearization_price = inner("linearization_price")
    sample_noise = inner("sample_noise")

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
        self._last = _StepRecord(self.system)
        stepped = _Step.apply(self._last, state, action)  # type: ignore[no-untyped-call]
        return Transition(*stepped)

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
