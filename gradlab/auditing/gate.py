"""Gates in a graph: the identity forwards; backwards a gradient passes while the gate is open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor


@final
class Gate:
    """Open or closed for the backward passes to come."""

    def __init__(self) -> None:
        self.open = True


@contextmanager
def closed(*gates: Gate) -> Iterator[None]:
    """Inside, no gradient passes any of the gates."""
    before = [gate.open for gate in gates]
    try:
        for gate in gates:
            gate.open = False
        yield
    finally:
        for gate, was in zip(gates, before, strict=True):
            gate.open = was


def gated(x: Tensor, gate: Gate) -> Tensor:
    """x behind the gate: a copy, so that an alias of x elsewhere is another path."""
    result: Tensor = _Gated.apply(x, gate)  # type: ignore[no-untyped-call]
    return result


@final
class _Gated(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, gate: Gate) -> Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.gate = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None]:
        # None, not zeros: 0 · ∞ further back would be NaN.
        return (gradients[0] if ctx.gate.open else None), None
