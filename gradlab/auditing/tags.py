"""Tags: which values depend on θ, with a gradient or without.

Every call of a torch function hands tags from its arguments to its results:

    an argument has a gradient in θ, the result too      the result is alive
    an argument has one, the result has not              the result is cut, here (`cuts`)
    arguments are cut, all of them                       the result is cut, there

So a sampled, rounded or detached action is known wherever it goes. Autograd alone cannot do that:
it has no trace of a value without a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gradlab.auditing.containers import tensors
from gradlab.auditing.cuts import WITHOUT_DERIVATIVE, Cut, cut_by, name_of

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

    cut: Cut | None = None
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

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        name, kwargs = name_of(func), kwargs or {}
        if name in _NUMPY and args[0].requires_grad:
            args = (args[0].detach(), *args[1:])  # the audit's own leaf: the user's has no graph
        if name in _JOINS:
            args = self._joined(args)
        result = func(*args, **kwargs)
        if name.endswith("_like") or name.startswith("new_"):
            return result
        sources = args[:1] if name in _OF_FIRST else (*args, *kwargs.values())
        given = [tag for x in tensors(sources, depth=2) if (tag := self.of(x)) is not None]
        if not given:
            return result
        for x in tensors(args[0] if name == "__setitem__" else result, depth=1):
            self.hand_on(given, x, func)
        return self._chosen(name, args, result)

    def hand_on(self, given: Sequence[Tag], x: Tensor, function: Callable[..., Any]) -> None:
        """Tag a result of arguments with these tags."""
        if x.dtype is torch.bool:  # a mask, as of termination
            return
        modelled = any(tag.modelled for tag in given)
        alive = any(tag.cut is None for tag in given)
        if alive and x.requires_grad and name_of(function) not in WITHOUT_DERIVATIVE:
            self.put(x, Tag(None, modelled))
        elif alive:
            self.put(x, Tag(cut_by(function, x.is_floating_point()), modelled))
        else:
            self.put(x, Tag(given[0].cut, modelled))

    def _chosen(self, name: str, args: Sequence[Any], result: Any) -> Any:
        """What a discrete action chooses among values: Q(s, ·)[a], an embedding."""
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
