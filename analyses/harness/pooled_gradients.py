"""A row's measured gradient and its truth, summed over seeds before they are divided.

    error    Σ (bias² + variance / samples) / Σ |E T|², samples of an update at that horizon
    bias, noise      its two parts
    states, jacobians, critic    parts of the squared bias, Σ part / Σ bias²
    cosine   Σ E G · E T / √(Σ |E G|² Σ |E T|²)

Sums are over the seeds of a stage (stage 0: of all stages, which weighs them by their size), since
a single seed's gradient is small and its truth uncertain; intervals leave one seed out in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradlab.runs.training.results import Training
from gradlab.statistics.comparison import difference
from gradlab.statistics.moments import Estimate

SUMMED = ("bias2", "variance", "gradient2", "truth2", "inner")
PARTS = {"states": "bias2_states", "jacobians": "bias2_jacobians", "critic": "bias2_tail"}
Floats = NDArray[np.float64]
Columns = Mapping[str, Floats]


@dataclass(frozen=True)
class Pooled:
    """One run's columns [stages, seeds, horizons], NaN where a seed's measurement is lost.

    Attributes:
        samples: of an update at each horizon; iterations: of the stages.
    """

    columns: Columns
    horizons: tuple[int, ...]
    samples: Floats
    iterations: tuple[int, ...]

    def sums(self, stage: int, horizon: int) -> dict[str, float]:
        """Of every column."""
        return {name: float(np.nansum(x)) for name, x in self._part(stage, horizon).items()}

    def lost(self, stage: int, horizon: int) -> int:
        """Measurements that were lost."""
        return int(np.isnan(self._part(stage, horizon)["inner"]).sum())

    def estimate(self, name: str, stage: int, horizon: int) -> Estimate:
        """`error`, `bias`, `noise`, `cosine`, a part of the bias, or a column over Σ |E T|²; NaN
        where noise leaves a square below 0, or every seed's measurement is lost."""
        part, samples = self._part(stage, horizon), self.samples[self.horizons.index(horizon)]
        statistic = _STATISTICS.get(name, lambda own, samples: _over_truth(own, own[name]))
        left_out = [
            statistic({key: np.delete(x, seed, axis=1) for key, x in part.items()}, samples)
            for seed in range(part["inner"].shape[1])
        ]
        return Estimate(statistic(part, samples), np.array(left_out))

    def _part(self, stage: int, horizon: int) -> dict[str, Floats]:
        """[stages, seeds]"""
        at = slice(None) if stage == 0 else slice(stage - 1, stage)
        j = self.horizons.index(horizon)
        return {name: values[at, :, j] for name, values in self.columns.items()}


def pooled(run: Training, samples: Callable[[int], float]) -> Pooled:
    """
    Args:
        samples: of an update, by horizon.
    """
    table = run.gradients
    names = (*SUMMED, *(name for name in PARTS.values() if name in table))
    columns = {name: np.asarray(table[name], dtype=np.float64) for name in names}
    lost = np.isnan(list(columns.values())).any(axis=0)
    columns = {name: np.where(lost, np.nan, values) for name, values in columns.items()}
    horizons = tuple(int(h) for h in table["horizon"])
    counts = np.array([samples(h) for h in horizons], dtype=np.float64)
    return Pooled(columns, horizons, counts, tuple(int(k) for k in table["iteration"]))


def ends(estimate: Estimate) -> tuple[float, float, float]:
    """Value, low and high; NaN where a left-out value is none."""
    bounds = difference(estimate, Estimate(0.0, np.zeros(len(estimate.left_out))))
    return estimate.value, bounds.low, bounds.high


def with_ends(name: str, estimate: Estimate) -> dict[str, float]:
    """As columns of a table."""
    value, low, high = ends(estimate)
    return {name: value, f"{name} low": low, f"{name} high": high}


def _share(part: str) -> Callable[[Columns, float], float]:
    def statistic(own: Columns, _: float) -> float:
        whole = np.nansum(own["bias2"])
        return float(np.nansum(own[part]) / whole) if whole > 0 else np.nan

    return statistic


def _over_truth(own: Columns, values: Floats) -> float:
    true = np.nansum(own["truth2"])
    return float(np.nansum(values) / true) if true > 0 else np.nan


def _cosine(own: Columns, samples: float) -> float:
    inner, own2, true2 = (float(np.nansum(own[n])) for n in ("inner", "gradient2", "truth2"))
    return inner / (own2 * true2) ** 0.5 if own2 > 0 and true2 > 0 else np.nan


_STATISTICS: Mapping[str, Callable[[Columns, float], float]] = {
    "error": lambda own, samples: _over_truth(own, own["bias2"] + own["variance"] / samples),
    "bias": lambda own, samples: _over_truth(own, own["bias2"]),
    "noise": lambda own, samples: _over_truth(own, own["variance"] / samples),
    "cosine": _cosine,
    **{name: _share(part) for name, part in PARTS.items()},
}
