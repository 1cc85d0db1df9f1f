"""What a test of remedies found: one value per model, trial and quantity, in one file.

    prediction_error, no_change     at steps 1 … H along the simulator's path
    jacobian_error                  block A, B, r_s, r_a; region all, smooth, contact or clip
    bias2, variance, mse, relative_mse, cosine, least_mse, usable_horizon, best_horizon, lyapunov
    held_out_nll, held_out_mse, fit_seconds, step_cost      the price; costs relative to "nll"

Over K paired trials, each one fit (and one record), log ratio = mean_k log(b_k / a_k) with
Student's t: of 3 to 10 log-normal pairs it covers in 95 of 100, where the jackknife of the ratio
of means covers in 87 to 95. Intervals of a single trial are over its starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log, nan
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from gradlab.errors import InputError
from gradlab.runs.decision_rules import LogRatio
from gradlab.runs.layout import attribute, nested, stored
from gradlab.runs.run import Run
from gradlab.statistics.comparison import POWER, UNAFFORDABLE, difference, log_ratio
from gradlab.statistics.intervals import LEVEL, jackknife_se, pseudo_values, skewness_corrected
from gradlab.statistics.moments import Array, Estimate, combine

KIND = "remedies"

BASELINE = "nll"
HALF = "half the rows"  # what "more-data" is compared with
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
    "more-data": "the baseline against itself on half the rows",
    "sobolev": "likelihood and the simulator's Jacobians: the ceiling of these losses",
}
_NAMES: Mapping[str, str] = {  # in the singular
    "spectral": "spectral normalisation", "dd": "the directional-derivative loss",
    "two-model": "a second model for the Jacobians", "multistep": "the multi-step loss",
    "multistep-dd": "the multi-step directional loss", "mse": "squared error",
    "double-parameters": "twice the parameters", "ensemble": "an ensemble",
    "more-data": "doubling the rows", "sobolev": "a loss on the simulator's Jacobians",
}  # fmt: skip
DEFAULT = ("spectral", "dd", "multistep", "two-model")


def called(arm: str) -> str:
    """In a sentence; a loss of one's own by its function's name."""
    return _NAMES.get(arm, f"the loss {arm.rpartition(':')[2]}")


def longer(arm: str) -> str:
    """The name of the baseline that was fitted for as long as an arm."""
    return f"{BASELINE} as long as {arm}"


_COLUMNS = ("model", "quantity", "block", "region", "at", "value", "trial")
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
class _Cells:
    """All numbers by column, each [rows]: model, quantity, block, region, at, value, trial.

    Attributes:
        left_out: [rows of the first trial, G], NaN where a number has none; those rows come first.
    """

    columns: Annotated[Mapping[str, NDArray[Any]], stored("row", each=_COLUMNS)]
    left_out: Annotated[NDArray[np.float64], stored("first_row", "group", group="starts")]

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
        return [_over_trials(each[finite]) for each in values]


def _over_trials(values: Array) -> Estimate:
    """Mean of [K] with each trial left out; a single one leaves no interval."""
    count = len(values)
    if count == 1:
        return Estimate(float(values[0]), np.full(2, np.nan))
    return Estimate(float(values.mean()), (values.sum() - values) / (count - 1))


def extended(cells: _Cells | None, trial: int, values: Sequence[ModelValue]) -> _Cells:
    """The numbers of one more trial after those that are there; the first one's left-out values
    are kept."""
    texts = {"model": [each.model for each in values]}
    texts |= {n: [getattr(each.key, n) for each in values] for n in ("quantity", "block", "region")}
    columns: dict[str, NDArray[Any]] = {n: np.array(c, dtype=object) for n, c in texts.items()}
    columns["at"] = np.array([each.key.at for each in values], dtype=np.int64)
    columns["value"] = np.array([each.value for each in values], dtype=np.float64)
    columns["trial"] = np.full(len(values), trial, dtype=np.int64)
    if cells is not None:
        joined = {name: np.concatenate([cells.columns[name], columns[name]]) for name in columns}
        return _Cells(joined, cells.left_out)
    groups = max((len(each.left_out) for each in values if each.left_out is not None), default=2)
    left_out = np.full((len(values), groups), np.nan)
    for row, each in zip(left_out, values, strict=True):
        if each.left_out is not None:
            row[:] = each.left_out
    return _Cells(columns, left_out)


_WIDE = 700.0  # beyond the logarithms of floating-point numbers


def ratio(first: Estimate, second: Estimate, trials: bool) -> LogRatio | None:
    """log(second / first) with its interval; None where a number is not above 0, or all is open.
    `trials`: whether what is left out are trials, of which the estimates are means."""
    if not all(np.isfinite(each.left_out).all() for each in (first, second)):
        return None
    if trials:
        a, b = pseudo_values(first), pseudo_values(second)  # of a mean: what it is the mean of
        if not ((a > 0).all() and (b > 0).all()):
            return None
        logs = np.log(b / a)
        value, se = float(logs.mean()), float(logs.std(ddof=1) / len(logs) ** 0.5)
        half = float(scipy.stats.t.ppf(LEVEL, len(logs) - 1)) * se
        found = LogRatio(value, value - half, value + half, se)
    else:
        ends = log_ratio(second, first)
        if ends is None:
            return None
        found = LogRatio(log(second.value / first.value), ends.low, ends.high, ends.se)
    finite = np.isfinite([found.low, found.high]).all()
    return found if finite and max(-found.low, found.high) < _WIDE else None


def more_trials(ratio: LogRatio, trials: int) -> int | None:
    """Further trials with which 1 is left out of the interval; None where no affordable number is.

    Smallest n > K with (t_{97.5%} + t_{power}) se √(K/n) ≤ |log ratio|, n − 1 degrees of freedom.
    """
    if not np.isfinite([ratio.value, ratio.se]).all() or ratio.value == 0:
        return None
    n = np.unique(np.geomspace(trials + 1, UNAFFORDABLE, 500).astype(int))
    n = np.union1d(n, np.arange(trials + 1, trials + 50))
    reach = scipy.stats.t.ppf(LEVEL, n - 1) + scipy.stats.t.ppf(POWER, n - 1)
    enough = n[reach * ratio.se * np.sqrt(trials / n) <= abs(ratio.value)]
    return int(enough[0]) - trials if len(enough) else None


_SIGNED = ("cosine", "usable_horizon", "best_horizon", "lyapunov", "held_out_nll")  # no ratio
_WHERE = ("quantity", "block", "at", "region")
_LEVELS = ("model", *_WHERE, "value", "ci_low", "ci_high", "n", "method")
_PAIRED = (
    "arm", "budget", *_WHERE, "first", "second", "difference", "ci_low", "ci_high", "ratio",
    "ratio_low", "ratio_high", "n", "method",
)  # fmt: skip


def _compared(first: Estimate, second: Estimate, ratios: bool, trials: bool) -> tuple[float, ...]:
    """first, second, second − first with its interval, second / first with its. `trials`: whether
    what is left out are trials: then the ratio is the geometric mean of theirs."""
    values = (first.value, second.value, second.value - first.value)
    if not all(np.isfinite(each.left_out).all() for each in (first, second)):
        quotient = second.value / first.value if ratios and first.value > 0 else nan
        return (*values, nan, nan, quotient, nan, nan)
    gap = difference(second, first)
    change = ratio(first, second, trials) if ratios else None
    if change is None:
        return (*values, gap.low, gap.high, nan, nan, nan)
    return (*values, gap.low, gap.high, *change.estimate)


@dataclass(frozen=True, eq=False)
class Remedies(Run):
    """What `compare_remedies` found.

    Attributes:
        cells: the values, and what is compared with what.
        config: what was asked for; environment: what it ran on.
        notes: what a reader must know, by topic: dropped members, masked samples, epochs.
    """

    cells: Annotated[_Cells, nested("cells")]
    pairs: Annotated[tuple[ModelPair, ...], nested("pairs")]
    config: Annotated[Mapping[str, Any], attribute()]
    environment: Annotated[Mapping[str, str], attribute()]
    notes: Annotated[Mapping[str, Any], attribute()]
    file: Path | None = None

    kind = KIND
    noun = "test of remedies"

    @property
    def trials(self) -> int:
        """How many are finished."""
        return self.cells.trials

    @property
    def arms(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pair.arm for pair in self.pairs))

    def table(self, name: str | None = None) -> pd.DataFrame:
        """One row per arm, budget, quantity, block, at and region: first (without), second (with
        the remedy), difference with ci_low and ci_high, ratio with ratio_low and ratio_high (over
        trials: geometric means), n (trials, or starts of a single one) and method; `at` is NaN
        where a quantity has neither step nor horizon."""
        if name is not None:
            return super().table(name)
        rows = []
        for pair in self.pairs:
            for key in self.cells.keys(pair.second):
                found = self.cells.estimates((pair.first, pair.second), key)
                if found is not None:
                    ratios = key.quantity not in _SIGNED
                    numbers = _compared(found[0], found[1], ratios, self.trials > 1)
                    where = (pair.arm, pair.budget, *_where(key))
                    rows.append((*where, *numbers, *self._samples(found[1])))
        return pd.DataFrame(rows, columns=list(_PAIRED))

    def levels(self) -> pd.DataFrame:
        """One row per model, quantity, block, at and region: value, ci_low, ci_high, n, method.

        Models are "nll", the arms, "nll as long as ARM" and "simulator".
        """
        rows = []
        for model in self.cells.models:
            for key in self.cells.keys(model):
                found = self.cells.estimates((model,), key)
                if found is not None:
                    left_out = found[0].left_out
                    known = np.isfinite(left_out).all() and np.isfinite(jackknife_se(left_out))
                    ends = skewness_corrected(found[0]) if known else (nan, nan)
                    samples = self._samples(found[0])
                    rows.append((model, *_where(key), found[0].value, *ends, *samples))
        return pd.DataFrame(rows, columns=list(_LEVELS))

    def _samples(self, estimate: Estimate) -> tuple[int, str]:
        """Trials behind a number, or starts of a single trial, and how its interval was made."""
        if not np.isfinite(estimate.left_out).all():
            return 1, "one trial"
        over = "starts of one trial" if self.trials == 1 else "trials"
        return len(estimate.left_out), f"paired jackknife over {over}"


def _where(key: Key) -> tuple[object, ...]:
    return key.quantity, key.block, nan if key.at < 0 else float(key.at), key.region


load = Remedies.load


def larger_batches(run: Remedies) -> pd.DataFrame:
    """What more samples would do, beside the remedies: the baseline with a batch of k N′.

        MSE_k = bias² + tr Cov / (k N′)        exact, from what was measured at N′

    A larger batch leaves the bias, divides the variance by k, and costs k times the samples.

    Returns:
        Rows as those of `Remedies.table`, with "batch × k" for an arm and no budget: of mse,
        least_mse, bias2, variance (of a batch's mean) and step_cost, here the samples.
    """
    known = {key: run.cells.estimates((BASELINE,), key) for key in run.cells.keys(BASELINE)}
    errors, variances = (
        {key.at: found[0] for key, found in known.items() if key.quantity == name and found}
        for name in ("mse", "variance")
    )
    groups = {h: len(each.left_out) for h, each in variances.items()}
    shared = [h for h, each in errors.items() if groups.get(h) == len(each.left_out)]
    rows: list[tuple[object, ...]] = []
    for k in (2, 4) if shared else ():
        name, less = f"batch × {k}", (1 - 1 / k) / int(run.config["batch"])
        larger = {
            h: combine(lambda mse, var, less=less: mse - less * var, errors[h], variances[h])
            for h in shared
        }
        n = len(larger[shared[0]].left_out)
        for h in shared:
            numbers = _compared(errors[h], larger[h], ratios=True, trials=run.trials > 1)
            rows.append((name, "", "mse", "", float(h), "all", *numbers, n, "exact in N′"))
            rows.append(_exact(name, "bias2", float(h), 1.0))
            rows.append(_exact(name, "variance", float(h), 1 / k))
        both = _least(run, {h: errors[h] for h in shared}), _least(run, larger)
        numbers = _compared(*both, ratios=True, trials=run.trials > 1)
        rows.append((name, "", "least_mse", "", np.nan, "all", *numbers, n, "exact in N′"))
        rows.append(_exact(name, "step_cost", np.nan, float(k)))
    return pd.DataFrame(rows, columns=list(_PAIRED))


def _least(run: Remedies, errors: Mapping[int, Estimate]) -> Estimate:
    """The smallest error of each trial, over the trials (of a single one: over its starts)."""
    if run.trials == 1:
        left_out = np.min([each.left_out for each in errors.values()], axis=0)
        return Estimate(min(each.value for each in errors.values()), left_out)
    return _over_trials(np.min([pseudo_values(each) for each in errors.values()], axis=0))


def _exact(name: str, quantity: str, at: float, ratio: float) -> tuple[object, ...]:
    """A ratio that no sample is needed for; `first` is the unit."""
    change = ratio - 1.0
    return (
        name, "", quantity, "", at, "all", 1.0, ratio, change, change, change, ratio, ratio, ratio,
        0, "exact",
    )  # fmt: skip
