"""Calls of actor, model and critic while a loss is computed.

Methods are replaced in their classes for that time and act on the watched objects alone. At the
outermost call of a role its inputs stand behind a gate (closed, what comes back is the outputs'
direct weight in the loss) and its outputs behind another (closed, no path leads through the role).
A gate is the identity forwards; backwards a gradient passes while it is open. An input of model or
critic that depends on θ without a gradient is kept with its cut (`Lost`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any, Literal, final
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from gradlab.tools.audit.tags import Tag, Tags, mapped, tensors, user_place


@final
class _Gate:
    """Open or closed for the backward passes to come."""

    def __init__(self) -> None:
        self.open = True


@contextmanager
def closed(*gates: _Gate) -> Iterator[None]:
    """Inside, no gradient passes any of the gates."""
    before = [gate.open for gate in gates]
    try:
        for gate in gates:
            gate.open = False
        yield
    finally:
        for gate, was in zip(gates, before, strict=True):
            gate.open = was


def _gated(x: Tensor, gate: _Gate) -> Tensor:
    """x behind the gate: a copy, so that an alias of x elsewhere is another path."""
    result: Tensor = _Gated.apply(x, gate)  # type: ignore[no-untyped-call]
    return result


@final
class _Gated(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, gate: _Gate) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.gate = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        # None, not zeros: 0 · ∞ further back would be NaN.
        return (gradients[0] if ctx.gate.open else None), None


Role = Literal["actor", "model", "critic"]
JUDGES: tuple[Role, ...] = ("model", "critic")
_RAISED = 1.01  # times values, to see what moves with them


@dataclass(frozen=True)
class Lost:
    """A value with a cut that arrives where the loss could move with it.

    Attributes:
        role: which role it enters; None: it was chosen by a discrete action, or joined with what
            has a gradient.
        value: in the graph, so that its gradient can be taken.
        beside: another input of the same call has a gradient in θ.
    """

    role: Role | None
    tag: Tag
    value: Tensor
    beside: bool = False


@dataclass(frozen=True)
class Output:
    """One tensor that a role has returned.

    Attributes:
        call: how many calls of the role came before.
        position: among the tensors of that call.
        value: before its gate.
    """

    role: Role
    call: int
    position: int
    value: Tensor


@dataclass(frozen=True)
class Density:
    """A log-density that the loss has computed of an action.

    Attributes:
        value: log π, in the graph.
        action: the tag of the action; None: it does not depend on θ, as one of the batch.
        place: of the call, "loss.py, line 12", or "".
    """

    value: Tensor
    action: Tag | None
    place: str


@dataclass
class LossCalls:
    """What one evaluation of the loss has called."""

    outputs: list[Output] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    densities: list[Density] = field(default_factory=list)
    inlets: dict[Role, _Gate] = field(default_factory=dict)
    outlets: dict[Role, _Gate] = field(default_factory=dict)
    counts: dict[Role, int] = field(default_factory=dict)
    widths: set[int] = field(default_factory=set)  # of what the actor returns

    def of(self, *roles: Role) -> list[Output]:
        return [output for output in self.outputs if output.role in roles]


@final
class Watching:
    """The calls of watched objects, as a context around one evaluation of the loss."""

    def __init__(
        self,
        owners: Mapping[int, Role],
        parameters: Sequence[nn.Parameter],
        raised: Role | None = None,
        shift: tuple[int, Tensor] | None = None,
    ) -> None:
        """
        Args:
            owners: roles by the id of each object, submodules included.
            parameters: θ.
            raised: model or critic, whose values of what depends on θ are larger than they are.
            shift: a call of the actor, and what is added to its first result.
        """
        roles = dict.fromkeys(owners.values())
        self.calls = LossCalls(
            inlets={role: _Gate() for role in roles}, outlets={role: _Gate() for role in roles}
        )
        self.tags = Tags(parameters, self._kept)
        self._owners, self._raised, self._shift = owners, raised, shift
        self._stack: list[Role] = []
        self._inside = 0  # log_probs, one of which may call another's

    @contextmanager
    def over(self, objects: Sequence[object]) -> Iterator[None]:
        """Inside, calls of these objects are seen."""
        with ExitStack() as stack:
            for owner, name, function in _methods(objects):
                stack.enter_context(patch.object(owner, name, self._seen(function)))
            found, left = [], [Distribution]
            while left:
                kind = left.pop()
                left += kind.__subclasses__()
                if "log_prob" in vars(kind) and kind not in found:
                    found.append(kind)
            for owner in found:
                seen = self._dense(owner.log_prob)
                stack.enter_context(patch.object(owner, "log_prob", seen))
            # Compiled modules run as they were written, where their calls can be seen.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(self.tags)
            yield

    def _seen(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(this: Any, *args: Any, **kwargs: Any) -> Any:
            role = self._owners.get(id(this))
            if role is None:
                return function(this, *args, **kwargs)
            return self._call(role, functools.partial(function, this), args, kwargs)

        return call

    def _dense(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def log_prob(this: Distribution, value: Tensor) -> Any:
            self._inside += 1
            try:
                result = function(this, value)
            finally:
                self._inside -= 1
            if not self._inside and isinstance(result, Tensor) and result.requires_grad:
                density = Density(result, self.tags.of(value), user_place())
                self.calls.densities.append(density)
            return result

        return log_prob

    def _call(
        self, role: Role, function: Callable[..., Any], args: Sequence[Any], kwargs: Any
    ) -> Any:
        outermost = role not in self._stack
        given = [tag for x in tensors((args, kwargs)) if (tag := self.tags.of(x)) is not None]
        alive = any(tag.cut is None for tag in given)
        enter = functools.partial(self._entering, role, outermost, alive)
        args, kwargs = mapped((args, kwargs), enter)
        self._stack.append(role)
        try:
            result = function(*args, **kwargs)
        finally:
            self._stack.pop()
        if outermost and given and role == self._raised:
            result = mapped(result, lambda x: x * _RAISED if x.is_floating_point() else x)
        if outermost:
            call = self.calls.counts.get(role, 0)
            self.calls.counts[role] = call + 1
            order = iter(range(10**9))
            if role == "actor" and self._shift is not None and call == self._shift[0]:
                moved = iter([self._shift[1]])
                result = mapped(result, lambda x: x + next(moved, 0.0))
            result = mapped(result, lambda x: self._leaving(x, role, call, next(order)))
        for x in tensors(result):
            # Results also of code that torch functions do not show: extensions, custom derivatives.
            tag = self.tags.of(x)
            if role == "actor" and x.ndim:
                self.calls.widths.add(x.shape[-1])
            if tag is None and role == "actor" and x.requires_grad:
                tag = Tag()
            if tag is None and given and x.is_floating_point():
                live = [source for source in given if source.cut is None]
                tag = live[0] if live and x.requires_grad else given[0]
            if tag is not None and role != "critic":
                self.tags.put(x, Tag(tag.cut, role == "model"))
        return result

    def _entering(self, role: Role, outermost: bool, alive: bool, x: Tensor) -> Tensor:
        tag = self.tags.of(x)
        if not torch.is_grad_enabled() or not x.is_floating_point():
            return x
        lost = tag is not None and tag.cut is not None
        if role != "actor" and tag is not None and lost and not _transformed():
            value = _gated(_leaf(x), self.calls.inlets[role])
            self.calls.lost.append(Lost(role, tag, value, alive))
            return value
        if not outermost or not x.requires_grad:
            return x
        entered = _gated(x, self.calls.inlets[role])
        if tag is not None:
            self.tags.put(entered, tag)
        return entered

    def _leaving(self, x: Tensor, role: Role, call: int, position: int) -> Tensor:
        """The result behind its gate; of model and critic also one that has no gradient: its
        weight in the loss is wanted."""
        judged = role != "actor" or x.requires_grad
        if not judged or not torch.is_grad_enabled() or not x.is_floating_point():
            return x
        if _transformed():
            return _gated(x, self.calls.outlets[role])
        value = _leaf(x)
        self.calls.outputs.append(Output(role, call, position, value))
        left = _gated(value, self.calls.outlets[role])
        tag = self.tags.of(x)
        if tag is not None:
            self.tags.put(left, tag)
        return left

    def _kept(self, x: Tensor, tag: Tag, beside: bool) -> Tensor:
        """A value with a cut outside of every role, as it goes on."""
        value = _gated(_leaf(x), _Gate())
        self.calls.lost.append(Lost(None, tag, value, beside))
        self.tags.put(value, tag)
        return value


def _leaf(x: Tensor) -> Tensor:
    """x itself if it has a gradient, else a leaf of its value."""
    return x if x.requires_grad else x.detach().clone().requires_grad_()


def _transformed() -> bool:
    """Inside `torch.func`, whose values do not outlive the transform."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def _methods(objects: Sequence[object]) -> Iterator[tuple[type, str, Callable[..., Any]]]:
    """Functions of the objects' own classes, and the call of every module."""
    classes = dict.fromkeys(cls for item in objects for cls in type(item).__mro__)
    if nn.Module in classes:
        yield nn.Module, "__call__", nn.Module.__call__
    for cls in classes:
        if cls is object or cls.__module__.split(".")[0] in ("torch", "typing", "abc"):
            continue
        for name, value in list(vars(cls).items()):
            hidden = name.startswith("__") and name != "__call__"
            if isinstance(value, FunctionType) and not hidden:
                yield cls, name, value
