"""The end of a backward pass, detected without a line in the loop.

    forward pass → a hook on its output's gradient → the engine's callback when all gradients are in

Trainers clip gradients before the optimiser steps, so that a step hook comes too late to see them
as they were. Here the gradient is as the pass left it, as with `with probe(step)`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from gradlab.probe.isolation import warn
from gradlab.probe.policy_calls import inert, passing


def after_backward(module: nn.Module, callback: Callable[[], None]) -> RemovableHandle:
    """Calls `callback` after every backward pass through the module's output, until it fails."""
    return module.register_forward_hook(_Passes(callback))


@final
class _Passes:
    """The forward hook. Copies and pickles of the module get an inert one."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback, self.off = callback, False

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.off or torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return
        self._attempt(self._listen, output)

    def __deepcopy__(self, memo: object) -> Any:
        return inert

    def __reduce__(self) -> tuple[Any, ...]:
        return copy.copy, (inert,)

    def _listen(self, output: Any) -> None:
        answer = output[0] if isinstance(output, tuple) and output else output
        if isinstance(answer, Tensor) and answer.requires_grad and not passing(answer):
            answer.register_hook(self._begun)  # type: ignore[no-untyped-call]

    def _begun(self, gradient: Tensor) -> None:
        engine: Any = torch.autograd.Variable._execution_engine
        self._attempt(engine.queue_callback, self._over)

    def _over(self) -> None:
        self._attempt(self.callback)

    def _attempt(self, work: Callable[..., Any], *given: Any) -> None:
        try:
            work(*given)
        except Exception as error:  # in the middle of the user's passes
            if not self.off:
                warn("marks no more backward passes", error)
            self.off = True
