"""The tables of a probe's log.

vitals       every so many updates: norms, update ratios, non-finite counts, saturation, cost
successive   products of successive gradients: is there a signal in the noise?
measured     with a task: bias and variance by horizon, choice, Jacobians, growth, critic
returns      with an environment: whole episodes of the policy without noise
episodes     the loop's own training episodes
alarms       alarms that were reported, in words
checks       of the loop's own parts: the newest answer of each, with its proof and its cost
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradlab.runs.probe.columns import ACTION, LAYER, VITALS, ProbeColumn
from gradlab.runs.probe.measured_columns import CELLS, ENDS, MEASURED, STEPS
from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Attribute

KIND = "probe"
ESTIMATORS = ("data", "model", "mixed", "true_dynamics")
Row = Mapping[str, Any]


def tables(
    parameters: int, actions: int, horizon: int | None, seeds: Sequence[int] | None = None
) -> dict[str, Table]:
    """The schema of a probe's tables.

    Args:
        parameters: tensors of the policy; actions: 0 where they are not known.
        horizon: the longest that is measured; None: nothing is measured on a task.
        seeds: that are trained side by side, whose estimates have an axis "seed"; None: one loop.
    """
    scales = {
        "parameter": range(parameters),
        "action": range(actions),
        "estimator": range(len(ESTIMATORS)),
        "horizon": range((horizon or 0) + 1),
        "chain": range(STEPS + 1),
    }
    axes = {name: tuple(scale) for name, scale in scales.items()}
    vitals = VITALS if actions else {k: v for k, v in VITALS.items() if v.dims != ACTION}
    layers = ("parameter", "action") if actions else ("parameter",)
    layouts = {
        "vitals": _table(vitals, {name: axes[name] for name in layers}, seeds),
        "successive": _table(SUCCESSIVE, {}, seeds),
        "alarms": Table("number", _ALARMS if seeds is None else {"seed": Column(), **_ALARMS}),
    }
    if seeds is None:
        layouts["checks"] = Table("number", _CHECKS)
        layouts |= {"returns": Table("update", _RETURNS), "episodes": Table("number", _EPISODES)}
    if horizon is not None:
        cells = ("estimator", "horizon", "action", "chain")
        layouts["measured"] = _table(MEASURED, {name: axes[name] for name in cells}, seeds)
    return layouts


def _table(
    columns: Mapping[str, ProbeColumn],
    scales: Mapping[str, Sequence[int]],
    seeds: Sequence[int] | None,
) -> Table:
    if seeds is None:
        return Table("update", {k: c.of_one_loop() for k, c in columns.items()}, scales)
    both = {name: column.by_seed() for name, column in columns.items() if not column.user}
    return Table("update", both, {"seed": tuple(seeds), **scales})


SUCCESSIVE = {
    "step": ProbeColumn(unit="as the loop counts", shared=True),
    "pairs": ProbeColumn(unit="pairs of successive gradients"),
    "fresh": ProbeColumn(unit="of these: whose batches share the fewest samples, and which count"),
    "overlap": ProbeColumn(unit="share of samples that the batches of a pair share; NaN: not seen"),
    "distinct": ProbeColumn(unit="share of all samples of the burst that were seen once"),
    "energy": ProbeColumn(unit="mean |g|², (loss per parameter unit)²"),
    "signal": ProbeColumn(unit="mean g·g′, estimates |E g|²"),
    "root_squares": ProbeColumn(unit="√Σ (g·g′)², the size of Σ g·g′ where there is no signal"),
    "signal_share": ProbeColumn(unit="|E g|² / E |g|²"),
    "share_se": ProbeColumn(unit="standard error of signal_share"),
    "snr": ProbeColumn(unit="|E g|² / tr Cov(g), of one batch"),
    "noise_scale": ProbeColumn(unit="batches after which noise and signal are equal"),
    "cosine": ProbeColumn(unit="of one batch's gradient with the mean gradient"),
    "dead_columns": ProbeColumn(unit="columns of weights, exactly 0 at both ends"),
    "columns": ProbeColumn(unit="columns of weights"),
    "dead_inputs": ProbeColumn(unit="columns of the first layer's weights"),
    "dead_where": ProbeColumn(text=True),
    "seconds": ProbeColumn(unit="s", shared=True),
}
_ENDS_OF_CELLS = {f"{name}_{end}" for name in CELLS for end in ENDS}
_BY_PARAMETER = {name for name, column in VITALS.items() if column.dims == LAYER}
_RETURNS = {
    "step": Column(unit="as the loop counts"),
    "value": Column(unit="reward, summed over a whole episode without noise"),
    "length": Column(unit="steps"),
    "episodes": Column(unit="episodes side by side, of which the others are means"),
    "every": Column(unit="updates until the next one"),
    "seconds": Column(unit="s"),
}
_EPISODES = {
    "update": Column(unit="updates"),
    "step": Column(unit="as the loop counts"),
    "value": Column(unit="reward, summed over an episode of training"),
}
_ALARMS = {
    "update": Column(unit="updates"),
    "step": Column(unit="as the loop counts"),
    "alarm": Column(text=True),
    "message": Column(text=True),
}
_CHECKS = {
    "update": Column(unit="updates"),
    "step": Column(unit="as the loop counts"),
    "check": Column(text=True),
    "state": Column(text=True),
    "value": Column(unit="of the check"),
    "threshold": Column(unit="of the check"),
    "proof": Column(text=True),
    "looks": Column(unit="windows that were looked at"),
    "seconds": Column(unit="s"),
}


def attributes(
    names: Sequence[str], task: str, config: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Attribute]:
    return {
        "kind": KIND,
        "task": task,
        "command": "gradlab.Probe",
        "seed": int(config["seed"]),
        "commit": environment.get("commit", ""),
        "config": json.dumps(config),
        "environment": json.dumps(environment),
        "parameters": json.dumps(list(names)),
        "estimators": json.dumps(list(ESTIMATORS)),
    }


def flat(table: str, row: Row, names: Sequence[str]) -> dict[str, Any]:
    """Arrays by element, named after parameter, action, or estimator and horizon.

    Ends of the intervals of cells, hundreds of numbers, are left to a run's file.
    """
    metrics: dict[str, Any] = {}
    for key, value in row.items():
        name = key if key in ("step", "update") else f"{table}/{key}"
        if key in _ENDS_OF_CELLS:
            continue
        if isinstance(value, str):
            metrics[name] = value
            continue
        array = np.asarray(value)
        if array.ndim == 0:
            metrics[name] = array.item()
        elif array.ndim == 1:
            labels = names if key in _BY_PARAMETER else range(len(array))
            metrics |= {f"{name}/{k}": float(v) for k, v in zip(labels, array, strict=True)}
        else:
            metrics |= {
                f"{name}/{ESTIMATORS[e]}/{h}": float(array[e, h])
                for e, h in np.ndindex(array.shape)
            }
    return metrics
