"""The probe of a training run read back, one seed at a time, as a probe of one loop is; no torch.

    probes(record)["0"]     the `ProbeRun` of seed 0, for every figure and sentence there is

Rows that measured other seeds are left out; the seconds of one that is kept are those of all
measurements since the last one that was.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from gradlab.runs.probe import results
from gradlab.runs.probe.results import Columns, ProbeRun
from gradlab.runs.training import probe_tables
from gradlab.runs.training.probe_tables import PREFIX
from gradlab.storage.codec import described
from gradlab.storage.records import Record


def probes(record: Record) -> dict[str, ProbeRun]:
    """By the seed's number; empty where the run had no probe.

    Raises:
        KeyError, ValueError: a table or a number in it is not a probe's.
    """
    vitals = record.groups.get(f"{PREFIX}vitals")
    if vitals is None:
        return {}
    _check(record)
    return {str(seed): _of_seed(record, k) for k, seed in enumerate(vitals["seed"].values)}


def _check(record: Record) -> None:
    """Raises KeyError or ValueError where a table lacks its axes or a column its shape."""

    def axis(table: str, name: str) -> list[int]:
        scale: list[int] = record.groups[f"{PREFIX}{table}"][name].values.tolist()
        return scale

    followed = f"{PREFIX}horizons" in record.groups
    schema = probe_tables.tables(
        axis("vitals", "seed"),
        parameters=len(results.names(record)[0]),
        actions=len(axis("vitals", "action")),
        measured=len(axis("measured", "horizon")) - 1,
        horizons=axis("horizons", "horizon") if followed else (),
    )
    for name, table in schema.items():
        if name in record.groups or followed:
            columns = {key: array.values for key, array in record.groups[name].items()}
            results.check_shapes(name, columns, table)


def _of_seed(record: Record, k: int) -> ProbeRun:
    parts, (parameters, estimators) = described(record), results.names(record)
    settings = parts["config"]["settings"]
    tables = {name: _columns(record, name, k) for name in ("vitals", "successive", "measured")}
    budget, seed = results.share(settings["probe_budget"]), settings["first_seed"] + k
    raised = {name: array.values for name, array in record.groups[f"{PREFIX}alarms"].items()}
    own = (raised["seed"] == seed) | np.isnan(raised["seed"])  # and those about the run
    run = ProbeRun(
        attributes=record.attributes,
        config={"seed": seed, "overhead_budget": budget},
        environment=parts["environment"],
        parameters=parameters,
        estimators=estimators,
        horizon=int(record.groups[f"{PREFIX}measured"]["horizon"].values[-1]),
        alarms={name: values[own] for name, values in raised.items()} if own.any() else {},
        abandoned=False,
        **tables,
    )
    results.check_numbers(run)
    return run


def _columns(record: Record, table: str, k: int) -> Columns:
    """The table as one seed has it, or nothing without rows of it."""
    group = record.groups[f"{PREFIX}{table}"]
    found = {
        name: (array.values[:, k] if array.dims[1:2] == ("seed",) else array.values)
        for name, array in group.items()
        if name != "seed"
    }
    if table == "measured":
        own = np.isfinite(found["starts"])
        spent = np.cumsum(found["seconds"])[own]
        rows = {name for name, array in group.items() if array.dims[0] == "update"}
        found = {name: v[own] if name in rows else v for name, v in found.items()}
        found["seconds"] = np.diff(spent, prepend=0.0)
    return found if len(found["update"]) else {}


def paths(record: Record) -> pd.DataFrame:
    """How long the model's paths last: seed, step, quantity "lasted", place, value, and no interval
    (ci_low, ci_high), for the figures."""
    group = record.groups.get(f"{PREFIX}horizons", {})
    columns = ["seed", "step", "quantity", "place", "value", "ci_low", "ci_high"]
    if not group:
        return pd.DataFrame(columns=columns)
    lasted, step = group["lasted"].values, group["step"].values
    parts = [
        pd.DataFrame({"seed": str(seed), "step": step, "value": lasted[:, k]})
        for k, seed in enumerate(group["seed"].values)
    ]
    rows = pd.concat(parts, ignore_index=True).dropna(subset=["value"])
    return rows.assign(quantity="lasted", place="", ci_low=np.nan, ci_high=np.nan)[columns]
