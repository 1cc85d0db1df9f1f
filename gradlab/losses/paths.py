"""Where an actor's gradient comes from, and in which line it is lost.

    ∂L/∂θ = Σ over paths from θ to L

Calls of actor, model and critic are seen from outside, by replacing methods of their classes. Their
inputs and outputs stand behind gates: closed, no gradient passes, so that paths are told apart. A
value without a gradient leaves no trace in autograd, so tags follow every torch function:

    an argument has a gradient in θ, the result too      the result is alive
    an argument has one, the result has not              the result is cut, here
    arguments are cut, all of them                       the result is cut, there
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, Literal, final
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

from gradlab.losses.finite import place, stack

_DEPTH = 5  # containers inside containers
# What holds tensors, but is no value that is handed on.
_WHOLE = (
    nn.Module, Optimizer, type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, str,
    bytes, int, float, complex,
)  # fmt: skip


def _parts(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    return list(vars(value).values()) if hasattr(value, "__dict__") else []


def tensors(value: object, depth: int = _DEPTH) -> Iterator[Tensor]:
    """Every tensor inside, in order."""
    if isinstance(value, Tensor):
        yield value
    elif depth and not isinstance(value, _WHOLE):
        for part in _parts(value):
            yield from tensors(part, depth - 1)


def mapped(
    value: Any,
    change: Callable[[Tensor], Tensor],
    depth: int = _DEPTH,
    done: dict[int, Tensor] | None = None,
) -> Any:
    """The same structure with changed tensors, each once; what holds none that changed is the
    object itself."""
    done = {} if done is None else done
    if isinstance(value, Tensor):
        if id(value) not in done:
            done[id(value)] = change(value)
        return done[id(value)]
    if not depth or isinstance(value, _WHOLE):
        return value
    old = _parts(value)
    new = [mapped(part, change, depth - 1, done) for part in old]
    if all(one is other for one, other in zip(old, new, strict=True)):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*new)
    if isinstance(value, tuple | list):
        return type(value)(new)
    if isinstance(value, Mapping):
        result: Any = copy.copy(value)
        # keys(), because iterating over a TensorDict gives rows.
        for name, part in zip(list(value.keys()), new, strict=True):
            result[name] = part
        return result
    # Not copy, which a __getattr__ that delegates sends in circles; not setattr, which frozen
    # dataclasses refuse.
    result = object.__new__(type(value))
    vars(result).update(zip(vars(value), new, strict=True))
    return result


# These have the derivative zero in autograd, where they have one.
_SAMPLING = frozenset({"normal", "multinomial", "bernoulli", "poisson", "binomial"})
_STEPWISE = frozenset(
    {"round", "floor", "ceil", "trunc", "sign", "sgn", "heaviside", "argmax", "argmin", "one_hot"}
)
_DISTRIBUTIONS = str(Path(torch.__file__).parent / "distributions")


@dataclass(frozen=True)
class GradientCut:
    """One place: `what` the call was, "Normal.sample", `place`, "loss.py, line 12", or ""."""

    how: Literal["sampled", "discrete", "detached", "no_grad"]
    what: str
    place: str

    @property
    def where(self) -> str:
        return f"{self.what}, {self.place}" if self.place else self.what


def _name_of(function: Callable[..., Any]) -> str:
    """The name of a torch function; of a tensor's attribute, the attribute's."""
    name = getattr(function, "__name__", "")
    if name != "__get__":
        return name.removesuffix("_") if not name.startswith("__") else name
    return getattr(getattr(function, "__self__", None), "__name__", name)


def _cut_by(function: Callable[..., Any], floating: bool) -> GradientCut:
    """The cut that a call of a torch function has just made. `floating`: of its result's type."""
    name, frames = _name_of(function), [*stack()]
    here = place(frames)
    drawn = [
        frame.f_locals["self"]
        for frame in frames
        if frame.f_code.co_name in ("sample", "sample_n")
        and frame.f_code.co_filename.startswith(_DISTRIBUTIONS)
        and isinstance(frame.f_locals.get("self"), Distribution)
    ]
    if drawn:
        return GradientCut("sampled", f"{type(drawn[-1]).__name__}.sample", here)
    if name in _SAMPLING:
        return GradientCut("sampled", f"torch.{name}", here)
    if name in ("detach", "data"):
        return GradientCut("detached", name, here)
    if name in _STEPWISE or not floating or torch.is_grad_enabled():
        return GradientCut("discrete", name, here)
    # Gradients are off around the call of the actor, not in the line of its last layer.
    calls = [k for k, frame in enumerate(frames) if frame.f_code is Watching.called.__code__]
    outside = frames[calls[-1] :] if calls else frames
    return GradientCut("no_grad", "torch.no_grad", place(outside) or here)


# Results that have the values of their first argument alone.
_OF_FIRST = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})
_JOINS = frozenset({"cat", "concat", "concatenate", "hstack"})
_CHOICES = frozenset({"gather", "index_select", "take_along_dim", "take", "__getitem__"})


@dataclass(frozen=True)
class Tag:
    """`cut`: where the gradient was lost; None: it is alive. `modelled`: the value has gone through
    the model since an actor gave it: a state."""

    cut: GradientCut | None = None
    modelled: bool = False


@final
class Tags(TorchFunctionMode):
    """While active, tags follow every call of a torch function."""

    def __init__(
        self, parameters: Iterable[Tensor], keep: Callable[[Tensor, Tag, bool], Tensor]
    ) -> None:
        """
        Args:
            keep: takes a cut value that a tag alone would hide, its tag, and whether it stands
                beside what is alive; returns what is to stand for it.
        """
        super().__init__()
        # The tensor itself is kept, so that no other gets its id.
        self._tags: dict[int, tuple[Tensor, Tag, bool]] = {}
        self._keep = keep
        for parameter in parameters:
            self.put(parameter, Tag())

    def of(self, x: Tensor) -> Tag | None:
        """The tag; None: x does not depend on θ, as far as can be seen."""
        if id(x) not in self._tags:
            return None
        _, tag, had_gradient = self._tags[id(x)]
        # A custom derivative computes without gradients, and its result gets one afterwards.
        return Tag(None, tag.modelled) if x.requires_grad and not had_gradient else tag

    def put(self, x: Tensor, tag: Tag) -> None:
        self._tags[id(x)] = (x, tag, x.requires_grad)

    def all_of(self, values: object, depth: int = 2) -> list[Tag]:
        return [tag for x in tensors(values, depth) if (tag := self.of(x)) is not None]

    def _alive(self, x: Tensor) -> bool:
        tag = self.of(x)
        return tag is not None and tag.cut is None

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs, on = _name_of(func), kwargs or {}, torch.is_grad_enabled()
        if name in ("numpy", "__array__") and args[0].requires_grad:
            args = (args[0].detach(), *args[1:])  # a leaf of ours: the user's has no graph
        if name in _JOINS and args and isinstance(args[0], tuple | list) and on:
            args = (self._joined(args[0]), *args[1:])
        result = func(*args, **kwargs)
        if name.endswith("_like") or name.startswith("new_"):
            return result
        given = self.all_of(args[:1] if name in _OF_FIRST else (*args, *kwargs.values()))
        if not given:
            return result
        for x in tensors(args[0] if name == "__setitem__" else result, depth=1):
            if x.dtype is not torch.bool:  # no mask, as of termination
                self._hand_on(given, x, func)
        # What a discrete action chooses among values: Q(s, ·)[a], an embedding.
        if name not in _CHOICES and name != "embedding":
            return result
        index, values = (args[0], args[1:]) if name == "embedding" else (args[1:], args[:1])
        cuts = [tag.cut for tag in self.all_of(index) if tag.cut is not None]
        alive = any(self._alive(x) for x in tensors(values, depth=2))
        usable = isinstance(result, Tensor) and result.is_floating_point()
        return self._keep(result, Tag(cuts[0]), False) if cuts and usable and on > alive else result

    def _hand_on(self, given: Sequence[Tag], x: Tensor, function: Callable[..., Any]) -> None:
        modelled = any(tag.modelled for tag in given)
        if all(tag.cut is not None for tag in given):
            self.put(x, Tag(given[0].cut, modelled))
        elif x.requires_grad and _name_of(function) not in _SAMPLING | _STEPWISE:
            self.put(x, Tag(None, modelled))
        else:
            self.put(x, Tag(_cut_by(function, x.is_floating_point()), modelled))

    def _joined(self, parts: Sequence[Any]) -> Sequence[Any]:
        """Of a cat([s, a]): beside a live state, a cut action would pass as alive."""
        if not any(map(self._alive, parts)):
            return parts
        made = []
        for x in parts:
            tag = self.of(x)
            lost = tag is not None and tag.cut is not None and x.is_floating_point()
            made.append(self._keep(x, tag, True) if tag is not None and lost else x)
        return made


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


@final
class _Gated(torch.autograd.Function):
    """A copy, so that an alias of x elsewhere is another path."""

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


def _gated(x: Tensor, gate: _Gate) -> Tensor:
    result: Tensor = _Gated.apply(x, gate)  # type: ignore[no-untyped-call]
    return result


Role = Literal["actor", "model", "critic"]
JUDGES: tuple[Role, ...] = ("model", "critic")
_RAISED = 1.01  # times values, to see what moves with them


@dataclass(frozen=True)
class Lost:
    """A value with a cut that arrives where the loss could move with it.

    Attributes:
        role: which role it enters; None: it was chosen by a discrete action, or joined with what
            has a gradient. beside: another input of the same call has a gradient in θ.
    """

    role: Role | None
    cut: GradientCut
    modelled: bool
    value: Tensor
    beside: bool = False


@dataclass(frozen=True)
class Output:
    """One tensor that a role has returned, before its gate."""

    role: Role
    value: Tensor


@dataclass(frozen=True)
class Density:
    """A log-density in the graph; `action`: its tag, None where it does not depend on θ."""

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
    called: set[Role] = field(default_factory=set)
    widths: set[int] = field(default_factory=set)  # of what the actor returns


@final
class Watching:
    """Calls of watched objects, as a context around one evaluation of the loss."""

    def __init__(
        self, owners: Mapping[int, Role], parameters: Sequence[Tensor], raised: Role | None
    ) -> None:
        """
        Args:
            owners: roles by the id of each object, submodules included.
            parameters: θ.
            raised: model or critic, whose values of what depends on θ are larger than they are.
        """
        roles = dict.fromkeys(owners.values())
        self.calls = LossCalls(
            inlets={role: _Gate() for role in roles}, outlets={role: _Gate() for role in roles}
        )
        self.tags = Tags(parameters, self._kept)
        self._owners, self._raised = owners, raised
        self._stack: list[Role] = []
        self._inside = 0  # log_probs, one of which may call another's

    @contextmanager
    def over(self, objects: Sequence[object]) -> Iterator[None]:
        """Inside, calls of these objects are seen."""
        with ExitStack() as stack:
            classes = dict.fromkeys(cls for item in objects for cls in type(item).__mro__)
            for cls in classes:
                foreign = cls.__module__.split(".")[0] in ("torch", "typing", "abc", "builtins")
                for name, function in [] if foreign else list(vars(cls).items()):
                    hidden = name.startswith("__") and name != "__call__"
                    if isinstance(function, FunctionType) and not hidden:
                        stack.enter_context(patch.object(cls, name, self._seen(function)))
            called = self._seen(nn.Module.__call__)
            stack.enter_context(patch.object(nn.Module, "__call__", called))
            kinds = [Distribution]
            for kind in kinds:
                kinds += [each for each in kind.__subclasses__() if each not in kinds]
                if "log_prob" in vars(kind):
                    dense = self._dense(kind.log_prob)
                    stack.enter_context(patch.object(kind, "log_prob", dense))
            stack.enter_context(self.tags)
            yield

    def _seen(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(this: Any, *args: Any, **kwargs: Any) -> Any:
            role = self._owners.get(id(this))
            if role is None:
                return function(this, *args, **kwargs)
            return self.called(role, functools.partial(function, this), args, kwargs)

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
                self.calls.densities.append(Density(result, self.tags.of(value), place()))
            return result

        return log_prob

    def called(
        self, role: Role, function: Callable[..., Any], args: Sequence[Any], kwargs: Any
    ) -> Any:
        outermost, given = role not in self._stack, self.tags.all_of((args, kwargs), _DEPTH)
        alive = any(tag.cut is None for tag in given)
        enter = functools.partial(self._entering, role, outermost, alive)
        args, kwargs = mapped((args, kwargs), enter)
        self._stack.append(role)
        try:
            result = function(*args, **kwargs)
        finally:
            self._stack.pop()
        if outermost:
            if given and role == self._raised:
                result = mapped(result, lambda x: x * _RAISED if x.is_floating_point() else x)
            self.calls.called.add(role)
            result = mapped(result, lambda x: self._leaving(x, role))
        for x in tensors(result):
            # Results also of code that torch functions do not show: extensions, custom derivatives.
            tag = self.tags.of(x)
            if role == "actor":
                self.calls.widths |= {x.shape[-1]} if x.ndim else set()
                tag = Tag() if tag is None and x.requires_grad else tag
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
        if role != "actor" and tag is not None and tag.cut is not None and not _transformed():
            value = _gated(_leaf(x), self.calls.inlets[role])
            self.calls.lost.append(Lost(role, tag.cut, tag.modelled, value, alive))
            return value
        if not outermost or not x.requires_grad:
            return x
        entered = _gated(x, self.calls.inlets[role])
        if tag is not None:
            self.tags.put(entered, tag)
        return entered

    def _leaving(self, x: Tensor, role: Role) -> Tensor:
        """The result behind its gate; of model and critic also one that has no gradient: its
        weight in the loss is wanted."""
        tag = self.tags.of(x)
        if not torch.is_grad_enabled() or not x.is_floating_point():
            return x
        if role == "actor" and not x.requires_grad:
            return x
        if _transformed():
            return _gated(x, self.calls.outlets[role])
        value = _leaf(x)
        self.calls.outputs.append(Output(role, value))
        left = _gated(value, self.calls.outlets[role])
        if tag is not None:
            self.tags.put(left, tag)
        return left

    def _kept(self, x: Tensor, tag: Tag, beside: bool) -> Tensor:
        """A value with a cut outside of every role, as it goes on."""
        assert tag.cut is not None
        if _transformed():
            return x
        value = _gated(_leaf(x), _Gate())
        self.calls.lost.append(Lost(None, tag.cut, tag.modelled, value, beside))
        self.tags.put(value, tag)
        return value


def _leaf(x: Tensor) -> Tensor:
    """x itself if it has a gradient, else a leaf of its value."""
    return x if x.requires_grad else x.detach().clone().requires_grad_()


def _transformed() -> bool:
    """Inside `torch.func`, whose values do not outlive the transform."""
    return torch._C._functorch.peek_interpreter_stack() is not None
