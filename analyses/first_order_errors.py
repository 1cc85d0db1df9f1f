"""Errors of a first-order row's own gradient, pooled over seeds, by stage and horizon.

    error    Σ (bias² + variance / paths) / Σ |E T|², paths of an update at that horizon
    bias, noise      its two parts
    cosine   Σ E G · E T / √(Σ |E G|² Σ |E T|²)

Sums are over the seeds of a stage (stage 0: of all stages) before they are divided, since a single
seed's gradient is small and its truth uncertain; intervals leave one seed out in turn. A horizon is
usable where its cosine is at least 0.7 and its error at most twice the smallest of the stage, by
whole intervals.

chosen: the horizon of least error at the second stage, the shorter of two equals. With a fixed
window a shorter horizon has more paths, which `error` counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.runs.training.results import Training
from gradlab.runs.usable_horizons import COSINE, EXCESS, in_ranges
from gradlab.statistics.comparison import difference
from gradlab.statistics.moments import Estimate, combine

SUMMED = ("bias2", "variance", "gradient2", "truth2", "inner", "bias2_jacobians", "bias2_tail")
DECIDES = 2  # stage
Floats = NDArray[np.float64]
Columns = Mapping[str, Floats]


@dataclass(frozen=True)
class Errors:
    """One run's columns [stages, seeds, horizons], NaN where a seed's measurement is lost.

    Attributes:
        paths: of an update at each horizon; iterations: of the stages.
    """

    columns: Columns
    horizons: tuple[int, ...]
    paths: Floats
    iterations: tuple[int, ...]

    def estimate(self, name: str, stage: int, horizon: int) -> Estimate:
        """`error`, `bias`, `noise`, `cosine`, or a column over Σ |E T|²."""
        j = self.horizons.index(horizon)
        k = slice(None) if stage == 0 else slice(stage - 1, stage)
        part = {key: values[k, :, j] for key, values in self.columns.items()}
        statistic = _STATISTICS.get(name, lambda own, paths: _over_truth(own, own[name]))
        count = part["inner"].shape[1]
        with np.errstate(invalid="ignore", divide="ignore"):
            left_out = [
                statistic({key: np.delete(values, seed, axis=1) for key, values in part.items()},
                          self.paths[j])
                for seed in range(count)
            ]  # fmt: skip
            return Estimate(statistic(part, self.paths[j]), np.array(left_out))


def errors_of(run: Training) -> Errors:
    table = run.gradients
    columns = {name: np.asarray(table[name], dtype=np.float64) for name in SUMMED}
    lost = np.isnan([columns[name] for name in SUMMED]).any(axis=0)
    columns = {name: np.where(lost, np.nan, values) for name, values in columns.items()}
    horizons = tuple(int(h) for h in table["horizon"])
    rows = int(run.config["algorithm"]["batch"])
    paths = rows / np.array(horizons, dtype=np.float64)
    return Errors(columns, horizons, paths, tuple(int(k) for k in table["iteration"]))


def chosen(run: Training) -> int:
    """See above; the row's own horizon where no error is known."""
    errors = errors_of(run)
    values = [errors.estimate("error", DECIDES, h).value for h in errors.horizons]
    if not np.isfinite(values).any():
        return errors.horizons[-1]
    return errors.horizons[int(np.nanargmin(values))]


def table(run: Training) -> pd.DataFrame:
    """One row per stage and horizon."""
    errors = errors_of(run)
    return pd.DataFrame(
        {"stage": stage, "horizon": h, "lost": _lost(errors, stage, h)}
        | dict(_numbers(errors, stage, h))
        for stage in range(len(errors.iterations) + 1)
        for h in errors.horizons
    )


def usable(run: Training) -> pd.DataFrame:
    """Of every stage, the ranges of usable and of undecided horizons, and that of least error."""
    errors, rows = errors_of(run), []
    for stage in range(1, len(errors.iterations) + 1):
        own = {h: errors.estimate("error", stage, h) for h in errors.horizons}
        known = {h: one for h, one in own.items() if np.isfinite(one.value)}
        if not known:
            rows.append({"stage": stage, "least": np.nan, "usable": "", "undecided": ""})
            continue
        least = min(known, key=lambda h: known[h].value)
        sure, possible = [], []
        for h in errors.horizons:
            _, low, high = ends(errors.estimate("cosine", stage, h))
            _, less, more = ends(combine(lambda a, b: a - EXCESS * b, own[h], own[least]))
            sure.append(low >= COSINE and more <= 0)
            possible.append(not high < COSINE and not less > 0)
        ranges = in_ranges(errors.horizons, sure, possible)
        rows.append({
            "stage": stage, "least": least, "usable": _worded(ranges.usable),
            "undecided": _worded(ranges.undecided),
        })  # fmt: skip
    return pd.DataFrame(rows)


def ends(estimate: Estimate) -> tuple[float, float, float]:
    """Value, low and high; NaN where a left-out value is none."""
    bounds = difference(estimate, Estimate(0.0, np.zeros(len(estimate.left_out))))
    return estimate.value, bounds.low, bounds.high


def _worded(ranges: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in ranges)


def _numbers(errors: Errors, stage: int, h: int) -> Iterator[tuple[str, float]]:
    for name in ("error", "bias", "noise", "cosine", "bias2_jacobians", "bias2_tail"):
        value, low, high = ends(errors.estimate(name, stage, h))
        yield from ((name, value), (f"{name} low", low), (f"{name} high", high))


def _lost(errors: Errors, stage: int, h: int) -> int:
    values = errors.columns["inner"][:, :, errors.horizons.index(h)]
    return int(np.isnan(values if stage == 0 else values[stage - 1]).sum())


def _over_truth(own: Columns, values: Floats) -> float:
    """NaN where noise leaves the squared truth below 0."""
    true = np.nansum(own["truth2"])
    return float(np.nansum(values) / true) if true > 0 else np.nan


def _cosine(own: Columns, paths: float) -> float:
    inner, size, true = (np.nansum(own[name]) for name in ("inner", "gradient2", "truth2"))
    return float(inner / np.sqrt(size * true))


_STATISTICS: Mapping[str, Callable[[Columns, float], float]] = {
    "error": lambda own, paths: _over_truth(own, own["bias2"] + own["variance"] / paths),
    "bias": lambda own, paths: _over_truth(own, own["bias2"]),
    "noise": lambda own, paths: _over_truth(own, own["variance"] / paths),
    "cosine": _cosine,
}
