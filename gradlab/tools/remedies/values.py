"""One number per model, trial and quantity, and how they become estimates over trials.

    θ = mean_k v_k,   θ_(−k) = mean of the others        k = 1 … K trials

With one trial θ is its value, and the left-out values are those over its starts.

The arms of a remedies' test: ways to make a model, each one thing away from the baseline.

The baseline, "nll", is fitted by likelihood. Under *equal steps* every arm takes as many steps of
the optimiser as the baseline; under *equal time* the baseline is fitted for as long as the arm was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.statistics.moments import Array, Estimate

BASELINE = "nll"
HALF = "half the rows"  # what "more-data" is compared with
SIMULATOR = "simulator"
STEPS, TIME = "equal steps", "equal time"

# In one line each, for lists and pages.
ABOUT: Mapping[str, str] = {
    "spectral": "layers of the model but the last held at spectral norm 1 (RP-PGM, appendix B.1)",
    "dd": "likelihood and directional derivatives to the nearest points, one model (DDPPO eq. 9)",
    "two-model": "states of the baseline, Jacobians of dd's model (DDPPO, Algorithm 1)",
    "multistep": "squared error along 5 steps of the model's own predictions (RP-PGM Fig. 6)",
    "mse": "squared error of one step in the place of the likelihood",
    "double-parameters": "hidden layers widened to twice the parameters (DDPPO Figs. 4 and 7)",
    "ensemble": "7 members in the place of one",
    "more-data": "the baseline against itself on half the rows",
    "sobolev": "likelihood and Jacobians of the simulator: the ceiling of losses on derivatives",
}
_NAMES: Mapping[str, str] = {  # in the singular
    "spectral": "spectral normalisation",
    "dd": "the directional-derivative loss",
    "two-model": "a second model for the Jacobians",
    "multistep": "the multi-step loss",
    "mse": "squared error",
    "double-parameters": "twice the parameters",
    "ensemble": "an ensemble",
    "more-data": "doubling the rows",
    "sobolev": "a loss on the simulator's Jacobians",
}
DEFAULT = ("spectral", "dd", "multistep", "two-model")


def called(arm: str) -> str:
    """In a sentence; a loss of one's own by its function's name."""
    return _NAMES.get(arm, f"the loss {arm.rpartition(':')[2]}")


def longer(arm: str) -> str:
    """The name of the baseline that was fitted for as long as an arm."""
    return f"{BASELINE} as long as {arm}"


LABELS = ("model", "quantity", "block", "region")
NUMBERS = ("at", "value")
ALL, SMOOTH, CLIPPED = "all", "smooth", "contact or clip"  # regions


class Key(NamedTuple):
    """What a number is of; `at` is a step or horizon, -1 where there is none."""

    quantity: str
    block: str = ""
    at: int = -1
    region: str = ALL


class ModelPair(NamedTuple):
    """What an arm is judged by under a budget: two models, without and with the remedy."""

    arm: str
    budget: str
    first: str
    second: str


class ModelValue(NamedTuple):
    """A number of one model in one trial, and the same with each group of starts left out."""

    model: str
    key: Key
    value: float
    left_out: Array | None = None


@dataclass(frozen=True, eq=False)
class Cells:
    """All numbers by column, each [rows]: model, quantity, block, region, at, value, trial.

    Attributes:
        left_out: [rows of the first trial, G], NaN where a number has none; those rows come first.
    """

    columns: Mapping[str, NDArray[Any]]
    left_out: Array

    def __post_init__(self) -> None:
        first = int((self.columns["trial"] == self._first).sum())
        if len(self.left_out) != first or (self.columns["trial"][:first] != self._first).any():
            raise InputError(
                f"left_out has {len(self.left_out)} rows, but the first trial has {first}"
            )

    @property
    def _first(self) -> int:
        return int(self.columns["trial"][0]) if len(self.columns["trial"]) else 0

    @property
    def trials(self) -> int:
        return len(np.unique(self.columns["trial"]))

    @cached_property
    def _rows(self) -> dict[tuple[str, Key], dict[int, int]]:
        """(model, key) → trial → row."""
        rows: dict[tuple[str, Key], dict[int, int]] = {}
        c = self.columns
        names = (c["model"], c["quantity"], c["block"], c["at"], c["region"], c["trial"])
        for row, (model, quantity, block, at, region, trial) in enumerate(zip(*names, strict=True)):
            key = Key(str(quantity), str(block), int(at), str(region))
            rows.setdefault((str(model), key), {})[int(trial)] = row
        return rows

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(model for model, _ in self._rows))

    def keys(self, model: str) -> Iterator[Key]:
        """What is known of a model, in the order it was measured."""
        return (key for name, key in self._rows if name == model)

    def estimates(self, models: tuple[str, ...], key: Key) -> list[Estimate] | None:
        """Of several models over the trials that have all of them finite; None without any.

        Estimates of one call are paired: left-out values are of the same trials, or of the same
        groups of starts.
        """
        rows = [self._rows.get((model, key), {}) for model in models]
        shared = [k for k in sorted(rows[0]) if all(k in each for each in rows)]
        values = np.array([[self.columns["value"][each[k]] for k in shared] for each in rows])
        finite = np.isfinite(values).all(axis=0) if values.size else np.zeros(0, dtype=bool)
        if not finite.any():
            return None
        if self.trials == 1:
            return [
                Estimate(float(v[0]), self.left_out[r[shared[0]]])
                for v, r in zip(values, rows, strict=True)
            ]
        return [over_trials(each[finite]) for each in values]


def over_trials(values: Array) -> Estimate:
    """Mean of [K] with each trial left out; a single one leaves no interval."""
    count = len(values)
    if count == 1:
        return Estimate(float(values[0]), np.full(2, np.nan))
    return Estimate(float(values.mean()), (values.sum() - values) / (count - 1))


def extended(cells: Cells | None, trial: int, values: Sequence[ModelValue]) -> Cells:
    """The numbers of one more trial after those that are there; the first one's left-out values
    are kept."""
    columns: dict[str, NDArray[Any]] = {"model": _texts([each.model for each in values])}
    for name in ("quantity", "block", "region"):
        columns[name] = _texts([getattr(each.key, name) for each in values])
    columns["at"] = np.array([each.key.at for each in values], dtype=np.int64)
    columns["value"] = np.array([each.value for each in values], dtype=np.float64)
    columns["trial"] = np.full(len(values), trial, dtype=np.int64)
    if cells is None:
        return Cells(columns, _left_out(values))
    joined = {name: np.concatenate([cells.columns[name], columns[name]]) for name in columns}
    return Cells(joined, cells.left_out)


def _texts(values: list[str]) -> NDArray[Any]:
    return np.array(values, dtype=object)


def _left_out(values: Sequence[ModelValue]) -> Array:
    groups = max((len(each.left_out) for each in values if each.left_out is not None), default=2)
    left_out = np.full((len(values), groups), np.nan)
    for row, each in zip(left_out, values, strict=True):
        if each.left_out is not None:
            row[:] = each.left_out
    return left_out
