"""The few numbers of a row that belong beside a trainer's own: the log has all of them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

HEADLINE = {
    "vitals/grad_norm": "grad_norm",
    "vitals/update_ratio": "update_ratio",
    "vitals/spent": "overhead",
    "successive/signal_share": "signal_share",
    "successive/cosine": "cosine",
    "measured/chosen_horizon": "best_horizon",
    "measured/lyapunov_horizon": "lyapunov_steps",
    "measured/value": "critic_value",
}
SATURATION = "vitals/saturation/"


def headline(row: Mapping[str, Any]) -> dict[str, float]:
    """Finite numbers by short name, of a row as a log function gets it."""
    metrics = {short: float(row[name]) for name, short in HEADLINE.items() if name in row}
    saturated = [float(value) for name, value in row.items() if name.startswith(SATURATION)]
    if saturated:
        metrics["saturation"] = max(saturated)
    return {f"gradlab/{name}": value for name, value in metrics.items() if isfinite(value)}
