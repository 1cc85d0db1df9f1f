"""A step that another engine computes and differentiates, as a System.

    values      (s, a[, ξ]) → s', r
    pullback    (s, a[, ξ]; λ, ρ) → λᵀ ∂s'/∂z + ρ ∂r/∂z      for every input z, row by row
    jacobians   (s, a[, ξ]) → ∂[s', r]/∂[s, a]               where the engine has forward mode

Engines compile a program per shape. They get blocks of one fixed number of rows, the last one
filled up with its own last row: each function is compiled once, and no value depends on the
batch that a row is in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError
from gradlab.systems.function import AliveFunction, survivors
from gradlab.systems.system import Certificate, Linearization, Transition, check_step, sample_normal

_Block = Callable[[list[Tensor]], Sequence[Tensor]]
ROWS = 256


@dataclass(frozen=True, eq=False)
class Engine:
    """Functions of blocks: every tensor has `rows` rows and no gradient.

    Attributes:
        values: [s, a] or [s, a, ξ] → s' [rows, ds], r [rows].
        pullback: the same inputs, then λ [rows, ds] and ρ [rows] → one gradient per input.
        jacobians: the same inputs → one tensor [rows, ds + 1, ds + da]; None without forward mode.
        rows: size of a block.
    """

    values: _Block
    pullback: _Block
    jacobians: _Block | None
    rows: int


@dataclass(frozen=True, eq=False)
class EngineSystem:
    """See `from_jax` and `from_warp`. Derivatives through `step` are the engine's reverse mode,
    those of `linearize` its forward mode where it has one."""

    differentiable: ClassVar[bool] = True

    engine: Engine
    state_dim: int
    action_dim: int
    noise_dim: int
    alive: AliveFunction | None

    def __post_init__(self) -> None:
        for name, least in (("state_dim", 1), ("action_dim", 1), ("noise_dim", 0)):
            validation.whole(name, getattr(self, name), least)
        validation.whole("rows", self.engine.rows, 1)

    def step(self, state: Tensor, action: Tensor, noise: Tensor | None = None) -> Transition:
        check_step(self, state, action, noise)
        inputs = self._inputs(state, action, noise)
        after, reward = _Values.apply(self.engine, *inputs)  # type: ignore[no-untyped-call]
        return Transition(after, reward, survivors(self.alive, after.detach()))

    def linearize(
        self, state: Tensor, action: Tensor, noise: Tensor | None = None
    ) -> Linearization:
        check_step(self, state, action, noise)
        inputs = [x.detach() for x in self._inputs(state, action, noise)]
        ds = self.state_dim
        if self.engine.jacobians is None:
            J = torch.cat(_reverse(self.engine, inputs)[:2], 2)
        else:
            shape = (ds + 1, ds + self.action_dim)
            (J,) = _by_blocks(self.engine.jacobians, inputs, self.engine.rows, [shape])
        A, B, r_s, r_a = J[:, :-1, :ds], J[:, :-1, ds:], J[:, -1, :ds], J[:, -1, ds:]
        return Linearization(A, B, r_s, r_a, Certificate.exact(state))

    sample_noise = sample_normal

    def _inputs(self, state: Tensor, action: Tensor, noise: Tensor | None) -> list[Tensor]:
        inputs = [state, action]
        if self.noise_dim:
            inputs.append(state.new_zeros(len(state), self.noise_dim) if noise is None else noise)
        return inputs


class _Values(torch.autograd.Function):
    """s', r with the engine's pullback. Rows are independent: vmap adds rows."""

    @staticmethod
    def forward(engine: Engine, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        width = inputs[0].shape[1]
        after, reward = _by_blocks(
            engine.values, [x.detach() for x in inputs], engine.rows, [(width,), ()]
        )
        return after, reward

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.engine = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        if any(torch._C._functorch.is_legacy_batchedtensor(x) for x in cotangents):
            # `torch.autograd.grad(…, is_grads_batched=True)` knows no rule of `vmap` below.
            rows = torch.cat([cotangents[0], cotangents[1][:, None]], 1)[:, None]
            jacobians = _reverse(ctx.engine, list(ctx.saved_tensors))
            return None, *((rows @ J)[:, 0] for J in jacobians)
        inputs = (*ctx.saved_tensors, *cotangents)
        return None, *_Pullback.apply(ctx.engine, *inputs)  # type: ignore[no-untyped-call]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], engine: Engine, *inputs: Tensor) -> Any:
        return _more_rows(_Values, info, in_dims, engine, inputs)


class _Pullback(torch.autograd.Function):
    """Gradients of the inputs; itself without derivative."""

    @staticmethod
    def forward(engine: Engine, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(_pulled_back(engine, [x.detach() for x in inputs]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise InputError(
            "step has no second derivatives through another engine: differentiate it once"
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], engine: Engine, *inputs: Tensor) -> Any:
        return _more_rows(_Pullback, info, in_dims, engine, inputs)


def _more_rows(
    function: Any, info: Any, in_dims: tuple[int | None, ...], engine: Engine, inputs: Any
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """vmap's axis as further rows. [b, N, …] → [b N, …] and back."""
    b = info.batch_size
    widened = [
        x.expand(b, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(inputs, in_dims[1:], strict=True)
    ]
    out = function.apply(engine, *(x.flatten(0, 1) for x in widened))
    return tuple(y.unflatten(0, (b, -1)) for y in out), (0,) * len(out)


def _pulled_back(engine: Engine, inputs: list[Tensor]) -> list[Tensor]:
    shapes = [tuple(x.shape[1:]) for x in inputs[:-2]]
    return _by_blocks(engine.pullback, inputs, engine.rows, shapes)


def _reverse(engine: Engine, inputs: list[Tensor]) -> list[Tensor]:
    """∂[s', r]/∂z [N, ds + 1, dim z] of every input z: one pullback per output, of all rows at
    once, since they do not depend on one another."""
    n, outputs = len(inputs[0]), inputs[0].shape[1] + 1
    rows = [x.repeat(outputs, 1) for x in inputs]
    basis = torch.eye(outputs).to(inputs[0]).repeat_interleave(n, 0)
    gradients = _pulled_back(engine, [*rows, basis[:, :-1], basis[:, -1]])
    return [g.reshape(outputs, n, g.shape[1]).transpose(0, 1) for g in gradients]


def _by_blocks(
    function: _Block, inputs: list[Tensor], rows: int, shapes: list[tuple[int, ...]]
) -> list[Tensor]:
    """`function` of blocks of exactly `rows` rows; outputs [N, *shape], copies of the engine's."""
    n = len(inputs[0])
    out = [inputs[0].new_empty(n, *shape) for shape in shapes]
    for first in range(0, n, rows):
        here = slice(first, min(first + rows, n))
        last, missing = slice(here.stop - 1, here.stop), rows - (here.stop - first)
        block = [
            torch.cat([x[here], x[last].expand(missing, *x.shape[1:])])
            if missing
            else x[here].contiguous()
            for x in inputs
        ]
        for whole, part in zip(out, function(block), strict=True):
            whole[here] = part[: here.stop - first]
    return out
