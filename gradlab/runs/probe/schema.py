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

from gradlab.runs.probe.columns import ACTION, LAYER, VITALS
from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Attribute

LAW = "visited"  # states at which gradients are judged; before, it was the starts
STEPS = 25  # of the fresh path whose growth is measured
CELLS = ("bias2", "variance", "mse", "snr", "mean_norm", "cosine", "sign_agreement")
ENDS = ("low", "high")

_CELL = ("estimator", "horizon")
_UNITS = {
    "bias2": "squared gradient norm",
    "variance": "squared gradient norm, one sample",
    "mse": "squared gradient norm, one batch",
    "snr": "|mean|² / variance, one sample",
    "mean_norm": "gradient norm, noise taken out",
    "cosine": "of the mean gradient with the true one",
    "sign_agreement": "share of parameters whose sign agrees with the true gradient's",
}

_QUESTION = {
    "step": Column(unit="as the loop counts"),
    "starts": Column(unit="starts"),
    "seconds": Column(unit="s"),
    "batch": Column(unit="samples"),
    "discount": Column(unit="γ"),
    "truth_norm": Column(unit="gradient norm"),
    "truth_checked": Column(unit="1: the truth was compared with finite differences this time"),
}
_PROFILE = (
    {name: Column(_CELL, unit) for name, unit in _UNITS.items()}
    | {f"{name}_{end}": Column(_CELL, _UNITS[name]) for name in CELLS for end in ENDS}
    | {
        "bias2_se": Column(_CELL, _UNITS["bias2"]),
        "cosine_se": Column(_CELL, _UNITS["cosine"]),
    }
)
_CHOICE = {
    "chosen_estimator": Column(unit="index of estimator"),
    "chosen_horizon": Column(unit="steps"),
    "kept_low": Column(unit="steps, shortest horizon that may be best"),
    "kept_high": Column(unit="steps, longest horizon that may be best"),
    "kept": Column(_CELL, "1: may have the least MSE (95% set)"),
    "weight_zero": Column(unit="weight of the horizon 0 in the pair with the longest one"),
    "weight_zero_low": Column(unit="weight, lower end of 95%"),
    "weight_zero_high": Column(unit="weight, upper end of 95%"),
    "weight": Column(("horizon",), "of least MSE among horizons 0, 1, 2, 4, … of one mixture"),
    "weight_low": Column(("horizon",), "weight, lower end of 95%"),
    "weight_high": Column(("horizon",), "weight, upper end of 95%"),
    "over_data": Column(unit="ln MSE of the model at the longest horizon over that of the data"),
    "over_data_se": Column(unit="ln"),
}
_GROWTH = {
    "growth": Column(unit="ln variance per step"),
    "growth_se": Column(unit="ln variance per step"),
    "growth_evidence": Column(unit="AIC of a power law less that of the exponential"),
    "lyapunov": Column(unit="per step, closed loop of the simulator"),
    "lyapunov_se": Column(unit="per step"),
    "lyapunov_horizon": Column(unit="steps, 1/λ; inf where nothing grows"),
    "chain_norm": Column(("chain",), "log10 |∂s_t/∂s_0|, largest singular value, mean over starts"),
    "chain_condition": Column(unit="log10 of largest over smallest singular value after 25 steps"),
    "tenfold": Column(unit="steps in which |∂s_t/∂s_0| grows tenfold; inf where it does not"),
    "float32_step": Column(unit="first step at which |∂s_t/∂s_0| exceeds float32; inf: never"),
}
_OF_CRITIC = {
    "critic_gap": Column(unit="bias² of true_dynamics less half the model's, longest horizon"),
    "critic_gap_se": Column(unit="squared gradient norm"),
    "value": Column(unit="mean critic value at the starts"),
    "value_se": Column(unit="reward"),
    "reward_max": Column(unit="largest |reward| on the fresh paths"),
    "return_bound": Column(unit="largest |reward| so far / (1 − γ); with λ > 0, 1 − γ e²λ"),
}
_JACOBIANS = {
    "jacobian_error": Column(unit="ln of the relative error of A and B"),
    "jacobian_error_se": Column(unit="ln"),
    "jacobian_states": Column(unit="states at which Jacobians were taken"),
    "jacobian_nonfinite": Column(unit="of these: ∂f/∂s or ∂f/∂a not finite"),
    "jacobian_flagged": Column(unit="of these: certificate failed (contact, limit, end)"),
    "starts_lost": Column(unit="starts that masking would drop"),
    "nonfinite_where": Column(text=True),
    "dead_action": Column(("action",), "1: ∂f/∂a and ∂r/∂a are exactly 0 everywhere"),
    "float32_cosine": Column(unit="of the gradients in float32 and in float64"),
    "float32_error": Column(unit="|float32 − float64| / |float64|, longest horizon"),
    "sampling_error": Column(unit="standard error of one batch's gradient over its norm"),
}
MEASURED = _QUESTION | _PROFILE | _CHOICE | _GROWTH | _OF_CRITIC | _JACOBIANS

KIND = "probe"
ESTIMATORS = ("data", "model", "mixed", "true_dynamics")
Row = Mapping[str, Any]


def judged(row: Row) -> str:
    """The estimator of a row of "measured" that growth and "over_data" are about: the model's,
    where there is one."""
    variance = np.asarray(row.get("variance", 0.0), dtype=float)
    named = variance.ndim == 0 or bool(np.isfinite(variance[ESTIMATORS.index("model")]).any())
    return "model" if named else "true_dynamics"


def tables(parameters: int, actions: int, horizon: int | None) -> dict[str, Table]:
    """The schema of a probe's tables.

    Args:
        parameters: tensors of the policy; actions: 0 where they are not known.
        horizon: the longest that is measured; None: nothing is measured on a task.
    """
    scales = {
        "parameter": range(parameters),
        "action": range(actions),
        "estimator": range(len(ESTIMATORS)),
        "horizon": range((horizon or 0) + 1),
        "chain": range(STEPS + 1),
    }
    axes = {name: tuple(scale) for name, scale in scales.items()}
    vitals = {k: c.stored for k, c in VITALS.items() if actions or c.dims != ACTION}
    layers = ("parameter", "action") if actions else ("parameter",)
    layouts = {
        "vitals": Table("update", vitals, {name: axes[name] for name in layers}),
        "successive": Table("update", SUCCESSIVE, {}),
        "alarms": Table("number", _ALARMS),
        "checks": Table("number", _CHECKS),
        "returns": Table("update", _RETURNS),
        "episodes": Table("number", _EPISODES),
    }
    if horizon is not None:
        cells = ("estimator", "horizon", "action", "chain")
        layouts["measured"] = Table("update", MEASURED, {name: axes[name] for name in cells})
    return layouts


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
    "dead_columns": Column(unit="columns of weights, exactly 0 at 5 finite gradients"),
    "columns": Column(unit="columns of weights"),
    "dead_inputs": Column(unit="columns of the first layer's weights"),
    "dead_where": Column(text=True),
    "seconds": Column(unit="s"),
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
