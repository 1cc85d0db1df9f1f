"""Results as rows of the long table (its sections: `gradlab.runs.logs`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradlab.jacobians.visited import At, RowCollector, number
from gradlab.logs.agreement import TableEntry
from gradlab.logs.direction import Directional, PredictionErrors
from gradlab.logs.on_policy import Judged, Residuals
from gradlab.statistics.growth import Growth
from gradlab.statistics.intervals import Z
from gradlab.statistics.over_groups import Estimates


def add_numbers(
    rows: RowCollector, section: str, block: str, step: int, numbers: Sequence[TableEntry], n: int
) -> None:
    """One row per number, of n trajectories."""
    for entry in numbers:
        rows.add(section, entry.quantity, _one(entry, n), At(block=block, step=step))


def _one(number: TableEntry, n: int) -> Estimates:
    span = number.interval
    value, se, low, high = (
        np.array([number_or_end])
        for number_or_end in (number.estimate.value, span.se, span.low, span.high)
    )
    return Estimates(value, se, low, high, np.array([n]), span.method)


def add_growth(rows: RowCollector, growth: Growth | None, n: int) -> None:
    """Slope of the log variance of the model's gradient per step, from `step` on."""
    if growth is not None:
        slope = number(growth.slope, growth.low, growth.high, n, "jackknife")
        rows.add("gradient", "variance_slope", slope, At(block="model", step=growth.onset))


def add_policy(rows: RowCollector, residuals: Residuals, names: Sequence[str]) -> None:
    """Residuals of every action, and the p-value of all of them together."""
    n = np.full(len(names), residuals.rows)
    for quantity, value, se in (
        ("mean", residuals.mean, residuals.mean_se),
        ("spread", residuals.spread, residuals.spread_se),
    ):
        row = Estimates(value, se, value - Z * se, value + Z * se, n, "normal")
        rows.add("policy", quantity, row, At(output=names))
    nothing = np.full(len(names), np.nan)
    for quantity, value in (("distance", residuals.distance), ("explained", residuals.explained)):
        row = Estimates(value, nothing, nothing, nothing, n, "")
        rows.add("policy", quantity, row, At(output=names))
    whole = number(residuals.p_value, np.nan, np.nan, residuals.rows, "Bonferroni")
    rows.add("policy", "p_value", whole)


def add_critic(rows: RowCollector, name: str, judged: Judged, n: int) -> None:
    """Of one critic."""
    for quantity, (estimate, span) in judged.items():
        rows.add("critic", quantity, _one(TableEntry(quantity, estimate, span), n), At(block=name))


def add_directions(rows: RowCollector, directional: Directional, names: Sequence[str]) -> None:
    """Per output, and "all" of them together."""
    for quantity, judged in (("error", directional.error), ("noise", directional.noise)):
        for output, (estimate, span) in zip([*names, "all"], judged, strict=True):
            row = _one(TableEntry(quantity, estimate, span), directional.trajectories)
            rows.add("direction", quantity, row, At(output=output))
    near = number(directional.distance, np.nan, np.nan, directional.rows, "median")
    rows.add("direction", "distance", near)


def add_prediction(rows: RowCollector, prediction: PredictionErrors) -> None:
    """Error after k steps."""
    steps = np.arange(1, len(prediction.error.value) + 1)
    rows.add("prediction", "error", prediction.error, At(step=steps))
