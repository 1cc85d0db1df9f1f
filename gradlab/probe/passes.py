"""The last differentiated passes of the policy and its critics, by hooks that change neither.

    saturated: |a_j − centre_j| ≥ (1 − 10⁻³) · limit_j      there tanh and clips pass no gradient on
    attenuation: mean of 1 − ((a_j − centre_j) / limit_j)²   what a tanh passes on

A limit is declared, or 1 of the values of the policy's last tanh, before the policy scales them.
Inputs, outputs and the gradients that arrive there are kept until the update is over, for the
origin of a NaN.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor, nn

from gradlab.networks.actors import Reparameterised
from gradlab.networks.interface import last_tanh
from gradlab.probe.isolation import OWN_WORK

if TYPE_CHECKING:
    from gradlab.tasks.task import Task

NEAR = 1e-3  # of the limit
_KEPT = 4  # passes


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
    limits: Limits | None = None
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
    """The hook of a watched module's copies."""


@final
class Passes:
    """The last passes of one module since `release`, by its forward hook, which never stops the
    user's pass: `error` has what failed. Copies and pickles of the module get an inert one, and
    what the probe calls by itself is not seen.

    Args:
        watched: a module without limits is not looked at for saturation.

    Attributes:
        counting: whether the actions of the next pass are counted.
        actions: da, once an action has been seen.
        over: called when a backward pass through the output is over, with all gradients in.
    """

    def __init__(self, watched: Watched) -> None:
        self.watched, self.limits = watched, watched.limits
        self.error: Exception | None = None
        self.counting, self.actions = False, 0
        self.over: Callable[[], object] | None = None
        self._made: deque[tuple[tuple[Tensor, ...], Tensor | None]] = deque(maxlen=_KEPT)
        self._counts: list[Tensor] = []  # [3, da] of each pass: saturated, passed on, known

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        # A compiler asks first, so that it need not guard what comes after.
        if torch.compiler.is_compiling() or self.error is not None or OWN_WORK.get():
            return
        if not torch.is_grad_enabled():
            return
        try:
            self._see(args, output)
        except Exception as error:  # in the middle of the user's pass
            self.error = error

    def __deepcopy__(self, memo: object) -> Any:
        return inert

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (inert,)

    def _see(self, args: Any, output: Any) -> None:
        answer = next(_tensors(output), None)
        if answer is not None and passing(answer):
            return
        if answer is not None and answer.requires_grad:
            answer.retain_grad()
            if self.over is not None:
                answer.register_hook(self._begun)  # type: ignore[no-untyped-call]
        self._made.append((tuple(x.detach() for x in args if isinstance(x, Tensor)), answer))
        # What stands first of several outputs is a mean, before any tanh: no action to be counted.
        acts = answer is output or self.watched.action not in (as_it_is, last_tanh)
        if self.counting and acts and self.limits is not None and answer is not None:
            self.counting = False  # one pass of an update
            with torch.no_grad():
                action = self.watched.action(answer) if answer.ndim == 2 else None
                if action is not None:
                    self._count(action)

    def _begun(self, gradient: Tensor) -> None:
        engine: Any = torch.autograd.Variable._execution_engine
        engine.queue_callback(self.over)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Of the last pass, without its graph."""
        return self._made[-1][0] if self._made else ()

    @property
    def output(self) -> Tensor | None:
        """Of the last pass."""
        return self._made[-1][1] if self._made else None

    @property
    def arrived(self) -> Tensor | None:
        """The gradient at the last output to which one came."""
        found = [y.grad for _, y in self._made if y is not None and y.grad is not None]
        return found[-1] if found else None

    @property
    def batch(self) -> int | None:
        """Rows of the last input."""
        return len(self.inputs[0]) if self.inputs and self.inputs[0].ndim else None

    def lost(self) -> Tensor | None:
        """[B], the rows whose gradient is not finite, of the pass that lost fewest: one lost row
        makes others lost. None: of none."""
        found = []
        for inputs, output in self._made:
            gradient = None if output is None else output.grad
            if gradient is None or not inputs or not inputs[0].ndim or not gradient.ndim:
                continue
            bad = by_row(~torch.isfinite(gradient), len(inputs[0]))
            if bad is not None and bool(bad.any()):
                found.append(bad.any(1))
        return min(found, key=lambda each: int(each.sum()), default=None)

    def settle(self) -> None:
        """A backward pass is over: of outputs to which a gradient came nothing else is kept."""
        for k, (inputs, output) in enumerate(self._made):
            if output is not None and output.requires_grad and output.grad is not None:
                arrived = output.detach()
                arrived.grad = output.grad
                self._made[k] = inputs, arrived

    def release(self) -> None:
        """Let go of the last passes: the update is over."""
        self._made.clear()

    def row(self) -> dict[str, Any]:
        """Share of saturated actions since the last row, [da]; nothing where no limit is known."""
        if not self._counts:
            return {}
        saturated, passed, known = torch.stack(self._counts).double().sum(0).cpu().numpy()
        count, self._counts = len(self._counts), []
        known = np.where(known > 0, known, np.nan)
        return {"saturation": saturated / known, "attenuation": passed / known, "watched": count}

    def _count(self, action: Tensor) -> None:
        assert self.limits is not None
        self.actions = action.shape[1]
        centre, edge = (x.to(action) for x in (self.limits.centre, self.limits.edge))
        size = (action - centre).abs_()
        # The derivative of l tanh(x / l) is 1 − (a / l)²; beyond the limit nothing gets through.
        through = (1 - ((1 - NEAR) * size / edge).square_()).clamp_min_(0)
        parts = ((size >= edge).sum(0), through.nansum(0), (~size.isnan()).sum(0))
        self._counts.append(torch.stack([each.double() for each in parts]))


def _tensors(output: Any) -> Iterator[Tensor]:
    """A tensor, or those of a tuple, list or dict; of a distribution none."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        yield from (x for x in output if isinstance(x, Tensor))
    elif isinstance(output, Mapping):
        yield from (x for x in output.values() if isinstance(x, Tensor))


def by_row(values: Tensor, rows: int) -> Tensor | None:
    """[rows, K], whichever axis the batch is: ensembles in one module give [n, B]. None: two axes
    may be it, or none."""
    if values.numel() == rows:
        return values.reshape(rows, 1)
    at = [k for k, size in enumerate(values.shape) if size == rows]
    return values.movedim(at[0], 0).reshape(rows, -1) if len(at) == 1 else None


def passing(x: Tensor) -> bool:
    """Inside torch.func or a trace: a value that must not outlive it."""
    if torch._C._get_tracing_state() is not None:
        return True
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(x))
