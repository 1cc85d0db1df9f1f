"""A task's start law from a user's function: with or without a generator, in torch or numpy.

A draw is a float64 tensor [n, ds], the same for the same generator. A function without a generator
draws from the global streams of torch and numpy, which are seeded before and restored after it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlab.errors import InputError
from gradlab.user_code.calls import running


@dataclass(frozen=True)
class StartLaw:
    """(n, generator) → float64 [n, ds], of a function (n, generator) or (n)."""

    function: Callable[..., Any]
    state_dim: int
    seeded: bool

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        with running("starts"):
            if self.seeded:
                drawn = self.function(n, generator)
            else:
                with _streams(int(torch.randint(2**32, (), generator=generator))):
                    drawn = self.function(n)
        return self._checked(drawn, n)

    def _checked(self, drawn: Any, n: int) -> Tensor:
        if isinstance(drawn, np.ndarray) and drawn.dtype.kind in "fiu":
            drawn = torch.from_numpy(drawn)
        if not isinstance(drawn, Tensor):
            raise InputError(
                f"starts returned a {type(drawn).__name__}, expected a tensor [n, {self.state_dim}]"
            )
        if drawn.shape != (n, self.state_dim):
            raise InputError(
                f"starts returned shape {tuple(drawn.shape)} for n = {n}, expected "
                f"[{n}, {self.state_dim}]"
            )
        values = drawn.clone() if drawn.is_inference() else drawn.detach()
        return values.double()


def start_law(function: Callable[..., Any], state_dim: int) -> StartLaw:
    """
    Raises:
        InputError: the function takes neither (n, generator) nor (n).
    """
    if isinstance(function, StartLaw):
        return function
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return StartLaw(function, state_dim, seeded=True)
    for given in (2, 1):
        try:
            signature.bind(*range(given))
        except TypeError:
            continue
        return StartLaw(function, state_dim, seeded=given == 2)
    raise InputError(
        f"starts takes {signature}, expected a function (n, generator) -> [n, {state_dim}]"
    )


@contextmanager
def _streams(seed: int) -> Iterator[None]:
    """The global streams of torch and numpy begin at `seed`, and go on as they were."""
    numpy = np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy)
