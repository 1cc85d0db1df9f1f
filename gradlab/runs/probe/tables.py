"""A probe's run as tables for figures and sentences: numbers with their 95% intervals.

    curves      a row per step, quantity and place (a tensor, an action, a tier)
    profiles    a row per step, estimator, horizon and quantity, as `Profile.table` has them
    chains, choices      per step: Jacobians chained; gradients that may have the smallest error

Rows at one step, as in PPO, stand side by side after the step before. Long runs are thinned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.runs.probe.results import Columns, ProbeRun
from gradlab.runs.probe.returns import TRAINED, WINDOW, Returns
from gradlab.runs.probe.schema import CELLS
from gradlab.statistics.intervals import Z
from gradlab.statistics.successive import Signal, pooled

_Floats = NDArray[np.float64]
_Ends = tuple[_Floats, _Floats]
_WINDOWS = 240  # rows of vitals that a figure can show
_BURSTS = 60  # bursts that a figure can show
_NUMBERS = ("value", "ci_low", "ci_high")


def curves(run: ProbeRun) -> pd.DataFrame:
    """Everything that has one value per step.

    Returns:
        step, quantity, place, value, ci_low, ci_high (NaN: no interval).
    """
    run = apart(run)
    parts = [rows for part in (_returns, _vitals, _successive, _measured) for rows in part(run)]
    return _together(parts, ["step", "quantity", "place", *_NUMBERS])


def apart(run: ProbeRun) -> ProbeRun:
    """Every row of a table at a step of its own."""
    names = ("vitals", "successive", "measured", "returns", "episodes")
    tables: dict[str, Any] = {name: _apart(getattr(run, name)) for name in names}
    return replace(run, **tables)


def _apart(columns: Columns) -> Columns:
    step = np.asarray(columns.get("step", ()), dtype=np.float64)
    if len(np.unique(step)) == len(step):
        return columns
    steps, group, count = np.unique(step, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    rank = np.empty(len(step))
    rank[order] = np.arange(len(step)) - np.repeat(np.cumsum(count) - count, count)
    before = np.concatenate([[min(0.0, steps[0] - 1)], steps[:-1]])[group]
    return {**columns, "step": before + (rank + 1) / count[group] * (step - before)}


def profiles(run: ProbeRun) -> pd.DataFrame:
    """Bias, variance and the like by horizon at every measurement; what is unknown is left out.

    Returns:
        step, estimator, horizon, quantity, value, ci_low, ci_high.
    """
    run = apart(run)
    parts = [_cells(run, quantity) for quantity in CELLS if quantity in run.measured]
    return _together(parts, ["step", "estimator", "horizon", "quantity", *_NUMBERS])


def _together(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """All rows; without any a table that figures find empty."""
    if parts:
        return pd.concat(parts, ignore_index=True)[columns]
    nothing = pd.DataFrame(columns=columns)
    return nothing.astype({name: float for name in _NUMBERS if name in columns})


def chains(run: ProbeRun) -> pd.DataFrame:
    """Growth of the chained Jacobians at every measurement.

    Returns:
        step, horizon (steps chained), value: mean log₁₀ of the largest singular value.
    """
    run = apart(run)
    value = run.measured.get("chain_norm", np.empty((0, 0)))
    row, chained = (each.ravel() for each in np.indices(value.shape))
    step = run.measured["step"][row] if len(row) else np.empty(0)
    table = {"step": step, "horizon": chained, "value": value.ravel()}
    finite = np.isfinite(value.ravel())
    rows = pd.DataFrame({name: each[finite] for name, each in table.items()})
    return rows.assign(ci_low=np.nan, ci_high=np.nan)


def choices(run: ProbeRun) -> pd.DataFrame:
    """The gradients that may have the smallest error, at every measurement that has a truth.

    Returns:
        step, estimator, horizon, chosen (whether it is the smallest estimate).
    """
    if not run.measured:
        return pd.DataFrame(columns=["step", "estimator", "horizon", "chosen"])
    names, columns = np.array(run.estimators, dtype=object), apart(run).measured
    kept = columns["kept"] == 1
    best = columns["chosen_estimator"][:, None, None], columns["chosen_horizon"][:, None, None]
    _, estimator, horizon = np.indices(kept.shape)
    chosen = (estimator == best[0]) & (horizon == best[1])
    row, e, h = np.nonzero(kept | chosen)
    cell = {"step": columns["step"][row], "estimator": names[e], "horizon": h}
    return pd.DataFrame({**cell, "chosen": chosen[row, e, h]})


def signals(run: ProbeRun) -> tuple[_Floats, list[Signal]]:
    """Step and finding of every burst of successive gradients that was finite."""
    if not run.successive:
        return np.empty(0), []
    names = ("energy", "signal", "root_squares", "signal_share", "share_se")
    # Pairs that share samples do not count.
    columns = np.stack([run.successive[name] for name in ("fresh", *names)], axis=1)
    finite = np.isfinite(columns).all(axis=1)
    estimates = [Signal(int(n), *map(float, rest)) for n, *rest in columns[finite]]
    return run.successive["step"][finite], estimates


def _cells(run: ProbeRun, quantity: str) -> pd.DataFrame:
    value = run.measured[quantity]
    row, estimator, horizon = (each.ravel() for each in np.indices(value.shape))
    unknown = np.full(value.shape, np.nan)
    low, high = (run.measured.get(f"{quantity}_{end}", unknown) for end in ("low", "high"))
    table = {
        "step": run.measured["step"][row],
        "estimator": np.array(run.estimators, dtype=object)[estimator],
        "horizon": horizon,
        "quantity": np.full(value.size, quantity, dtype=object),
        "value": value.ravel(),
        "ci_low": low.ravel(),
        "ci_high": high.ravel(),
    }
    finite = np.isfinite(value.ravel())
    return pd.DataFrame({name: each[finite] for name, each in table.items()})


def _rows(
    step: _Floats, quantity: str, value: _Floats, ends: _Ends | None = None, place: str = ""
) -> pd.DataFrame:
    low, high = (np.full(len(step), np.nan),) * 2 if ends is None else ends
    columns = {"step": step, "quantity": quantity, "place": place, "value": value}
    return pd.DataFrame({**columns, "ci_low": low, "ci_high": high})


def _returns(run: ProbeRun) -> Iterator[pd.DataFrame]:
    """Means of windows of episodes: of the policy's own, with their changes, and in training."""
    own = Returns.of(run.returns, WINDOW)
    training = Returns.of(run.episodes, TRAINED)
    for quantity, found in (
        ("returns", own.levels()), ("gains", own.changes()), ("episodes", training.levels()),
    ):  # fmt: skip
        step = np.array([each.step for each in found], dtype=float)
        value, low, high = (
            np.array([getattr(each.number, end) for each in found], dtype=float)
            for end in ("value", "low", "high")
        )
        yield _rows(step, quantity, value, (low, high))


def _vitals(run: ProbeRun) -> Iterator[pd.DataFrame]:
    if not run.vitals:
        return
    merged = windows(run.vitals)
    step = merged["step"]
    for name in ("grad_norm", "grad_norm_max", "update_ratio", "marked", "looked"):
        yield _rows(step, name, merged[name])
    yield _rows(step, "nonfinite", merged["nonfinite_updates"])
    for k, place in enumerate(run.parameters):
        yield _rows(step, "layer_norm", merged["layer_norm"][:, k], place=place)
    for name in ("saturation", "attenuation"):
        values = merged.get(name, np.empty((len(step), 0)))
        for k in range(values.shape[1]):
            yield _rows(step, name, values[:, k], place=f"action {k}")
    yield _rows(run.vitals["step"], "share", run.vitals["spent"])


def windows(vitals: Columns, most: int = _WINDOWS) -> dict[str, _Floats]:
    """At most about `most` rows: means of numbers that are finite, largest values, sums, and the
    last of what counts on."""
    rows = len(vitals["step"])
    begin = np.unique(np.linspace(0, rows, min(rows, most) + 1).astype(int)[:-1])
    merged = {}
    for name, values in vitals.items():
        if len(values) != rows or values.dtype.kind not in "fiu":
            continue  # a coordinate, or text
        finite = np.isfinite(values)
        if name in ("update", "step", "elapsed", "spent"):
            merged[name] = values[np.append(begin[1:], rows) - 1].astype(float)
        elif name == "grad_norm_max":
            merged[name] = np.fmax.reduceat(values, begin)
        else:
            merged[name] = np.add.reduceat(np.where(finite, values, 0.0), begin)
            if name not in _SUMS:
                with np.errstate(invalid="ignore"):
                    merged[name] = merged[name] / np.add.reduceat(finite.astype(float), begin)
    return merged


_SUMS = ("looked", "nonfinite", "nonfinite_updates", "zero", "watched")


def _successive(run: ProbeRun) -> Iterator[pd.DataFrame]:
    if not run.successive:
        return
    at, estimates = signals(run)
    if not estimates:
        return
    # Neighbouring bursts are shown as one.
    groups = np.array_split(np.arange(len(estimates)), min(len(estimates), _BURSTS))
    step = np.array([at[group[-1]] for group in groups])
    together = [pooled([estimates[k] for k in group]) for group in groups]
    share = np.array([each.share for each in together])
    low, high = np.array([each.ends for each in together]).T
    yield _rows(step, "signal_share", share, (low, high))


def _measured(run: ProbeRun) -> Iterator[pd.DataFrame]:
    columns = run.measured
    if not columns:
        return
    step = columns["step"]
    weight = columns["weight_zero_low"], columns["weight_zero_high"]
    yield _rows(step, "weight_zero", columns["weight_zero"], weight)
    for name in ("growth", "lyapunov", "value"):
        yield _rows(step, name, columns[name], _ends(columns[name], columns[f"{name}_se"]))
    yield _rows(step, "return_bound", columns["return_bound"])
    ratio, *ends = jacobian_ratio(columns)
    yield _rows(step, "jacobian_ratio", ratio, (ends[0], ends[1]))


def _ends(value: _Floats, se: _Floats) -> _Ends:
    return value - Z * se, value + Z * se


def jacobian_ratio(measured: Columns) -> tuple[_Floats, _Floats, _Floats]:
    """The prior's Jacobian error over that of the first measurement that has one, [K] each: value
    and ends of its interval, NaN for the first itself."""
    value, se = measured["jacobian_error"], measured["jacobian_error_se"]
    finite = np.flatnonzero(np.isfinite(value))
    if not len(finite):
        nothing = np.full(len(value), np.nan)
        return nothing, nothing, nothing
    first = finite[0]
    both = np.hypot(se, se[first])
    both[first] = np.nan
    gap = value - value[first]
    low, high = _ends(gap, both)
    return np.exp(gap), np.exp(low), np.exp(high)
