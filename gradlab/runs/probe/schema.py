"""What the probe writes: the tables of its log.

vitals       every so many updates: norms, update ratios, non-finite counts, saturation, cost
successive   products of successive gradients: is there a signal in the noise?
measured     with a task: bias and variance by horizon, choice, Jacobians, growth, critic
alarms       what was told, in words
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gradlab.runs.probe.measured_columns import CELLS, ENDS, MEASURED, STEPS
from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Attribute

KIND = "probe"
ESTIMATORS = ("data", "model", "mixed", "true_dynamics")
Row = Mapping[str, Any]


def tables(parameters: int, actions: int, horizon: int | None) -> dict[str, Table]:
    """The schema of a probe's file; `horizon` None: nothing is measured on a task."""
    layer, action = ("parameter",), ("action",)
    vitals = {
        "step": Column(unit="as the loop counts"),
        "looked": Column(unit="updates"),
        "grad_norm": Column(unit="loss per parameter unit, before clipping, window mean"),
        "grad_norm_max": Column(unit="loss per parameter unit"),
        "marked": Column(unit="1: gradients are those of `with probe(step)`, 0: the optimiser's"),
        "update_ratio": Column(unit="|Δθ| / |θ|, mean over every fourth update of the window"),
        "learning_rate": Column(unit="the largest of the policy's parameters"),
        "layer_norm": Column(layer, "loss per parameter unit, window mean"),
        "layer_ratio": Column(layer, "|Δθ| / |θ|, mean over every fourth update"),
        "nonfinite": Column(layer, "updates"),
        "nonfinite_updates": Column(unit="updates"),
        "zero": Column(layer, "updates with a gradient of exactly 0"),
        "stepped": Column(unit="updates whose step was looked at"),
        "still": Column(layer, "of these: updates that left the tensor exactly as it was"),
        "saturation": Column(action, "share of actions at their limit"),
        "attenuation": Column(action, "mean 1 − (a/limit)²: what a tanh at the end lets through"),
        "watched": Column(unit="forward passes"),
        "model_gradients": Column(unit="marked passes that left gradients on the prior model"),
        "model_shared": Column(unit="tensors of the policy that the prior model holds, too"),
        "reaches": Column(text=True),
        "critic_loss": Column(unit="as noted by the loop, window mean"),
        "episode_return": Column(unit="reward, mean of the episodes noted in the window"),
        "due": Column(text=True),
        **CRITIC,
        "own_seconds": Column(unit="s spent by the probe so far"),
        "elapsed": Column(unit="s since the first update"),
        "spent": Column(unit="share of the time"),
    }
    found = {
        "vitals": Table(
            "update",
            vitals if actions else {k: v for k, v in vitals.items() if v.dims != action},
            {"parameter": tuple(range(parameters))}
            | ({"action": tuple(range(actions))} if actions else {}),
        ),
        "successive": Table("update", SUCCESSIVE),
        "alarms": Table("number", ALARMS),
    }
    if horizon is not None:
        found["measured"] = measured_table(actions, horizon)
    return found


CRITIC = {
    "critic_steps": Column(unit="steps of the critic's optimiser since the last row"),
    "critic_looked": Column(unit="of these: whose gradient was looked at"),
    "critic_stepped": Column(unit="of these: whose step was looked at"),
    "critic_still": Column(unit="of these: that left a tensor as it was, the least of all tensors"),
    "critic_norm": Column(unit="loss per parameter unit, mean over those looked at"),
    "critic_ratio": Column(unit="|Δφ| / |φ|, mean over those whose step was looked at"),
    "critic_rate": Column(unit="learning rate, the largest of the critic's parameters"),
}
SUCCESSIVE = {
    "step": Column(unit="as the loop counts"),
    "pairs": Column(unit="pairs of successive gradients"),
    "fresh": Column(unit="of these: whose batches share the fewest samples, and which count"),
    "overlap": Column(unit="share of samples that the batches of a pair share; NaN: not seen"),
    "distinct": Column(unit="share of all samples of the burst that were seen once"),
    "energy": Column(unit="mean |g|², (loss per parameter unit)²"),
    "signal": Column(unit="mean g·g′, estimates |E g|²"),
    "root_squares": Column(unit="√Σ (g·g′)², the size of Σ g·g′ where there is no signal"),
    "signal_share": Column(unit="|E g|² / E |g|²"),
    "share_se": Column(unit="standard error of signal_share"),
    "snr": Column(unit="|E g|² / tr Cov(g), of one batch"),
    "noise_scale": Column(unit="batches after which noise and signal are equal"),
    "cosine": Column(unit="of one batch's gradient with the mean gradient"),
    "dead_columns": Column(unit="columns of weights, exactly 0 at both ends"),
    "columns": Column(unit="columns of weights"),
    "dead_inputs": Column(unit="columns of the first layer's weights"),
    "dead_where": Column(text=True),
    "seconds": Column(unit="s"),
}
ENDS_OF_CELLS = {f"{name}_{end}" for name in CELLS for end in ENDS}
BY_PARAMETER = ("layer_norm", "layer_ratio", "nonfinite", "zero", "still")
ALARMS = {
    "update": Column(unit="updates"),
    "step": Column(unit="as the loop counts"),
    "alarm": Column(text=True),
    "message": Column(text=True),
}


def measured_table(actions: int, horizon: int) -> Table:
    """Bias and variance on the task, and what follows from them."""
    scales = {
        "estimator": range(len(ESTIMATORS)),
        "horizon": range(horizon + 1),
        "action": range(actions),
        "chain": range(STEPS + 1),
    }
    return Table("update", MEASURED, {name: tuple(each) for name, each in scales.items()})


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
    found: dict[str, Any] = {}
    for key, value in row.items():
        name = key if key in ("step", "update") else f"{table}/{key}"
        if key in ENDS_OF_CELLS:
            continue
        if isinstance(value, str):
            found[name] = value
            continue
        array = np.asarray(value)
        if array.ndim == 0:
            found[name] = array.item()
        elif array.ndim == 1:
            labels = names if key in BY_PARAMETER else range(len(array))
            found |= {f"{name}/{k}": float(v) for k, v in zip(labels, array, strict=True)}
        else:
            found |= {
                f"{name}/{ESTIMATORS[e]}/{h}": float(array[e, h])
                for e, h in np.ndindex(array.shape)
            }
    return found
