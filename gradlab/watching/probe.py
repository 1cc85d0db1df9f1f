"""A probe's tables as a live view shows them; in a run of training they have a prefix and seeds."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from gradlab.storage.records import Record
from gradlab.verdicts.probe.returns import seen_in
from gradlab.watching.columns import SEED, Arrays, Column, by_seed, chart
from gradlab.watching.curves import Chart, Curve, Floats, Scale, spread
from gradlab.watching.events import Event, Layer, Progress, paced

SPENT = "time spent by the probe"
COLUMNS = (
    Column("returns", "value", "return of the policy", "whole episode without noise"),
    Column("vitals", "episode_return", "return of an episode", "reward"),
    Column(
        "vitals", "grad_norm", "gradient norm", "before clipping", "log", label="mean",
        also=(("grad_norm_max", "largest"),),
    ),
    Column("vitals", "update_ratio", "update ratio", "|Δθ| / |θ|", "log"),
    Column("vitals", "critic_loss", "critic loss", "as noted", "log"),
    Column("successive", "signal_share", "signal in one gradient", "|E g|² / E |g|²",
             error="share_se"),
    Column("successive", "snr", "signal to noise", "of one batch", "log"),
    Column("successive", "noise_scale", "noise scale", "batches", "log"),
    Column("measured", "chosen_horizon", "chosen horizon", "steps",
             ends=("kept_low", "kept_high")),
    Column("measured", "weight_zero", "weight of horizon 0", "share",
             ends=("weight_zero_low", "weight_zero_high")),
    Column("vitals", "nonfinite_updates", "non-finite gradients", "updates per row"),
    Column("vitals", "saturation", "saturated actions", "share at their limit", entry="action"),
    Column("vitals", "spent", SPENT, "share"),
    Column("measured", "over_data", "model error over data error", "longest horizon", "log",
             error="over_data_se", convert=np.exp),
    Column("measured", "growth", "growth of the variance", "ln per step", error="growth_se"),
    Column("measured", "lyapunov", "Lyapunov exponent", "per step", error="lyapunov_se"),
    Column("measured", "jacobian_error", "Jacobian error of the prior", "of their size", "log",
             error="jacobian_error_se", convert=np.exp),
    Column("measured", "value", "critic's value", "reward", error="value_se", label="value",
             also=(("return_bound", "bound"),)),
)  # fmt: skip


PROFILES: tuple[tuple[str, str, str, Scale], ...] = (
    ("mse", "error of one batch, by horizon", "squared gradient norm", "log"),
    ("bias2", "squared bias, by horizon", "squared gradient norm", "log"),
    ("cosine", "cosine with the true gradient, by horizon", "", "linear"),
)


def charts(record: Record, prefix: str = "") -> list[Chart]:
    """What the probe has measured so far."""
    spent = {"budget": _budget(record)} if np.isfinite(_budget(record)) else {}
    drawn = [
        chart(record, wanted, prefix, spent if wanted.title == SPENT else None)
        for wanted in COLUMNS
    ]
    return [chart for chart in drawn if chart is not None] + _profiles(record, prefix)


def _budget(record: Record) -> float:
    """The share that the probe may take; NaN where the run does not say."""
    config = json.loads(str(record.attributes.get("config", "{}")))
    settings = config.get("settings", {})
    return float(config.get("overhead_budget") or settings.get("probe_budget") or np.nan)


def _profiles(record: Record, prefix: str) -> list[Chart]:
    """Errors over the horizon in the last measurement that has any, a curve per estimator."""
    table = record.groups.get(f"{prefix}measured", {})
    drawn = (_profile(record, table, prefix, *row) for row in PROFILES)
    return [chart for chart in drawn if chart is not None]


def _profile(
    record: Record, table: Arrays, prefix: str, column: str, title: str, unit: str, scale: Scale
) -> Chart | None:
    if column not in table:
        return None
    row, seed = _newest(table[column].values)
    if row is None:
        return None
    columns = [name for name in (column, f"{column}_low", f"{column}_high") if name in table]
    parts = [_of_seed(table[name].values[row], seed) for name in columns]
    value, *sides = (np.clip(part, -1, 1) if column == "cosine" else part for part in parts)
    x = table["horizon"].values.astype(np.float64)
    names = estimators(record)
    curves = [
        Curve(names[k].replace("_", " "), x, value[k], *(side[k] for side in sides))
        for k in range(min(len(value), len(names)))
        if np.isfinite(value[k]).any()
    ]
    at = int(table[table[column].dims[0]].values[row])
    who = "" if seed is None else f", seed {int(table[SEED].values[seed])}"
    starts = spread(by_seed(table["starts"], False)[row].T)[0][0]
    about = f"measured at {at:,}{who}, {starts:.0f} starts; 95% interval where you point"
    return Chart(f"{prefix}profile-{column}", title, unit, curves, scale, "horizon", about)


def _newest(values: Floats) -> tuple[int | None, int | None]:
    """The last row [estimators, horizons] with a value, and of seeds the one that has it."""
    rows = np.flatnonzero(np.isfinite(values).any(axis=tuple(range(1, values.ndim))))
    if not len(rows):
        return None, None
    row = int(rows[-1])
    if values.ndim == 3:
        return row, None
    return row, int(np.isfinite(values[row]).any(axis=(1, 2)).argmax())


def _of_seed(row: Floats, seed: int | None) -> Floats:
    return np.asarray(row if seed is None else row[seed])


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
    due = record.groups.get("vitals", {}).get("due")
    if due is not None and len(due.values) and due.values[-1]:
        facts["due"] = str(due.values[-1])
    returns, episodes = (
        {name: array.values for name, array in record.groups.get(table, {}).items()}
        for table in ("returns", "episodes")
    )
    if (lately := seen_in(returns, episodes)) is not None:
        facts["return"] = " ".join(filter(None, (lately.text, lately.count)))
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
    columns = [spread(by_seed(table[name], False)[-1].T)[0] for name in names]
    tensors = parameters(record)
    return [
        Layer(tensors[k] if k < len(tensors) else f"tensor {k}", *map(float, values))
        for k, values in enumerate(zip(*columns, strict=True))
    ]
