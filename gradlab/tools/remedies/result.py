"""What a test of remedies found: one value per model, trial and quantity, in one file.

    prediction_error, no_change     at steps 1 … H along the simulator's path
    jacobian_error                  block A, B, r_s, r_a
    bias2, variance, mse, relative_mse, cosine, least_mse, usable_horizon, best_horizon, lyapunov
    held_out_nll, held_out_mse, fit_seconds, step_cost      the price; costs relative to "nll"

Over K paired trials, each one fit (and one record), log ratio = mean_k log(b_k / a_k) with
Student's t: of 3 to 10 log-normal pairs it covers in 95 of 100, where the jackknife of the ratio
of means covers in 87 to 95. A single trial has no interval.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy

from gradlab.runs.decision_rules import LogRatio
from gradlab.runs.layout import attribute, nested
from gradlab.runs.run import Run
from gradlab.statistics.comparison import difference
from gradlab.statistics.intervals import LEVEL, skewness_corrected
from gradlab.statistics.moments import Array, Estimate

BASELINE = "nll"
SIMULATOR = "simulator"
STEPS, TIME = "equal steps", "equal time"

# In one line each, for lists and pages.
ABOUT: Mapping[str, str] = {
    "spectral": "hidden layers held at spectral norm 1 (RP-PGM, appendix B.1)",
    "dd": "likelihood and directional derivatives to the nearest points (DDPPO eq. 9)",
    "two-model": "states of the baseline, Jacobians of dd's model (DDPPO, Algorithm 1)",
    "multistep": "squared error along 5 steps of its own predictions (RP-PGM Fig. 6)",
    "multistep-dd": "multistep and the directional part of dd (RP-PGM Fig. 6)",
    "mse": "squared error of one step in place of the likelihood",
    "double-parameters": "hidden layers widened to twice the parameters (DDPPO Figs. 4 and 7)",
    "ensemble": "7 members in place of one",
    "sobolev": "likelihood and the simulator's Jacobians: the ceiling of these losses",
}
DEFAULT = ("spectral", "dd", "multistep", "two-model")


def longer(arm: str) -> str:
    """The name of the baseline that was fitted for as long as an arm."""
    return f"{BASELINE} as long as {arm}"


class Key(NamedTuple):
    """What a number is of; `at` is a step or horizon, -1 where there is none."""

    quantity: str
    block: str = ""
    at: int = -1


class ModelPair(NamedTuple):
    """What an arm is judged by under a budget: two models, without and with the remedy."""

    arm: str
    budget: str
    first: str
    second: str


class ModelValue(NamedTuple):
    """A number of one model in one trial."""

    model: str
    quantity: str
    value: float
    block: str = ""
    at: int = -1
    trial: int = 0

    @property
    def key(self) -> Key:
        return Key(self.quantity, self.block, self.at)


def of_trial(trial: int, values: Iterable[ModelValue]) -> tuple[ModelValue, ...]:
    """The numbers of a trial."""
    return tuple(each._replace(trial=trial) for each in values)


def over_trials(values: Array) -> Estimate:
    """Mean of [K] with each trial left out; a single one leaves no interval."""
    count = len(values)
    left_out = (values.sum() - values) / (count - 1) if count > 1 else np.full(2, nan)
    return Estimate(float(values.mean()), left_out)


_WIDE = 700.0  # beyond the logarithms of floating-point numbers


def ratio(first: Array, second: Array) -> LogRatio | None:
    """mean log(second / first) of paired trials [K] with its interval; None where a number is not
    above 0, or all is open."""
    if len(first) < 2 or not ((first > 0).all() and (second > 0).all()):
        return None
    logs = np.log(second / first)
    value, se = float(logs.mean()), float(logs.std(ddof=1) / len(logs) ** 0.5)
    half = float(scipy.stats.t.ppf(LEVEL, len(logs) - 1)) * se
    return LogRatio(value, value - half, value + half, se) if abs(value) + half < _WIDE else None


_SIGNED = ("cosine", "usable_horizon", "best_horizon", "lyapunov", "held_out_nll")  # no ratio
_LEVELS = ("model", *Key._fields, "value", "ci_low", "ci_high", "n", "method")
_PAIRED = (
    "arm", "budget", *Key._fields, "first", "second", "difference", "ci_low", "ci_high", "ratio",
    "ratio_low", "ratio_high", "n", "method",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Remedies(Run):
    """What `compare_remedies` found.

    Attributes:
        values: of all models and trials; pairs: what is compared with what.
        config: what was asked for; environment: what it ran on.
        notes: what a reader must know, by topic: dropped members, masked samples, epochs.
    """

    values: Annotated[tuple[ModelValue, ...], nested("values")]
    pairs: Annotated[tuple[ModelPair, ...], nested("pairs")]
    config: Annotated[Mapping[str, Any], attribute()]
    environment: Annotated[Mapping[str, str], attribute()]
    notes: Annotated[Mapping[str, Any], attribute()]
    file: Path | None = None

    kind = "remedies"
    noun = "test of remedies"

    @cached_property
    def trials(self) -> int:
        """How many are finished."""
        return len({each.trial for each in self.values})

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pair.arm for pair in self.pairs))

    @cached_property
    def known(self) -> Mapping[str, Mapping[Key, Mapping[int, float]]]:
        """model → what → trial → value, in the order it was measured."""
        found: dict[str, dict[Key, dict[int, float]]] = {}
        for each in self.values:
            found.setdefault(each.model, {}).setdefault(each.key, {})[each.trial] = each.value
        return found

    def of(self, models: tuple[str, ...], key: Key) -> Array:
        """Values of models [models, K] in the K trials that have all of them finite."""
        rows = [self.known.get(model, {}).get(key, {}) for model in models]
        shared = [k for k in sorted(rows[0]) if all(k in each for each in rows)]
        values = np.array([[each[k] for k in shared] for each in rows]).reshape(len(models), -1)
        return np.asarray(values[:, np.isfinite(values).all(axis=0)])

    def table(self, name: str | None = None) -> pd.DataFrame:
        """One row per arm, budget, quantity, block and at: first (without), second (with the
        remedy), difference with ci_low and ci_high, ratio with ratio_low and ratio_high (geometric
        means), n trials and method; `at` is NaN where a quantity has neither step nor horizon."""
        if name is not None:
            return super().table(name)
        rows = []
        for pair in self.pairs:
            for key in self.known.get(pair.second, ()):
                first, second = self.of((pair.first, pair.second), key)
                if len(first):
                    where = (pair.arm, pair.budget, *_where(key))
                    rows.append((*where, *_compared(first, second, key), *_made(first)))
        return pd.DataFrame(rows, columns=list(_PAIRED))

    def levels(self) -> pd.DataFrame:
        """One row per model, quantity, block and at: value, ci_low, ci_high, n, method.

        Models are "nll", the arms, "nll as long as ARM" and "simulator".
        """
        rows = []
        for model, keys in self.known.items():
            for key in keys:
                (values,) = self.of((model,), key)
                if len(values):
                    mean = over_trials(values)
                    ends = skewness_corrected(mean) if len(values) > 1 else (nan, nan)
                    rows.append((model, *_where(key), mean.value, *ends, *_made(values)))
        return pd.DataFrame(rows, columns=list(_LEVELS))


load = Remedies.load


def _where(key: Key) -> Iterator[object]:
    yield from (key.quantity, key.block, nan if key.at < 0 else float(key.at))


def _made(values: Array) -> tuple[int, str]:
    """Trials behind a number, and how its interval was made."""
    count = len(values)
    return count, "paired jackknife over trials" if count > 1 else "one trial"


def _compared(first: Array, second: Array, key: Key) -> Iterator[float]:
    """first, second, second − first with its interval, second / first with its."""
    ratios = key.quantity not in _SIGNED
    one, other = over_trials(first), over_trials(second)
    yield from (one.value, other.value, other.value - one.value)
    if len(first) == 1:
        yield from (nan, nan, other.value / one.value if ratios and one.value > 0 else nan)
        yield from (nan, nan)
        return
    gap = difference(other, one)
    yield from (gap.low, gap.high)
    change = ratio(first, second) if ratios else None
    yield from (nan, nan, nan) if change is None else change.estimate
