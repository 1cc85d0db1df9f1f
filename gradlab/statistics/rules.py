"""Weights of the horizons of a mixed policy gradient, by the papers' rules.

    w_i = softmax(1 / e_i)                                                   (MPG eq. 10, App. C-A)
    e_i = λ^i            for λ ≤ 1,     (2 − λ)^(max 𝕀 − i)  for λ > 1
    MPG:    λ rises linearly from 1 − η to 1 + η in T iterations and stays
    MPG-J:  e_i = λ^i, then λ^(max 𝕀 − i); λ rises from 1 − η to 1 and falls back  (eq. 10, 11)

A rule is a frozen value; called with an iteration and the horizons it gives weights that sum to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MpgWeights:
    """The rule of MPG.

    Attributes:
        eta: η in (0, 1); ramp: T, in iterations.
        published: as the published code has it, λ held at 1.5 and 1e-8 added to every error.
    """

    eta: float = 0.1
    ramp: int = 9000
    published: bool = False

    def __call__(self, iteration: int, horizons: Sequence[int]) -> Floats:
        rise = 2 * self.eta * iteration / self.ramp
        base = min(1 - self.eta + rise, 1.5 if self.published else 1 + self.eta)
        longest, steps = max(horizons), np.array(horizons, dtype=np.float64)
        errors = base**steps if base <= 1 else (2 - base) ** (longest - steps)
        return _softmax(1 / (errors + 1e-8 if self.published else errors))


@dataclass(frozen=True)
class MpgJournalWeights:
    """The rule of the journal version, whose T is the number of iterations of the whole run."""

    eta: float = 0.1
    iterations: int = 100_000

    def __call__(self, iteration: int, horizons: Sequence[int]) -> Floats:
        progress = min(iteration / self.iterations, 1.0)
        base = 1 - self.eta * abs(1 - 2 * progress)
        longest, steps = max(horizons), np.array(horizons, dtype=np.float64)
        return _softmax(1 / base ** (steps if progress <= 0.5 else longest - steps))


def _softmax(values: Floats) -> Floats:
    # Shifted by the largest, since 1 / e reaches 1e8 where 2 − λ nears 0.
    powers = np.exp(values - values.max())
    return np.asarray(powers / powers.sum())
