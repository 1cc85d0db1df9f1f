"""The plan of a trial: which models it needs, and for how many epochs each is fitted.

    equal steps   epochs(arm) = E · steps per epoch of the baseline / steps per epoch of the arm
    equal time    epochs(baseline) = E · cost(arm)

with the cost of a step, held-out evaluation included, in steps of the baseline. A pair of models
costs what both fits do.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from gradlab.data import transitions
from gradlab.data.trajectories import Trajectories
from gradlab.errors import InputError
from gradlab.fitting.descent import Descent
from gradlab.fitting.models import prepared
from gradlab.remedies.fits import Part, Recipe
from gradlab.runs.remedies.arms import ABOUT, BASELINE, HALF, STEPS, TIME, longer
from gradlab.runs.remedies.values import Pair

REPEATS = 7
TIMED = 5000  # rows of a timed epoch, at most


@dataclass(frozen=True)
class Plan:
    """What a trial makes, and what is compared.

    Attributes:
        models: name → its one part, or the parts that predict and that give Jacobians.
        costs: arm → seconds of a step in steps of the baseline.
    """

    models: Mapping[str, tuple[Part, ...]]
    pairs: tuple[Pair, ...]
    costs: Mapping[str, float]

    @property
    def parts(self) -> list[Part]:
        """Every fit once, the shorter ones of a recipe first."""
        return sorted({part for parts in self.models.values() for part in parts})


def fits_of(arm: str) -> tuple[str, ...]:
    """Recipes behind an arm beside the baseline.

    Raises:
        InputError: no such arm.
    """
    if arm not in ABOUT:
        raise InputError(f"arm {arm!r} is unknown, expected some of {', '.join(ABOUT)}")
    return {"two-model": ("dd",), "more-data": (HALF,)}.get(arm, (arm,))


def steps_per_epoch(recipes: Mapping[str, Recipe], data: Trajectories) -> dict[str, int]:
    """Steps of the optimiser in an epoch of each recipe.

    Raises:
        InputError: the data do not suit an arm.
    """
    return {name: _steps(_descent(name, recipe, data)) for name, recipe in recipes.items()}


def measured_costs(recipes: Mapping[str, Recipe], data: Trajectories) -> dict[str, float]:
    """Recipe → cost of a step: medians of ratios of epochs that were timed in turn."""
    few = transitions.first(data, min(len(data), TIMED))
    descents = {name: _descent(name, recipe, few) for name, recipe in recipes.items()}
    seconds: dict[str, list[float]] = {name: [] for name in descents}
    for _ in range(REPEATS + 1):
        for name, descent in descents.items():
            begun = time.perf_counter()
            descent.run_epoch()
            descent.evaluated()
            seconds[name].append((time.perf_counter() - begun) / _steps(descent))
    pairs = {name: zip(of_arm, seconds[BASELINE], strict=True) for name, of_arm in seconds.items()}
    return {name: median([a / b for a, b in ratios][1:]) for name, ratios in pairs.items()}


def costs_of(arms: Sequence[str], recipes: Mapping[str, float]) -> dict[str, float]:
    """Arm → cost, from those of its recipes."""
    costs = {arm: sum(recipes[name] for name in fits_of(arm)) for arm in arms}
    if "two-model" in costs:
        costs["two-model"] += 1.0
    return costs


def planned(
    arms: Sequence[str], epochs: int, steps: Mapping[str, int], costs: Mapping[str, float]
) -> Plan:
    """The models of all arms.

    Args:
        epochs: E of the baseline; steps: of an epoch of each recipe; costs: of a step of each arm.
    """

    def alike(name: str) -> Part:
        return Part(name, max(1, round(epochs * steps[BASELINE] / steps[name])))

    base = Part(BASELINE, epochs)
    models: dict[str, tuple[Part, ...]] = {BASELINE: (base,)}
    pairs: list[Pair] = []
    for arm in arms:
        if arm == "more-data":
            models[HALF] = (alike(HALF),)
            pairs += [Pair(arm, budget, HALF, BASELINE) for budget in (STEPS, TIME)]
            continue
        parts = tuple(alike(name) for name in fits_of(arm))
        models[arm] = (base, *parts) if arm == "two-model" else parts
        models[longer(arm)] = (Part(BASELINE, max(1, round(epochs * costs[arm]))),)
        pairs += [Pair(arm, STEPS, BASELINE, arm), Pair(arm, TIME, longer(arm), arm)]
    return Plan(models, tuple(pairs), costs)


def _descent(name: str, recipe: Recipe, data: Trajectories) -> Descent:
    try:
        return prepared(recipe.rows(data), recipe.settings, recipe.loss)[0]
    except InputError as error:
        raise InputError(f"arm {name}: {error}") from error


def _steps(descent: Descent) -> int:
    return -(-descent.sample.shape[1] // descent.batch)
