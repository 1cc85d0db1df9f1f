"""The weights that a mixture of horizons may have: fixed ones, or a rule of the papers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.statistics.rules import MpgJournalWeights, MpgWeights

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FixedWeights:
    """The same weights at every iteration, one per horizon."""

    values: tuple[float, ...] = (1.0,)

    def __call__(self, iteration: int, horizons: Sequence[int]) -> Floats:
        if len(self.values) != len(horizons):
            raise InputError(f"weights are {self.values}, expected one for each of {horizons}")
        return np.array(self.values)


Weights = FixedWeights | MpgWeights | MpgJournalWeights
