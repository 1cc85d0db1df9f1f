"""Tensors inside of what a function takes or returns: tuples, dicts, distributions, any object."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

DEPTH = 5  # containers inside containers
# What holds tensors, but is no value that is handed on.
_WHOLE = (
    nn.Module, Optimizer, type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, str,
    bytes, int, float, complex,
)  # fmt: skip


def tensors(value: object, depth: int = DEPTH) -> Iterator[Tensor]:
    """Every tensor inside, in order."""
    if isinstance(value, Tensor):
        yield value
    elif depth and not isinstance(value, _WHOLE):
        for part in _parts(value):
            yield from tensors(part, depth - 1)


def mapped(value: Any, change: Callable[[Tensor], Tensor], depth: int = DEPTH) -> Any:
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
    return _rebuilt(value, new)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return list(value)
    if isinstance(value, Mapping):
        return list(value.values())
    return list(vars(value).values()) if hasattr(value, "__dict__") else []


def _rebuilt(value: Any, parts: list[Any]) -> Any:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*parts)
    if isinstance(value, tuple | list):
        return type(value)(parts)
    if isinstance(value, Mapping):
        result: Any = copy.copy(value)
        # keys(), because iterating over a TensorDict gives rows.
        for name, part in zip(list(value.keys()), parts, strict=True):
            result[name] = part
        return result
    # Not copy, which a __getattr__ that delegates sends in circles; not setattr, which frozen
    # dataclasses refuse.
    result = object.__new__(type(value))
    vars(result).update(zip(vars(value), parts, strict=True))
    return result
