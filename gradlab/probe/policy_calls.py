"""Inputs and outputs of the policy, by a forward hook that changes neither.

    saturated: |a_j − centre_j| ≥ (1 − 10⁻³) · limit_j      there tanh and clips pass no gradient on
    attenuation: mean of 1 − ((a_j − centre_j) / limit_j)²   what a tanh passes on

A limit is declared, or 1 of the values of the policy's last tanh, before the policy scales them.

Differentiated passes count, one in an update, without actions that are NaN: these are counted where
they reach the gradient. The last input and the gradient that arrived at the last output are kept
until the update has been measured, for the origin of a NaN.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from gradlab.networks.actors import Reparameterised
from gradlab.networks.interface import last_tanh
from gradlab.probe.budget import Budget
from gradlab.probe.isolation import OWN_WORK

if TYPE_CHECKING:
    from gradlab.tasks.task import Task

NEAR = 1e-3  # of the limit


@dataclass(frozen=True)
class Limits:
    """Where actions count as saturated: |a − centre| ≥ edge, per action or for all of them."""

    centre: Tensor
    edge: Tensor


def limits_of(policy: nn.Module, task: Task | None) -> Limits | None:
    """The task's action limit, else what the policy says of its own: `action_scale` and
    `action_bias` (CleanRL), `limit` (gradlab); None: unknown."""
    if task is not None and task.action_limit is not None:
        return limits(0.0, task.action_limit)
    scale, bias = (getattr(policy, name, None) for name in ("action_scale", "action_bias"))
    if isinstance(scale, Tensor) and isinstance(bias, Tensor):
        return limits(bias, scale)
    limit = getattr(policy, "limit", None)
    if isinstance(limit, float | int | tuple | list):
        return limits(0.0, limit)
    return None


def limits(centre: Any, half: Any) -> Limits:
    """Actions are saturated near centre ± half, each one number or one per action."""
    middle, width = (torch.as_tensor(x, dtype=torch.float64).detach() for x in (centre, half))
    return Limits(middle, (1 - NEAR) * width)


def as_it_is(answer: Any) -> Any:
    return answer


@dataclass(frozen=True)
class Watched:
    """The module whose forward passes are measured: the policy, or what a loop calls instead.

    Attributes:
        module: its inputs have one row per sample; of several outputs the first one counts.
        limits: of the actions; None: unknown.
        action: of the module's output, [N, da], in the units of the limits; None: not known.
    """

    module: nn.Module
    limits: Limits | None
    action: Callable[[Tensor], Tensor | None] = as_it_is


def acting(module: nn.Module, known: Limits | None) -> Watched:
    """A module whose output is an action, by the limits that are known, or by its last tanh."""
    if known is None:
        return Watched(module, limits(0.0, 1.0), last_tanh)
    return Watched(module, known)


def watched_in(policy: nn.Module, task: Task | None) -> Watched:
    """The policy; of an actor that gradlab has wrapped the actor, which is what a loop calls."""
    if not isinstance(policy, Reparameterised):
        return acting(policy, limits_of(policy, task))
    if policy.scale is None or policy.bias is None:
        return acting(policy.actor, limits_of(policy, task))
    return Watched(policy.actor, limits(policy.bias, policy.scale), policy.bounded)


def inert(*_: object) -> None:
    """The inert hook of a watched policy's copies."""


@final
class Hook:
    """A forward hook that never stops the user's pass: it is off where `see` has failed, and
    `failed` is told. Copies and pickles of a module get an inert one, and what the probe calls by
    itself is not seen.

    Args:
        graded: only passes with gradients are seen.
    """

    def __init__(
        self, see: Callable[[nn.Module, Any, Any], None], failed: Callable[[Exception], object],
        graded: bool = True,
    ) -> None:  # fmt: skip
        self.see, self.failed, self.graded, self.on = see, failed, graded, True

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        # A compiler asks first, so that it need not guard what comes after.
        if torch.compiler.is_compiling() or not self.on or OWN_WORK.get():
            return
        if self.graded and not torch.is_grad_enabled():
            return
        try:
            self.see(module, args, output)
        except Exception as error:
            self.on = False
            self.failed(error)

    def __deepcopy__(self, memo: object) -> Any:
        return inert

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (inert,)


@final
class ModuleWatch:
    """The passes of one module, by its hook, which is on in updates that are measured."""

    def __init__(self, watched: Watched, budget: Budget) -> None:
        self.watched, self.limits, self.budget = watched, watched.limits, budget
        self.hook = Hook(self._see, self._fail)
        self.error: Exception | None = None  # which the probe reports later
        self.inputs: tuple[Tensor, ...] = ()
        self.arrived: Tensor | None = None
        self._saturated: list[Tensor] = []
        self._passed: list[Tensor] = []
        self._known: list[Tensor] = []
        self._rows = 0
        self.actions = 0  # da, once an action has been seen
        self.counting = True  # whether the next pass is counted

    def _fail(self, error: Exception) -> None:
        self.error = error

    @property
    def batch(self) -> int | None:
        """Rows of the last input."""
        return len(self.inputs[0]) if self.inputs and self.inputs[0].ndim else None

    def release(self) -> None:
        """Let go of the last input: the update has been measured."""
        self.inputs, self.arrived = (), None

    def row(self) -> dict[str, Any]:
        """Share of saturated actions since the last row, [da]; nothing where no limit is known."""
        if not self._rows:
            return {}
        count, passed, known = (
            torch.stack(each).double().sum(0).cpu()
            for each in (self._saturated, self._passed, self._known)
        )
        row = {
            "saturation": (count / known).numpy(),
            "attenuation": (passed / known).numpy(),
            "watched": len(self._saturated),
        }
        self._saturated, self._passed, self._known, self._rows = [], [], [], 0
        return row

    def _see(self, module: nn.Module, args: Any, output: Any) -> None:
        begun = self.budget.clock()
        answer = output[0] if isinstance(output, tuple) and output else output
        if self.error is not None or not isinstance(answer, Tensor) or passing(answer):
            return
        self.inputs = tuple(_alone(each) for each in args if isinstance(each, Tensor))
        if answer is output and output.requires_grad:
            output.register_hook(self._arrive)  # type: ignore[no-untyped-call]
        # What stands first of several outputs is a mean, before any tanh: no action to be counted.
        acts = answer is output or self.watched.action not in (as_it_is, last_tanh)
        if self.counting and acts and self.limits is not None and answer.ndim == 2:
            with torch.no_grad():
                action = self.watched.action(answer)
                if action is not None:
                    self._count(action)
        self.counting = False
        self.budget.pay(begun)

    def _arrive(self, gradient: Tensor) -> None:
        try:
            self.arrived = _alone(gradient)
        except Exception as error:  # in the middle of the user's backward pass
            self.error = error

    def _count(self, action: Tensor) -> None:
        assert self.limits is not None
        self.actions = action.shape[1]
        centre, edge = self.limits.centre, self.limits.edge
        if edge.device != action.device or edge.dtype != action.dtype:
            self.limits = Limits(centre.to(action), edge.to(action))
            centre, edge = self.limits.centre, self.limits.edge
        size = (action - centre).abs_()
        self._saturated.append((size >= edge).sum(dim=0))
        self._known.append((~size.isnan()).sum(dim=0))
        # The derivative of l tanh(x / l) is 1 − (a / l)²; beyond the limit nothing gets through.
        through = (1 - ((1 - NEAR) * size / edge).square_()).clamp_min_(0)
        self._passed.append(through.nansum(dim=0))
        self._rows += len(action)


def graded(args: Iterable[Any]) -> bool:
    """Does one of them have a gradient?"""
    return any(isinstance(x, Tensor) and x.requires_grad for x in args)


def passing(x: Tensor) -> bool:
    """Inside torch.func or a trace: a value that must not outlive it."""
    if torch._C._get_tracing_state() is not None:
        return True
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))


def _alone(x: Tensor) -> Tensor:
    """Without its graph."""
    return x.detach() if x.requires_grad else x
