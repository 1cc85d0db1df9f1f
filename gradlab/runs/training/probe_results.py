"""The probe of a training run: its tables, and each seed read back as the probe of one loop is.

"update" and "step" count iterations. A row of `probe_measured` measures one seed, which leaves NaN
for the others; its seconds are those of all measurements since the last one of that seed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from gradlab.runs.probe import results, schema
from gradlab.runs.probe.columns import SEED
from gradlab.runs.probe.results import Columns, ProbeRun
from gradlab.storage.codec import described
from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Attribute, Record

PREFIX = "probe_"
UNMEASURED = "unmeasured"  # attribute: why gradients by horizon stay empty
_HORIZON = ("horizon",)


def tables(
    seeds: Sequence[int], parameters: int, actions: int, measured: int, horizons: Sequence[int]
) -> dict[str, Table]:
    """The schema, to be added to a run's own.

    Args:
        seeds: numbers of the seeds; parameters: tensors of the policy.
        measured: longest horizon of the profile; horizons: of the mixture.
    """
    by_name = schema.tables(parameters, actions, measured, seeds)
    by_name["horizons"] = Table(
        "update", _HORIZONS, {"seed": tuple(seeds), "horizon": tuple(horizons)}
    )
    order = ("vitals", "successive", "measured", "horizons", "alarms")
    return {f"{PREFIX}{name}": by_name[name] for name in order}


_HORIZONS = {
    "step": Column(unit="iterations"),
    "made": Column(_HORIZON, "share of policy updates that rolled the horizon out"),
    "updates": Column(unit="policy updates so far"),
    "reached": Column(("seed", "horizon"), "share of model paths that do not end before"),
    "lasted": Column(SEED, "model steps, mean over paths, at most the longest horizon"),
    "starts": Column(unit="paths, of the batch"),
    "seconds": Column(unit="s"),
}


def attributes(names: Sequence[str], unmeasured: str = "") -> dict[str, Attribute]:
    """What readers of these tables need to know, to be added to a run's own.

    Args:
        names: of the policy's tensors.
        unmeasured: why the gradients of the table "measured" stay empty, where they do.
    """
    found: dict[str, Attribute] = {
        "parameters": json.dumps(list(names)),
        "estimators": json.dumps(list(schema.ESTIMATORS)),
    }
    return found | ({UNMEASURED: unmeasured} if unmeasured else {})


def probes(record: Record) -> dict[str, ProbeRun]:
    """By the seed's number; empty where the run had no probe."""
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
    schema = tables(
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
