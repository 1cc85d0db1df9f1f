"""Runs of a probe by formula, written through the journal as a probe writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from gradlab.findings import Finding
from gradlab.runs.probe import schema
from gradlab.storage.journal import Journal

H, STARTS, BATCH = 4, 64, 256
NAMES = ("network.0.weight", "network.0.bias", "network.2.weight", "network.2.bias")
ENVIRONMENT = {"gradlab": "0.1.0", "torch": "2.13.0", "created": "2026-01-01", "commit": "0123abc"}
Rows = Mapping[str, Sequence[Mapping[str, Any]]]


def opened(
    path: Path, names: Sequence[str] = NAMES, actions: int = 2, horizon: int | None = H,
    every: int = 50, task: str = "planted", without: Sequence[str] = (),
    critic_alone: bool = False, **more: Any,
) -> Journal:  # fmt: skip
    """The journal of a run, as a probe opens it, `without` some columns."""
    config = {"seed": 0, "every": every, "critic_alone": critic_alone}
    head = schema.attributes(names, task, config, ENVIRONMENT) | more
    tables = {
        name: replace(table, columns={k: v for k, v in table.columns.items() if k not in without})
        for name, table in schema.tables(len(names), actions, horizon).items()
    }
    return Journal(path, tables, head)


def written(path: Path, rows: Rows, **about: Any) -> Path:
    """A run as a killed loop leaves it: its journal, not folded, which takes a second."""
    append(opened(path, **about), rows)
    return path


def append(journal: Journal, rows: Rows) -> None:
    """The columns that each table has."""
    for table, each in rows.items():
        known = journal.tables[table]
        for row in each:
            journal.append(
                table, {k: v for k, v in row.items() if k in (known.index, *known.columns)}
            )


def everything(vitals: int = 30) -> Rows:
    """Rows of every table."""
    return {
        "vitals": [window(k) for k in range(1, vitals + 1)],
        "successive": [burst(40 * k) for k in range(1, 13)],
        "measured": [measurement(400 * k, error=0.1 * k) for k in range(1, 4)],
        "returns": [episode(k) for k in range(64)],
        "episodes": [episode(k) for k in range(24)],
        "findings": [
            answer(0, 1000, "dead path", since=499),
            answer(1, 1200),
            answer(2, 1200, "moved_own", "pass"),
        ],
    }


def window(k: int, **changes: Any) -> dict[str, Any]:
    """Row k of vitals: a hundred updates, one second each, of which 4% went to the probe."""
    layers = len(NAMES)
    return {
        "update": 100 * k, "step": 100 * k - 1, "looked": 100, "grad_norm": 1.0 + 1 / k,
        "grad_norm_max": 3.0, "marked": 1, "update_ratio": 1e-3,
        "layer_norm": np.arange(layers) + k,
        "nonfinite": np.zeros(layers),
        "nonfinite_updates": 0, "zero": np.zeros(layers), "saturation": np.array([0.1, 0.2]),
        "attenuation": np.array([0.9, 0.8]),
        "watched": 25, "own_seconds": 4.0 * k,
        "elapsed": 100.0 * k, "spent": 0.04,
    } | changes  # fmt: skip


def burst(update: int, share: float = 0.4, se: float = 0.02, energy: float = 2.0) -> dict[str, Any]:
    """32 pairs of successive gradients."""
    return {
        "update": update, "step": update - 1, "pairs": 32, "fresh": 32, "energy": energy,
        "signal": share * energy, "root_squares": 1.0, "signal_share": share, "share_se": se,
        "cosine": share**0.5,
    }  # fmt: skip


def measurement(update: int, error: float = 0.2, **changes: Any) -> dict[str, Any]:
    """One on the task: of the four gradients the model's at h = 2 is best, and nearly at 3."""
    h = np.arange(H + 1.0)
    bias = np.stack([np.where(h == 0, 1.0, np.nan), 0.2 + 0.2 * (h - 2) ** 2, 0.5 + 0 * h, 0.6**h])
    variance = np.stack([np.where(h == 0, 9.0, np.nan), *[10 * 1.5**h] * 3])
    mse = bias + variance / BATCH
    cells = {"bias2": bias, "variance": variance, "mse": mse, "cosine": 1 - bias / 10}
    ends = {
        f"{name}_{end}": value * factor
        for name, value in cells.items()
        for end, factor in (("low", 0.8), ("high", 1.0 if name == "cosine" else 1.3))
    }
    kept = np.zeros((4, H + 1))
    kept[1, 2:4] = 1
    return {
        "update": update, "step": update - 1, "starts": STARTS, **cells, **ends,
        "batch": BATCH, "truth_norm": 1.0, "chosen_estimator": 1, "chosen_horizon": 2, "kept": kept,
        "kept_low": 2, "kept_high": 3, "weight_zero": 0.2, "weight_zero_low": 0.1,
        "weight_zero_high": 0.3, "growth": np.log(1.5), "growth_se": 0.01, "growth_evidence": 40.0,
        "critic_gap": 0.5, "critic_gap_se": 0.1, "over_data": np.log(0.25), "over_data_se": 0.1,
        "lyapunov": 0.05, "lyapunov_se": 0.01,
        "chain_norm": 0.05 * np.arange(26), "jacobian_error": np.log(error),
        "jacobian_error_se": 0.01, "jacobian_states": 1600, "jacobian_nonfinite": 0,
        "starts_lost": 0, "nonfinite_where": "", "value": -50.0, "value_se": 1.0,
        "reward_max": 2.0, "return_bound": 100.0,
    } | changes  # fmt: skip


def episode(k: int, window: int = 16) -> dict[str, Any]:
    """Of windows whose mean rises by 5."""
    return {
        "number": k, "update": 45 * (k + 1), "step": 45 * (k + 1) - 1, "length": 200.0,
        "value": 5.0 * (k // window) + (-1.0) ** k, "episodes": 1,
    }  # fmt: skip


def answer(
    number: int, update: int, code: str = "saturated actor", decision: str = "fail", **more: Any
) -> dict[str, Any]:
    """The newest answer of a check."""
    found = Finding(code, decision, at=f"action {number}", value=0.9, n=16)  # type: ignore[arg-type]
    when = {"update": update, "step": update - 1, "looks": 1, "number": number}
    since = {"since": update - 1 if decision == "fail" else -1}
    return asdict(found) | when | since | more
