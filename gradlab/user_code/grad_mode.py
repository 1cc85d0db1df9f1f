"""Public functions differentiate in any grad mode of the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def differentiating(function: Callable[P, R]) -> Callable[P, R]:
    """`function` outside of the caller's `torch.no_grad()` and `torch.inference_mode()`."""
    inside: Callable[P, R] = torch.enable_grad()(function)
    return torch.inference_mode(False)(inside)
