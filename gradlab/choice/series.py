"""Measurements of one task at several checkpoints of a training: when does the order turn?

The data gradient J_0 beside the judged estimator's J_H, the weights that suit them at each
checkpoint, and those that a rule gives at that time. Each checkpoint has a policy and a critic of
its own, so nothing is paired between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from gradlab.choice.choosing import choice_of
from gradlab.choice.values import Mixing
from gradlab.errors import InputError
from gradlab.runs.comparison import SETTINGS
from gradlab.runs.profile import Profile
from gradlab.statistics.mixing import Weights
from gradlab.statistics.rules import MpgWeights

ERRORS = ("bias2", "mse", "relative_mse")
STEPS = 100  # points of the rule's curve
COLUMNS = ["iteration", "estimator", "horizon", "quantity", "value", "ci_low", "ci_high"]
SAME: Mapping[str, object] = {"task": None, "task_parameters": None, "batch": None, **SETTINGS}


@dataclass(frozen=True, eq=False)
class Series:
    """Profiles by iteration, in rising order, and T of MPG's rule, in iterations."""

    profiles: Mapping[int, Profile]
    ramp: int

    @property
    def data_weight(self) -> dict[int, float]:
        """iteration → weight that MPG's rule (eq. 10) gives to J_0, from the first to the last."""
        first, last = min(self.profiles), max(self.profiles)
        every = np.unique(np.linspace(first, last, STEPS).round().astype(int))
        return {int(k): float(self._rule(int(k))[0]) for k in every}

    def table(self) -> pd.DataFrame:
        """A row per iteration, estimator ("data": J_0, "model": J_H), horizon and quantity: errors
        of both, and the weight of J_H as weight_mse, weight_direction and weight_rule."""
        rows = [row for k, profile in self.profiles.items() for row in _rows(k, profile)]
        H = self._longest
        for k, w in self.data_weight.items():
            rows.append((k, "model", H, "weight_rule", 1 - w, np.nan, np.nan))
        return pd.DataFrame(rows, columns=COLUMNS)

    def _rule(self, iteration: int) -> np.ndarray:
        return MpgWeights(ramp=self.ramp)(iteration, (0, self._longest))

    @property
    def _longest(self) -> int:
        return max(max(each.horizons) for each in self.profiles.values())


def series(profiles: Sequence[Profile], iterations: Sequence[int], ramp: int) -> Series:
    """Profiles of several checkpoints of one training.

    Raises:
        InputError: the numbers do not fit, or the profiles are of different tasks or truths.
    """
    if len(profiles) != len(iterations) or len(profiles) < 2:
        raise InputError(
            f"iterations are {list(iterations)} for {len(profiles)} measurements: give two or more "
            f"measurements, and the iteration of each checkpoint"
        )
    if min(iterations) < 0 or len(set(iterations)) < len(iterations):
        raise InputError(f"iterations are {list(iterations)}, expected different ones from 0")
    if ramp < 1:
        raise InputError(f"ramp is {ramp}, expected a number of iterations of at least 1")
    for name, default in SAME.items():
        values = [each.config.get(name, default) for each in profiles]
        if any(value != values[0] for value in values):
            raise InputError(f"measurements differ in {name}, {values}: measure them alike")
    order = sorted(zip(iterations, profiles, strict=True), key=lambda pair: pair[0])
    return Series(dict(order), ramp)


def _rows(iteration: int, profile: Profile) -> Iterator[tuple[object, ...]]:
    pair = choice_of(profile).pair
    if pair is None:  # no truth, no data gradient, or an older file
        return
    for label, (name, h) in zip(("data", "model"), pair.cells, strict=True):
        for quantity in ERRORS:
            cell = (
                profile.estimators.index(name), profile.quantities.index(quantity),
                profile.horizons.index(h),
            )  # fmt: skip
            numbers = (float(profile.columns[c][cell]) for c in ("value", "ci_low", "ci_high"))
            yield (iteration, label, h, quantity, *numbers)
    yield from _weights(iteration, pair)


def _weights(iteration: int, pair: Mixing) -> Iterator[tuple[object, ...]]:
    found: dict[str, Weights] = {"weight_mse": pair.mse, "weight_direction": pair.direction}
    for quantity, weights in found.items():
        ends = (float(each[1]) for each in (weights.share, weights.low, weights.high))
        yield (iteration, "model", pair.cells[1][1], quantity, *ends)
