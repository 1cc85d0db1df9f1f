"""Tags: which values depend on θ, with a gradient or without, and where a gradient was cut.

    an argument has a gradient in θ, the result too      the result is alive
    an argument has one, the result has not              the result is cut, here
    arguments are cut, all of them                       the result is cut, there

Every call of a torch function hands tags on, so that a sampled, rounded or detached action is known
wherever it goes: autograd has no trace of a value without a gradient.
"""

from __future__ import annotations

import copy
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import BuiltinFunctionType, FrameType, FunctionType, MethodType, ModuleType
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer
from torch.overrides import TorchFunctionMode

_DEPTH = 5  # containers inside containers
# What holds tensors, but is no value that is handed on.
_WHOLE = (
    nn.Module, Optimizer, type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, str,
    bytes, int, float, complex,
)  # fmt: skip


def tensors(value: object, depth: int = _DEPTH) -> Iterator[Tensor]:
    """Every tensor inside, in order."""
    if isinstance(value, Tensor):
        yield value
    elif depth and not isinstance(value, _WHOLE):
        for part in _parts(value):
            yield from tensors(part, depth - 1)


def mapped(value: Any, change: Callable[[Tensor], Tensor], depth: int = _DEPTH) -> Any:
    """The same structure with changed tensors; what holds none that changed is the object itself.

    A tensor that stands in two places is changed once.
    """
    return _mapped(value, change, {}, depth)


def _mapped(
    value: Any, change: Callable[[Tensor], Tensor], done: dict[int, Tensor], depth: int
) -> Any:
    if isinstance(value, Tensor):
        if id(value) not in done:
            done[id(value)] = change(value)
        return done[id(value)]
    if not depth or isinstance(value, _WHOLE):
        return value
    old = _parts(value)
    new = [_mapped(part, change, done, depth - 1) for part in old]
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


def _parts(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    return list(vars(value).values()) if hasattr(value, "__dict__") else []


_How = Literal["sampled", "discrete", "detached", "no_grad"]

# These have the derivative zero in autograd, where they have one.
_SAMPLING = frozenset({"normal", "multinomial", "bernoulli", "poisson", "binomial"})
_STEPWISE = frozenset(
    {"round", "floor", "ceil", "trunc", "sign", "sgn", "heaviside", "argmax", "argmin", "one_hot"}
)
_WITHOUT_DERIVATIVE = _SAMPLING | _STEPWISE

_TORCH = str(Path(torch.__file__).parent)
_OTHERS = (_TORCH, str(Path(__file__).parents[2]), sysconfig.get_path("stdlib"), "<")
_CALLS = str(Path(__file__).parent / "calls.py")
_PACKAGES = sysconfig.get_path("purelib")
_DISTRIBUTIONS = str(Path(_TORCH) / "distributions")


@dataclass(frozen=True)
class GradientCut:
    """One place.

    Attributes:
        what: the call, as "Normal.sample", "argmax", "detach".
        place: "loss.py, line 12", or "" where the line is not known.
    """

    how: _How
    what: str
    place: str

    @property
    def where(self) -> str:
        """As in "Normal.sample, loss.py, line 12"."""
        return f"{self.what}, {self.place}" if self.place else self.what


def _name_of(function: Callable[..., Any]) -> str:
    """The name of a torch function; of a tensor's attribute, the attribute's."""
    name = getattr(function, "__name__", "")
    if name != "__get__":
        return name.removesuffix("_") if not name.startswith("__") else name
    return getattr(getattr(function, "__self__", None), "__name__", name)


def _cut_by(function: Callable[..., Any], floating: bool) -> GradientCut:
    """The cut that a call of a torch function has just made, on the stack of its caller.
    `floating`: the result has a floating type."""
    name, frames = _name_of(function), [*_frames()]
    place = next(map(_place, filter(_users, frames)), "")
    drawn = [
        frame
        for frame in frames
        if frame.f_code.co_name in ("sample", "sample_n")
        and frame.f_code.co_filename.startswith(_DISTRIBUTIONS)
        and isinstance(frame.f_locals.get("self"), Distribution)
    ]
    if drawn:
        distribution = drawn[-1].f_locals.get("self")
        return GradientCut("sampled", f"{type(distribution).__name__}.sample", place)
    if name in _SAMPLING:
        return GradientCut("sampled", f"torch.{name}", place)
    if name in _STEPWISE or not floating:
        return GradientCut("discrete", name, place)
    if name in ("detach", "data"):
        return GradientCut("detached", name, place)
    if torch.is_grad_enabled():
        return GradientCut("discrete", name, place)
    # Gradients are off around the call of the actor, not in the line of its last layer.
    calls = [k for k, frame in enumerate(frames) if frame.f_code.co_filename == _CALLS]
    outside = frames[calls[-1] :] if calls else frames
    return GradientCut(
        "no_grad", "torch.no_grad", next(map(_place, filter(_users, outside)), place)
    )


def user_place() -> str:
    """The line of the user's code that is being run, "loss.py, line 12", or ""."""
    return next(map(_place, filter(_users, _frames())), "")


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _users(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    # An installed package may lie below the folder of the standard library.
    inside = file.startswith(_PACKAGES) and not file.startswith(_OTHERS[:2])
    return inside or not file.startswith(_OTHERS)


def _place(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name}, line {frame.f_lineno}"


# Results that have the values of their first argument alone.
_OF_FIRST = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})
_NUMPY = frozenset({"numpy", "__array__"})
_JOINS = frozenset({"cat", "concat", "concatenate", "hstack"})
_CHOICES = frozenset({"gather", "index_select", "take_along_dim", "take", "__getitem__"})


@dataclass(frozen=True)
class Tag:
    """
    Attributes:
        cut: where the gradient was lost; None: it is alive.
        modelled: the value has gone through the model since an actor gave it: a state.
    """

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
        self.cut = False  # whether a value of θ was detached, sampled or made discrete
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

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = _name_of(func), kwargs or {}
        if name in _NUMPY and args[0].requires_grad:
            args = (args[0].detach(), *args[1:])  # the audit's own leaf: the user's has no graph
        if name in _JOINS:
            args = self._joined(args)
        result = func(*args, **kwargs)
        self.cut |= name == "gumbel_softmax" and bool(kwargs.get("hard"))
        if name.endswith("_like") or name.startswith("new_"):
            return result
        sources = args[:1] if name in _OF_FIRST else (*args, *kwargs.values())
        given = [tag for x in tensors(sources, depth=2) if (tag := self.of(x)) is not None]
        if not given:
            return result
        # A custom derivative computes without gradients, too, but what it gives has one.
        outside = torch.is_grad_enabled()
        self.cut |= outside and any(tag.cut and tag.cut.how == "no_grad" for tag in given)
        for x in tensors(args[0] if name == "__setitem__" else result, depth=1):
            self.hand_on(given, x, func)
        # What a discrete action chooses among values: Q(s, ·)[a], an embedding.
        if name not in _CHOICES and name != "embedding":
            return result
        index, values = (args[0], args[1:]) if name == "embedding" else (args[1:], args[:1])
        indices = [tag for x in tensors(index, depth=2) if (tag := self.of(x)) is not None]
        cuts = [tag.cut for tag in indices if tag.cut is not None]
        alive = any(self._alive(x) for x in tensors(values, depth=2))
        usable = isinstance(result, Tensor) and result.is_floating_point()
        if not cuts or alive or not usable or not torch.is_grad_enabled():
            return result
        return self._keep(result, Tag(cuts[0]), False)

    def hand_on(self, given: Sequence[Tag], x: Tensor, function: Callable[..., Any]) -> None:
        """Tag a result of arguments with these tags."""
        if x.dtype is torch.bool:  # a mask, as of termination
            return
        modelled = any(tag.modelled for tag in given)
        alive = any(tag.cut is None for tag in given)
        if alive and x.requires_grad and _name_of(function) not in _WITHOUT_DERIVATIVE:
            self.put(x, Tag(None, modelled))
        elif alive:
            cut = _cut_by(function, x.is_floating_point())
            # A custom derivative computes without gradients, too.
            self.cut |= cut.how == "sampled" or torch.is_grad_enabled()
            self.put(x, Tag(cut, modelled))
        else:
            self.put(x, Tag(given[0].cut, modelled))

    def _joined(self, args: Sequence[Any]) -> Sequence[Any]:
        """The parts of a cat([s, a]): beside a live state, a cut action would pass as alive."""
        if not args or not isinstance(args[0], tuple | list) or not torch.is_grad_enabled():
            return args
        if not any(map(self._alive, args[0])):
            return args
        parts = []
        for x in args[0]:
            tag = self.of(x)
            cut = tag is not None and tag.cut is not None and x.is_floating_point()
            parts.append(self._keep(x, tag, True) if tag is not None and cut else x)
        return (parts, *args[1:])

    def _alive(self, x: Tensor) -> bool:
        tag = self.of(x)
        return tag is not None and tag.cut is None
