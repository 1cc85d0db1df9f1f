"""Test that a function treats the rows of a batch independently: row 0 beside two neighbours.

A batch mean, a softmax over dim 0 or batch statistics make a row's result depend on the others:
then a gradient "per sample" belongs to no sample, and every variance is wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gradlab.errors import InputError

MOVE = 0.01  # of the neighbour: far beyond rounding, and hardly out of its range
ROUNDING = 1e4  # units of machine epsilon, relative to the largest output


def check_rows(name: str, function: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Refuse a function whose first row changes with the second.

    Args:
        function: of tensors with N rows each, to one tensor with N rows; what it makes of rows out
            of its range, or at random, is not tested here.
        inputs: at least 2 rows each, or nothing is tried.

    Raises:
        InputError: names the function and the usual causes.
    """
    pair = [x[:2] for x in inputs]
    if len(pair[0]) < 2:
        return
    moved = [torch.cat([x[:1], x[1:] * (1 + MOVE) + MOVE]) for x in pair]
    try:
        with torch.no_grad():
            alone, again, other = (_first(function, one) for one in (pair, pair, moved))
    except (RuntimeError, ValueError, ArithmeticError, IndexError, InputError):
        return
    if torch.equal(alone, again) and not _same(alone, other):
        raise InputError(
            f"{name} mixes the rows of a batch: the first row's result changes with the second "
            f"row. Every row must depend on its own inputs only; look for a mean or softmax over "
            f"dim 0, batch statistics, or a reshape"
        )


def _first(function: Callable[..., Tensor], inputs: list[Tensor]) -> Tensor:
    return function(*(x.clone() for x in inputs))[0].nan_to_num()


def _same(one: Tensor, other: Tensor) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    size = max(float(one.abs().max()), float(other.abs().max())) if one.numel() else 0.0
    return float((one - other).abs().max()) <= ROUNDING * torch.finfo(one.dtype).eps * size
