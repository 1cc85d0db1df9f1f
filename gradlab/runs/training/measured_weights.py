"""Measured weights beside the rule's, as a table for figures, and outcomes of measurements."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.runs.training.results import Floats, Training
from gradlab.statistics.intervals import skewness_corrected
from gradlab.statistics.moments import Estimate

SWITCHED, KEPT, NO_TRUTH, LOST = range(4)  # outcomes of a measurement
FEWEST = 3  # seeds that make an interval
_SAME = 1e-6  # of a weight: closer weights have the same error


def table(run: Training) -> pd.DataFrame:
    """One row per measurement, seed, quantity and horizon, for the figures.

    Quantities: "in force", "measured" (the best ones) and "rule", weights of a horizon; "over
    rule", the MSE of what was in force before, over that of the rule's weights, with its 95%
    interval, at horizon −1; "switched", 1 or 0, likewise; and where weights are measured by gain
    "gain over rule", the gain of what was in force less that of the rule's weights.
    """
    results, parts = run.weights, []
    for k, seed in enumerate(run.seeds):
        for j, horizon in enumerate(run.horizons):
            columns = {
                "in force": results["in_force"][:, k, j],
                "measured": results["measured"][:, k, j],
                "rule": results["rule"][:, j],
            }
            parts += [_part(run, seed, name, horizon, value) for name, value in columns.items()]
        ratio, low, high = (results[f"over_rule{end}"][:, k] for end in ("", "_low", "_high"))
        parts.append(_part(run, seed, "over rule", -1, ratio, low, high))
        if by_gain(run):
            gap = (results[f"gain_over_rule{end}"][:, k] for end in ("", "_low", "_high"))
            parts.append(_part(run, seed, "gain over rule", -1, *gap))
        switched = (results["outcome"][:, k] == SWITCHED).astype(float)
        parts.append(_part(run, seed, "switched", -1, switched))
    return pd.concat(parts, ignore_index=True)


def _part(
    run: Training,
    seed: int,
    quantity: str,
    horizon: int,
    value: Floats,
    low: Floats | float = np.nan,
    high: Floats | float = np.nan,
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "iteration": run.weights["iteration"], "seed": int(seed), "quantity": quantity,
            "horizon": int(horizon), "value": value, "ci_low": low, "ci_high": high,
        }
    )  # fmt: skip


def by_gain(run: Training) -> bool:
    """Did gains decide, rather than errors?"""
    return bool(run.config["algorithm"]["weights"]["by"] == "gain")


def gains_over_rule(run: Training) -> list[Floats]:
    """Of each seed gain in force − gain of the rule at measurements where weights differed."""
    gap = run.weights["gain_over_rule"]
    return [gap[differ & np.isfinite(gap[:, k]), k] for k, differ in enumerate(_differing(run))]


def _differing(run: Training) -> list[NDArray[np.bool_]]:
    """Of each seed, the measurements at which other weights than the rule's were in force."""
    found, masks = run.weights, []
    for k in range(len(run.seeds)):
        before = np.concatenate([found["rule"][:1], found["in_force"][:-1, k]])
        differ = np.abs(before - found["rule"]).max(axis=1) > _SAME
        # A seed that follows the rule has the rule's weights of now, not those of the last time.
        own = np.cumsum(found["outcome"][:, k] == SWITCHED) > 0
        masks.append(differ & np.concatenate([[False], own[:-1]]))
    return masks


def logs_over_rule(run: Training) -> list[Floats]:
    """Of each seed log(MSE in force / MSE of the rule) at measurements where weights differed."""
    logs = []
    for k, differ in enumerate(_differing(run)):
        with np.errstate(invalid="ignore", divide="ignore"):
            log = np.log(run.weights["over_rule"][:, k])
        logs.append(log[differ & np.isfinite(log)])
    return logs


def interval_of_mean(values: Floats) -> tuple[float, float]:
    """95%, over values that are independent, each left out in turn."""
    left_out = (values.sum() - values) / (len(values) - 1)
    return skewness_corrected(Estimate(float(values.mean()), left_out))
