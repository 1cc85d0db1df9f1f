"""Slices of the return for the models of one trial: along each one's gradient and at random.

    the model's surface      h of its steps and the critic    what its gradient climbs
    the simulator's          the true return of T steps       what a step along that gradient gives

θ moves in the first action, as in the gradients that are compared. Lines are of the first `STARTS`
starts; the random direction is every model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.gradients.estimator import Estimator
from gradlab.gradients.horizons import horizon_gradients
from gradlab.gradients.setting import Setting
from gradlab.gradients.tail import Tail
from gradlab.measurement.return_slices import Slice, random_direction, slices
from gradlab.measurement.shared_truth import SharedTruth
from gradlab.runs.remedies.arms import SIMULATOR
from gradlab.runs.remedies.values import Key, Value
from gradlab.systems.system import System

STARTS = 64
GRADIENT, RANDOM = "gradient", "random"
COLUMNS = (
    "model", "surface", "direction", "at", "alpha", "value", "ci_low", "ci_high", "n",
)  # fmt: skip

Row = dict[str, object]


@dataclass(frozen=True)
class Lines:
    """The lines of one trial.

    Attributes:
        rows: a row per point, with `COLUMNS`; `surface` is "model" or "simulator".
        roughness: of every model's surface, and of the simulator's along the random direction.
    """

    rows: tuple[Row, ...]
    roughness: tuple[Value, ...]


def lines(
    truth: SharedTruth, models: Mapping[str, System], critic: nn.Module | None, first: bool
) -> Lines:
    """Of one trial: each model's own surface, and in the first trial the simulator's, which costs
    most."""
    tail = Tail(truth.setting.horizon, critic, truth.task.discount)
    own = model_lines(truth, models, tail)
    if not first:
        return own
    true = simulator_lines(truth, models, tail)
    return Lines(own.rows + true.rows, own.roughness + true.roughness)


def model_lines(truth: SharedTruth, models: Mapping[str, System], tail: Tail) -> Lines:
    """Lines on every model's own surface, at the horizon of the tail.

    A model whose gradient is not finite is cut along the random direction alone.
    """
    rows: list[Row] = []
    roughness: list[Value] = []
    for name, model in models.items():
        along = _cut(truth, model, tail, _directions(truth, model, tail))
        rows += _rows(along, name, "model", tail.horizon)
        roughness += _roughness(truth, along, name, tail.horizon)
    return Lines(tuple(rows), tuple(roughness))


def simulator_lines(truth: SharedTruth, models: Mapping[str, System], tail: Tail) -> Lines:
    """The true return along every model's gradient at the horizon of the tail, and at random."""
    simulator, h = truth.task.simulator, tail.horizon
    whole = Tail(truth.reference.horizon, None, tail.discount)
    rows: list[Row] = []
    for name, model in models.items():
        along = _directions(truth, model, tail)
        along.pop(RANDOM)
        rows += _rows(_cut(truth, simulator, whole, along), name, SIMULATOR, h)
    at_random = {RANDOM: random_direction(truth.setting.policy, truth.setting.seed)}
    random = _cut(truth, simulator, whole, at_random)
    rows += _rows(random, SIMULATOR, SIMULATOR, h)
    return Lines(tuple(rows), tuple(_roughness(truth, random, SIMULATOR, h)))


def columns(rows: tuple[Row, ...]) -> dict[str, NDArray[np.generic]]:
    """Rows by column, as `Remedies.slices` keeps them."""
    kinds = dict.fromkeys(("model", "surface", "direction"), object) | {"at": int, "n": int}
    return {name: np.array([row[name] for row in rows], kinds.get(name, float)) for name in COLUMNS}


def _few(truth: SharedTruth) -> Setting:
    """Some of the starts."""
    begin = truth.setting.starts
    return replace(truth.setting, starts=begin.block(slice(0, min(STARTS, len(begin.states)))))


def _directions(truth: SharedTruth, model: System, tail: Tail) -> dict[str, Tensor]:
    few = _few(truth)
    gradient = horizon_gradients(
        Estimator(model, model, "first", tail), few.policy, few.starts,
        horizons=[tail.horizon], seed=few.seed, termination=few.termination,
    ).means[0]  # fmt: skip
    at_random = {RANDOM: random_direction(few.policy, few.seed)}
    norm = gradient.norm()
    return at_random | ({GRADIENT: gradient} if torch.isfinite(norm) and norm > 0 else {})


def _cut(
    truth: SharedTruth, system: System, tail: Tail, directions: Mapping[str, Tensor]
) -> dict[str, Slice]:
    surface, few = Estimator(system, system, "first", tail), _few(truth)
    return slices(
        surface, few.policy, few.starts, directions, seed=few.seed, termination=few.termination
    )


def _rows(along: Mapping[str, Slice], model: str, surface: str, h: int) -> list[Row]:
    return [
        {"model": model, "surface": surface, "direction": direction, "at": h, **row}
        for direction, line in along.items()
        for row in line.rows()
    ]


def _roughness(truth: SharedTruth, along: Mapping[str, Slice], model: str, h: int) -> list[Value]:
    """Left-out values are those of the trial's starts, where the lines are of all of them."""
    whole = len(truth.setting.starts.states) <= STARTS
    estimates = {direction: line.roughness() for direction, line in along.items()}
    return [
        Value(
            model,
            Key("roughness", direction, h),
            estimate.value,
            estimate.left_out if whole else None,
        )
        for direction, estimate in estimates.items()
    ]
