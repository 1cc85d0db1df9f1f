"""Warp kernels as a System: a step recorded on a tape, and the tape run backwards.

Kernels compute in float32 (or float64 where they are written for it): next states are rounded to
it, and so is the reward, a function of tensors, so that a step is of one precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradlab import validation
from gradlab.errors import InputError, required
from gradlab.systems.engines.bridge import ROWS, Engine, EngineSystem
from gradlab.systems.function import AliveFunction, from_function
from gradlab.systems.system import System
from gradlab.user_code import running

_WarpStep = Callable[..., None]
_Reward = Callable[[Tensor, Tensor, Tensor], Tensor]
_PRECISIONS = {"float32": torch.float32, "float64": torch.float64}


def from_warp(
    step: _WarpStep,
    state_dim: int,
    action_dim: int,
    reward: _Reward,
    alive: AliveFunction | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    rows: int = ROWS,
) -> System:
    """A System from a function that launches Warp kernels.

    Args:
        step: (state [rows, ds], action [rows, da], next_state [rows, ds]), three two-dimensional
            Warp arrays with gradients, of which it fills the last. Arrays of its own between
            kernels have `requires_grad=True` and are written by every call.
        state_dim: ds.
        action_dim: da.
        reward: of tensors (state [N, ds], action [N, da], next_state [N, ds]) -> [N].
        alive: next_state [N, ds] -> bool [N]; None: every state is alive.
        dtype: of the arrays, "float32" or "float64".
        device: where kernels run, "cpu" or "cuda:0".
        rows: of the arrays; other batches are cut and filled up.

    Raises:
        InputError: Warp is not installed, there is no such device, or an argument is wrong;
            later, `step` fails.
    """
    for name, value in (("step", step), ("reward", reward)):
        validation.function(name, value, "(state, action, next_state)")
    validation.word("dtype", dtype, _PRECISIONS)
    wp = _warp_on(device)
    engine = _engine(wp, step, state_dim, _PRECISIONS[dtype], device, rows)
    system, precision = EngineSystem(engine, state_dim, action_dim, 0, None), _PRECISIONS[dtype]

    def stepped(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        after = system.step(state, action).state
        paid = reward(*(x.to(precision) for x in (state, action, after)))
        return after, paid.to(state.dtype)

    return from_function(stepped, state_dim, action_dim, alive=alive)


def _warp_on(device: str) -> Any:
    """The package, once it is certain that there is the device."""
    wp = required("warp", "warp")
    if not isinstance(device, str) or not wp.is_device_available(device):
        got = validation.shown(device)
        raise InputError(f"device is {got}, which this machine does not have: use 'cpu'")
    return wp


def _engine(
    wp: Any, step: _WarpStep, state_dim: int, precision: torch.dtype, device: str, rows: int
) -> Engine:
    scalar = wp.float32 if precision == torch.float32 else wp.float64

    def array(x: Tensor) -> Any:
        given = x.to(precision).numpy()
        return wp.array(given, dtype=scalar, ndim=2, device=device, requires_grad=True)

    def recorded(inputs: Sequence[Tensor]) -> tuple[Any, list[Any], Any]:
        arrays = [array(x) for x in inputs]
        after = wp.zeros((rows, state_dim), dtype=scalar, device=device, requires_grad=True)
        tape = wp.Tape()
        with running("step"), tape:
            step(*arrays, after)
        return tape, arrays, after

    def values(inputs: list[Tensor]) -> list[Tensor]:
        _, _, after = recorded(inputs)
        unpaid = inputs[0].new_zeros(rows)
        return [torch.from_numpy(after.numpy()).to(inputs[0].dtype), unpaid]

    def pullback(inputs: list[Tensor]) -> list[Tensor]:
        *given, by_state, _ = inputs
        tape, arrays, after = recorded(given)
        tape.backward(grads={after: array(by_state)})
        gradients = [torch.from_numpy(x.grad.numpy().copy()).to(by_state.dtype) for x in arrays]
        tape.zero()  # of arrays between kernels, which the next call shares
        return gradients

    return Engine(values, pullback, None, rows)
