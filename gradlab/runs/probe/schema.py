"""The tables of a probe's log: numbers, and what was found out.

vitals       a row per look: norms, update ratio, non-finite counts, saturation, cost
successive   products of successive gradients: is there a signal in the noise?
measured     with a task: bias and variance by horizon, choice, Jacobians, growth, critic
returns      with an environment: whole episodes of the policy without noise
episodes     the loop's own training episodes
findings     the newest answer of every check, and since when it has failed
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.storage.journal_tables import Column, Table
from gradlab.storage.records import Attribute

LAW = "visited"  # states at which gradients are judged
ASKED = 20  # updates after which losses are asked, then after ten times as many
ALPHA = 0.01  # of whole runs in which a statistical check rings falsely, at most
FEWEST = 64  # starts from which intervals cover what they promise (`reports/coverage`)
HALF = 0.5  # of the actions at a limit
NOISE = 0.01  # share of a gradient's energy that is signal, below which its cosine is under 0.1
LAYER, ACTION = ("parameter",), ("action",)
STEPS = 25  # of the fresh path whose growth is measured
ENDS = ("low", "high")


def column(unit: str, description: str, dims: tuple[str, ...] = ()) -> Column:
    return Column(dims, unit, not unit, description)


VITALS: Mapping[str, Column] = {
    "step": column("steps", "as the loop counts"),
    "looked": column("updates", "whose gradient was looked at"),
    "grad_norm": column("loss/parameter", "norm before clipping, mean over these"),
    "grad_norm_max": column("loss/parameter", "largest norm of these"),
    "marked": column("1", "1: gradients of `with probe(step)`, 0: the optimiser's"),
    "update_ratio": column("1", "|Δθ| / |θ|, mean over these"),
    "layer_norm": column("loss/parameter", "norm by tensor, mean over these", LAYER),
    "nonfinite": column("updates", "with a gradient that is not finite", LAYER),
    "nonfinite_updates": column("updates", "with any gradient that is not finite"),
    "zero": column("updates", "with a gradient of exactly 0", LAYER),
    "saturation": column("1", "share of actions at their limit", ACTION),
    "attenuation": column("1", "mean of 1 − (a/limit)², what a tanh passes", ACTION),
    "watched": column("passes", "forward passes of the policy"),
    "own_seconds": column("s", "spent by the probe so far"),
    "elapsed": column("s", "since the first update"),
    "spent": column("1", "share of the time that the probe took"),
}
_CELL = ("estimator", "horizon")
_PROFILE = {
    "bias2": column("gradient²", "squared bias", _CELL),
    "variance": column("gradient²", "variance of one sample", _CELL),
    "mse": column("gradient²", "squared error of one batch", _CELL),
    "snr": column("1", "|mean|² / variance of one sample", _CELL),
    "mean_norm": column("gradient", "norm of the mean, noise taken out", _CELL),
    "cosine": column("1", "of the mean gradient with the true one", _CELL),
    "sign_agreement": column("1", "share of parameters with the true sign", _CELL),
}
CELLS = tuple(_PROFILE)
_SE = "standard error of"
MEASURED: dict[str, Column] = {
    "step": column("steps", "as the loop counts"),
    "starts": column("starts", "of the measurement"),
    "batch": column("samples", "of one batch"),
    "discount": column("1", "γ"),
    "truth_norm": column("gradient", "norm of the true gradient"),
    "truth_checked": column("1", "1: truth was compared with finite differences"),
    **_PROFILE,
    **{
        f"{name}_{end}": replace(each, description=f"{end} end of 95%: {name}")
        for name, each in _PROFILE.items()
        for end in ENDS
    },
    "chosen_estimator": column("1", "index of the estimator of least error"),
    "chosen_horizon": column("steps", "horizon of least error"),
    "kept_low": column("steps", "shortest horizon that may be best"),
    "kept_high": column("steps", "longest horizon that may be best"),
    "kept": column("1", "1: may have the least MSE (95% set)", _CELL),
    "weight_zero": column("1", "weight of horizon 0 beside the longest"),
    "weight_zero_low": column("1", "lower end of 95%: weight_zero"),
    "weight_zero_high": column("1", "upper end of 95%: weight_zero"),
    "over_data": column("ln", "MSE at the longest horizon over the data gradient's"),
    "over_data_se": column("ln", f"{_SE} over_data"),
    "growth": column("1/steps", "slope of the log variance"),
    "growth_se": column("1/steps", f"{_SE} growth"),
    "growth_evidence": column("1", "AIC, power law less exponential"),
    "lyapunov": column("1/steps", "λ of the simulator's closed loop"),
    "lyapunov_se": column("1/steps", f"{_SE} lyapunov"),
    "chain_norm": column("log10", "largest singular value of ∂s_t/∂s_0, mean", ("chain",)),
    "float32_step": column("steps", "until ∂s_t/∂s_0 leaves float32, inf: never"),
    "critic_gap": column("gradient²", "bias² true_dynamics less half the model's"),
    "critic_gap_se": column("gradient²", f"{_SE} critic_gap"),
    "value": column("reward", "mean critic value at the starts"),
    "value_se": column("reward", f"{_SE} value"),
    "reward_max": column("reward", "largest |reward| on the fresh paths"),
    "return_bound": column("reward", "largest return that rewards so far allow"),
    "jacobian_error": column("ln", "relative error of the model's Jacobians"),
    "jacobian_error_se": column("ln", f"{_SE} jacobian_error"),
    "jacobian_states": column("states", "at which Jacobians were taken"),
    "jacobian_nonfinite": column("states", "of these: with a Jacobian not finite"),
    "starts_lost": column("starts", "that masking would drop"),
    "nonfinite_where": column("", "first state whose Jacobian is not finite"),
}

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
    vitals = {name: each for name, each in VITALS.items() if actions or each.dims != ACTION}
    layers = ("parameter", "action") if actions else ("parameter",)
    layouts = {
        "vitals": Table("update", vitals, {name: axes[name] for name in layers}),
        "successive": Table("update", SUCCESSIVE, {}),
        "findings": Table("number", FINDINGS),
        "returns": Table("update", _RETURNS),
        "episodes": Table("number", _EPISODES),
    }
    if horizon is not None:
        cells = ("estimator", "horizon", "action", "chain")
        layouts["measured"] = Table("update", MEASURED, {name: axes[name] for name in cells})
    return layouts


SUCCESSIVE = {
    "step": column("steps", "as the loop counts"),
    "pairs": column("pairs", "of successive gradients"),
    "fresh": column("pairs", "of these: whose batches share fewest samples"),
    "overlap": column("1", "share of samples in both batches of a pair"),
    "distinct": column("1", "share of all samples seen once"),
    "energy": column("(loss/parameter)²", "mean |g|²"),
    "signal": column("(loss/parameter)²", "mean g·g′, estimates |E g|²"),
    "root_squares": column("(loss/parameter)²", "√Σ (g·g′)²"),
    "signal_share": column("1", "|E g|² / E |g|²"),
    "share_se": column("1", f"{_SE} signal_share"),
    "cosine": column("1", "of one batch's gradient with the mean gradient"),
}
_ENDS_OF_CELLS = {f"{name}_{end}" for name in CELLS for end in ENDS}
_BY_PARAMETER = {name for name, each in VITALS.items() if each.dims == LAYER}
_RETURNS = {
    "step": column("steps", "as the loop counts"),
    "value": column("reward", "sum of a whole episode without noise"),
    "length": column("steps", "of the episode"),
    "episodes": column("episodes", "side by side, whose mean this is"),
}
_EPISODES = {
    "update": column("updates", "at its end"),
    "step": column("steps", "as the loop counts"),
    "value": column("reward", "sum of an episode of training"),
}
FINDINGS = {
    "update": column("updates", "of the newest answer"),
    "step": column("steps", "as the loop counts"),
    "code": column("", "of the table of codes"),
    "decision": column("", "pass, fail, undecided or skipped"),
    "subject": column("", "what it is about"),
    "at": column("", "where"),
    "value": column("1", "what was found, in the unit of the code"),
    "low": column("1", "lower end of its 95% interval"),
    "high": column("1", "upper end of its 95% interval"),
    "threshold": column("1", "what it is held against"),
    "unit": column("", "of these four"),
    "n": column("1", "samples behind it"),
    "more": column("1", "samples that would decide it"),
    "text": column("", "its own words, if any"),
    "since": column("steps", "at which it began to fail, −1: never"),
    "looks": column("1", "answers so far"),
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
