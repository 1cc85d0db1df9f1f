"""What a loop gave its policy and its critics, and the gradients that its losses sent back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn

from gradlab.probe.critics import by_row
from gradlab.probe.isolation import copied, unwrapped

if TYPE_CHECKING:
    from gradlab.probe.parts.recorder import Ring

ROWS = 64  # of the batch
_OF_MODULES = frozenset(vars(nn.Module()))
_FIXED = (bool, int, float, str, type(None), type, FunctionType, BuiltinFunctionType, torch.dtype)


@dataclass
class PolicyCall:
    """One of a module of the policy.

    Attributes:
        loose: an argument has a gradient, by an operation between the policy's modules.
        states: observations, of its first argument, or of that of a module around it which gives
            no tensors, a distribution for example, and may normalise them before.
        arrived: gradients of the loss in its outputs, by their places.
    """

    module: nn.Module
    args: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    loose: bool
    states: Tensor
    arrived: dict[int, Tensor] = field(default_factory=dict)

    def begin_at(self, args: Sequence[Any]) -> None:
        """With the observations of a module around this one, of as many rows."""
        if args and isinstance(args[0], Tensor) and args[0].shape[:1] == self.states.shape[:1]:
            self.states = args[0].detach()

    def flat(self, lead: Sequence[int]) -> PolicyCall:
        """With the axes of a sequence in one, of all tensors that have them."""

        def one(x: Tensor) -> Tensor:
            has = x.shape[: len(lead)] == lead
            return x.flatten(0, len(lead) - 1) if has else x

        args, outputs = (tuple(map(one, each)) for each in (self.args, self.outputs))
        arrived = {k: one(each) for k, each in self.arrived.items()}
        return PolicyCall(self.module, args, outputs, self.loose, one(self.states), arrived)


def joined(calls: Sequence[PolicyCall]) -> PolicyCall:
    """Those of one module to which a loss has sent its gradient, in one; the last, where it has
    sent others nothing."""
    last = calls[-1]

    def alike(call: PolicyCall) -> bool:
        shapes = [
            [x.shape for x in (each.states, *each.args, *each.outputs)] for each in (call, last)
        ]
        return last.arrived.keys() <= call.arrived.keys() and shapes[0] == shapes[1]

    kept = [call for call in calls if alike(call)]
    if len(kept) == 1 or not last.arrived:
        return last
    args, outputs = (
        tuple(map(torch.cat, zip(*each, strict=True)))
        for each in ((call.args for call in kept), (call.outputs for call in kept))
    )
    arrived = {k: torch.cat([call.arrived[k] for call in kept]) for k in last.arrived}
    states = torch.cat([call.states for call in kept])
    return PolicyCall(last.module, args, outputs, last.loose, states, arrived)


@dataclass
class Pass:
    """The actor's last differentiated pass: calls of the policy, or of its parts, one feeding the
    next, and those of the critics after it."""

    calls: list[PolicyCall] = field(default_factory=list)
    values: list[tuple[nn.Module, tuple[Tensor, ...]]] = field(default_factory=list)

    @property
    def states(self) -> Tensor:
        """Observations that the policy was called at."""
        return self.calls[0].states

    @property
    def ends(self) -> list[tuple[PolicyCall, int]]:
        """Outputs that feed no other call."""
        fed = {x.data_ptr() for call in self.calls for x in call.args}
        return [
            (call, k) for call in self.calls for k, x in enumerate(call.outputs)
            if x.data_ptr() not in fed
        ]  # fmt: skip

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return tuple(call.outputs[k] for call, k in self.ends)

    @property
    def arrived(self) -> dict[int, Tensor]:
        """By place among the outputs."""
        found = {n: call.arrived.get(k) for n, (call, k) in enumerate(self.ends)}
        return {n: each for n, each in found.items() if each is not None}

    def in_rows(self, ring: Ring) -> Pass:
        """With every observation in a row of its own, where the policy was called at sequences."""
        states = self.states
        rows = states.flatten(0, -2) if states.ndim > 2 else states
        if ring.fits(states) or not ring.fits(rows):
            return self
        return Pass([each.flat(states.shape[:-1]) for each in self.calls], self.values)

    def again(self, twin: Mapping[nn.Module, nn.Module]) -> tuple[Tensor, ...]:
        """Outputs of the same calls by copies of the modules, of the first rows."""
        made: dict[int, Tensor] = {}
        with torch.no_grad():
            for call in self.calls:
                args = (made.get(x.data_ptr(), x[:ROWS]) for x in call.args)
                outputs = several(twin[call.module](*args))
                made |= {x.data_ptr(): y for x, y in zip(call.outputs, outputs, strict=True)}
        return tuple(made[x.data_ptr()] for x in self.outputs)


@dataclass
class Heard:
    """A critic's call with gradients since the last step of any optimiser.

    Attributes:
        own: at what has a gradient, as the policy's actions have.
        arrived: gradients of the loss in its outputs, by their places.
    """

    module: nn.Module
    args: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    own: bool
    arrived: dict[int, Tensor] = field(default_factory=dict)

    def by_row(self) -> Tensor | None:
        """dL/dQ, [B], the sum of all outputs; None: no loss sent one, or rows are not known."""
        rows = [by_row(each, len(self.args[-1])) for each in self.arrived.values()]
        known = [x.sum(1) for x in rows if x is not None]
        return torch.stack(known).sum(0) if known and len(known) == len(rows) else None


@final
class Twin:
    """A copy of a module that takes its values when it is asked for; one that holds what may change
    beside its tensors, as a normaliser that is no module, is copied again."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._copy()
        own = [vars(x) for x in self.copy.modules() if not type(x).__module__.startswith("torch.")]
        held = [each for of in own for name, each in of.items() if name not in _OF_MODULES]
        flat = [x for each in held for x in (each if isinstance(each, tuple) else (each,))]
        self._fixed = all(isinstance(x, _FIXED) for x in flat)

    def _copy(self) -> None:
        self.copy = copied(self.module)
        self.copy.requires_grad_(False)
        inside = zip(unwrapped(self.module).modules(), self.copy.modules(), strict=True)
        self.parts = {self.module: self.copy} | dict(inside)

    def now(self) -> Twin:
        """With the values of this moment."""
        if not self._fixed:
            self._copy()
            return self
        with torch.no_grad():
            torch._foreach_copy_([*self.copy.parameters()], [*self.module.parameters()])
            for mine, its in zip(self.copy.buffers(), self.module.buffers(), strict=True):
                mine.copy_(its)
        return self


def outputs_by_row(module: nn.Module, *args: Tensor) -> list[Tensor] | None:
    """Of a critic, [B, K] each; of two axes as long as the batch, it is the one that follows it
    where that is given twice. None: none does."""
    rows = len(args[-1])
    found = [by_row(x, rows) for x in several(module(*args))]
    if any(x is None for x in found):
        twice = several(module(*(torch.cat([x, x]) for x in args)))
        found = [None if (y := by_row(x, 2 * rows)) is None else y[:rows] for x in twice]
    known = [x for x in found if x is not None]
    return known if len(known) == len(found) else None


def alone(values: Sequence[Any]) -> tuple[Tensor, ...]:
    return tuple(x.detach() for x in values)


def several(output: Any) -> tuple[Any, ...]:
    return output if isinstance(output, tuple) else (output,)


def heard_by(into: dict[int, Tensor], outputs: Sequence[Tensor]) -> None:
    """Keep what a loss will send to these outputs, by their places; a hidden state may have no
    gradient."""

    def keeper(k: int) -> Callable[[Tensor], None]:
        def keep(gradient: Tensor) -> None:
            into[k] = gradient.detach()

        return keep

    for k, each in enumerate(outputs):
        if each.requires_grad:
            each.register_hook(keeper(k))  # type: ignore[no-untyped-call]
