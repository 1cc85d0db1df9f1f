"""A probe's tables as a live view shows them; in a run of training they have a prefix and seeds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gradlab.records import Record
from gradlab.statistics.intervals import Z
from gradlab.watching.curves import Chart, Curve, Floats
from gradlab.watching.events import Event, Layer, Progress, paced
from gradlab.watching.quantities import SEED, Quantity, by_seed, chart

SPENT = "share of the time spent by the probe"
QUANTITIES = (
    Quantity(
        "vitals", "grad_norm", "gradient norm", "before clipping", "log", label="mean",
        also=(("grad_norm_max", "largest"),),
    ),
    Quantity("vitals", "update_ratio", "update ratio", "|Δθ| / |θ|", "log"),
    Quantity("successive", "signal_share", "signal in one gradient", "|E g|² / E |g|²",
             error="share_se"),
    Quantity("successive", "snr", "signal to noise", "of one batch", "log"),
    Quantity("successive", "noise_scale", "noise scale", "batches", "log"),
    Quantity("measured", "chosen_horizon", "chosen horizon", "steps",
             ends=("kept_low", "kept_high")),
    Quantity("measured", "weight_zero", "weight of horizon 0", "share",
             ends=("weight_zero_low", "weight_zero_high")),
    Quantity("vitals", "nonfinite_updates", "non-finite gradients", "updates per row"),
    Quantity("vitals", "saturation", "saturated actions", "share at their limit", entry="action"),
    Quantity("vitals", "spent", SPENT, "share"),
    Quantity("measured", "growth", "growth of the variance", "ln per step", error="growth_se"),
    Quantity("measured", "lyapunov", "Lyapunov exponent", "per step", error="lyapunov_se"),
    Quantity("measured", "jacobian_error", "Jacobian error of the prior", "of their size", "log",
             error="jacobian_error_se", convert=np.exp),
    Quantity("measured", "value", "critic's value", "reward", error="value_se", label="value",
             also=(("return_bound", "bound"),)),
)  # fmt: skip


def charts(record: Record, prefix: str = "") -> list[Chart]:
    """What the probe has measured so far."""
    spent = {"budget": _budget(record)} if np.isfinite(_budget(record)) else {}
    found = [
        chart(record, wanted, prefix, spent if wanted.title == SPENT else None)
        for wanted in QUANTITIES
    ]
    return [each for each in found if each is not None] + _profiles(record, prefix)


def _budget(record: Record) -> float:
    """The share that the probe may take; NaN where the run does not say."""
    config = json.loads(str(record.attributes.get("config", "{}")))
    settings = config.get("settings", {})
    return float(config.get("overhead_budget") or settings.get("probe_budget") or np.nan)


def _profiles(record: Record, prefix: str) -> list[Chart]:
    """Bias and error over the horizon in the last measurement, one curve per estimator."""
    table = record.groups.get(f"{prefix}measured", {})
    if not {"bias2", "bias2_se", "mse", "horizon"} <= table.keys() or not len(table["mse"].values):
        return []
    row = {name: _newest(table[name].values) for name in ("bias2", "bias2_se", "mse")}
    if not np.isfinite(row["mse"]).any():
        return []
    at = int(table[table["mse"].dims[0]].values[-1])
    starts = int(np.nanmax(table["starts"].values[-1])) if "starts" in table else 0
    about = f"last measured at {at}, {starts} starts"
    error = Z * row["bias2_se"]
    low, high = row["bias2"] - error, row["bias2"] + error
    names, x = estimators(record), table["horizon"].values.astype(np.float64)
    unit = "squared gradient norm"
    return [
        Chart(f"{prefix}profile-mse", "error of one batch, by horizon", unit,
              _lines(names, x, row["mse"]), "log", "horizon", about),
        Chart(f"{prefix}profile-bias2", "squared bias, by horizon", unit,
              _lines(names, x, row["bias2"], low, high), "log", "horizon",
              f"{about}; band: 95% interval"),
    ]  # fmt: skip


def _newest(values: Floats) -> Floats:
    """The last row, [estimators, horizons]; with seeds, of the one that was measured in it."""
    row = values[-1]
    if row.ndim == 2:
        return np.asarray(row)
    known = np.isfinite(row).any(axis=(1, 2))
    return np.asarray(row[int(known.argmax())])


def _lines(
    names: tuple[str, ...], x: Floats, value: Floats,
    low: Floats | None = None, high: Floats | None = None,
) -> list[Curve]:  # fmt: skip
    ends = low, high
    return [
        Curve(name.replace("_", " "), x, value[k], *(None if p is None else p[k] for p in ends))
        for k, name in enumerate(names[: len(value)])
        if np.isfinite(value[k]).any()
    ]


def estimators(record: Record) -> tuple[str, ...]:
    return tuple(map(str, json.loads(str(record.attributes.get("estimators", "[]")))))


def parameters(record: Record) -> tuple[str, ...]:
    """Names of the policy's tensors."""
    return tuple(map(str, json.loads(str(record.attributes.get("parameters", "[]")))))


def head(record: Record) -> tuple[str, dict[str, str]]:
    """Title and facts."""
    task = str(record.attributes.get("task", ""))
    facts = {
        "task": task or "none given",
        "tensors": str(len(parameters(record))),
        "budget": f"{_budget(record):.1%} of the time",
    }
    return f"probe on {task}" if task else "probe", facts


def progress(record: Record) -> Progress:
    rows = record.groups["vitals"]
    return paced("update", None, rows["update"].values, rows["elapsed"].values)


def events(record: Record, prefix: str = "") -> list[Event]:
    """The alarms; those of a run of training name their seed."""
    table: Any = record.groups.get(f"{prefix}alarms", {})
    if not table:
        return []
    columns = [table[name].values for name in ("update", "alarm", "message")]
    count = len(columns[0])
    seeds = table[SEED].values if SEED in table else np.full(count, np.nan)
    return [
        Event(int(at), str(kind), f"seed {int(seed)}: {text}" if np.isfinite(seed) else str(text))
        for at, kind, text, seed in zip(*columns, seeds, strict=True)
    ]


def layers(record: Record, prefix: str = "") -> list[Layer]:
    """Every tensor in the last row of vitals, medians over seeds."""
    table = record.groups.get(f"{prefix}vitals", {})
    names = ("layer_norm", "layer_ratio", "nonfinite", "zero")
    if not table or not all(name in table for name in names) or not len(table["zero"].values):
        return []
    columns = [np.nanmedian(by_seed(table[name], False)[-1], axis=0) for name in names]
    known = parameters(record)
    return [
        Layer(known[k] if k < len(known) else f"tensor {k}", *map(float, values))
        for k, values in enumerate(zip(*columns, strict=True))
    ]
