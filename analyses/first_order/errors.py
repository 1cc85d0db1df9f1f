"""Errors of a first-order row's own gradient, pooled over seeds, by stage and horizon.

Numbers are those of `pooled_gradients`, samples being the paths of an update. A horizon is
usable where its cosine is at least 0.7 and its error at most twice the smallest of the stage, by
whole intervals.

chosen: the horizon of least error at the second stage, the shorter of two equals. With a fixed
window a shorter horizon has more paths, which `error` counts.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analyses.harness.pooled_gradients import Pooled, ends, pooled, with_ends
from gradlab.runs.decision_rules import COSINE, EXCESS, in_ranges
from gradlab.runs.training.results import Training
from gradlab.statistics.moments import combine

DECIDES = 2  # stage
TABLED = ("error", "bias", "noise", "cosine", "bias2_jacobians", "bias2_tail")


def errors_of(run: Training) -> Pooled:
    rows = int(run.config["algorithm"]["batch"])
    return pooled(run, lambda horizon: rows / horizon)


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
        {"stage": stage, "horizon": h, "lost": errors.lost(stage, h)}
        | {
            key: value
            for name in TABLED
            for key, value in with_ends(name, errors.estimate(name, stage, h)).items()
        }
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


def _worded(ranges: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in ranges)
