"""Critics of users: a module or a function that returns [N] or [N, 1].

A function is called as it is, on the user's own networks. One that takes a single precision is
called in it; a module, which is copied, is measured in float64.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from gradlab.errors import InputError

CriticLike = nn.Module | Callable[..., Tensor]
_OTHER = {torch.float64: torch.float32, torch.float32: torch.float64}


@final
class FunctionCritic(nn.Module):
    """A function (state, action) → value, or (state) → value, as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self._works: dict[torch.dtype, torch.dtype] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> FunctionCritic:
        return self  # it holds nothing of its own

    def forward(self, *inputs: Tensor) -> Any:
        given = inputs[0].dtype
        if given in self._works:
            return self._in(self._works[given], inputs)
        try:
            value = self.function(*inputs)
        except RuntimeError as error:
            if "dtype" not in str(error) or given not in _OTHER:
                raise
            value = self._in(_OTHER[given], inputs)
            self._works[given] = _OTHER[given]
            if given == torch.float64:
                warnings.warn(
                    "critic is a function of a float32 network, and is evaluated in float32: give "
                    "the network itself, a module (state, action) -> [N], to have it in float64",
                    stacklevel=2,
                )
        return value

    def _in(self, dtype: torch.dtype, inputs: tuple[Tensor, ...]) -> Any:
        value = self.function(*(x.to(dtype) for x in inputs))
        return value.to(inputs[0].dtype) if isinstance(value, Tensor) else value


def as_critic(critic: Any, name: str = "critic") -> nn.Module:
    """The critic as a module: itself, or the function in one.

    Raises:
        InputError: it is neither.
    """
    if isinstance(critic, nn.Module):
        return critic
    if callable(critic) and not isinstance(critic, type):
        return FunctionCritic(critic)
    kind = f"the class {critic.__name__}" if isinstance(critic, type) else type(critic).__name__
    raise InputError(
        f"{name} is {kind}, expected a torch.nn.Module or a function (state, action) -> [N]"
    )


def same_critic(one: nn.Module | None, other: nn.Module | None) -> bool:
    """Whether both are one network, or one function."""
    if isinstance(one, FunctionCritic) and isinstance(other, FunctionCritic):
        return one.function is other.function
    return one is other


def judge(critic: nn.Module, value: str, state: Tensor, action: Tensor) -> Tensor:
    """Values [N] of a Q critic at states [N, ds] and actions [N, da], or of a V critic."""
    values: Tensor = critic(state) if value == "V" else critic(state, action)
    return values[:, 0] if values.shape == (len(state), 1) else values
