"""The weights that a mixture of horizons may have: fixed, a rule of the papers, measured, or as
steering decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.statistics.rules import MpgJournalWeights, MpgWeights
from gradlab.training.measured.switching import By

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FixedWeights:
    """The same weights at every iteration, one per horizon."""

    values: tuple[float, ...] = (1.0,)

    def __call__(self, iteration: int, horizons: Sequence[int]) -> Floats:
        if len(self.values) != len(horizons):
            raise InputError(f"weights are {self.values}, expected one for each of {horizons}")
        return np.array(self.values)


Rule = FixedWeights | MpgWeights | MpgJournalWeights


@dataclass(frozen=True)
class MeasuredWeights:
    """What measurements have shown to be better than the rule (`training.measured.weights`).

    Attributes:
        follow: "weights", the best mixture, or "horizon", the best single one.
        rule: what is followed until then.
        by: whose error against the true gradient at replayed states is least ("mse"), or whose step
            at visited states gains most of the return ("gain").
    """

    follow: Literal["weights", "horizon"]
    rule: Rule
    by: By = "mse"

    def __call__(self, iteration: int, horizons: Sequence[int]) -> Floats:
        return self.rule(iteration, horizons)


Steer = Literal["rehearse", "accept"]


@dataclass(frozen=True)
class Steered:
    """What returns on the simulator decide (`training.measured.steering`).

    Attributes:
        by: "rehearse" adopts what was rehearsed, or holds; "accept" goes back where it is lower.
        every: iterations between two decisions.
        rule: what is followed until the first one, of the row's `own` horizons.
    """

    by: Steer
    every: int
    rule: Rule
    own: tuple[int, ...]

    def __call__(self, iteration: int, horizons: Sequence[int]) -> Floats:
        own = dict(zip(self.own, self.rule(iteration, self.own), strict=True))
        return np.array([own.get(n, 0.0) for n in horizons])


Weights = Rule | MeasuredWeights | Steered
