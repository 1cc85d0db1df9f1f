"""A test of remedies made by formula: every ratio in it is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gradlab.tools.remedies.result import (
    BASELINE,
    CLIPPED,
    SIMULATOR,
    SMOOTH,
    STEPS,
    TIME,
    Key,
    ModelPair,
    ModelValue,
    Remedies,
    extended,
    longer,
)

H, BATCH, ARMS = 6, 256, ("spectral", "dd", "two-model")
FACTOR = {"spectral": 0.5, "dd": 0.8, "two-model": 1.3}  # of every error, at equal steps
LONGER = 0.9  # of the baseline that was fitted for longer


def values(model: str, factor: float, trial: int) -> list[ModelValue]:
    """Numbers of one model by formula, which a trial scales for all models alike."""
    noise = 1 + 0.05 * np.random.default_rng([trial, len(model)]).normal(size=8)
    size, found = (1 + 0.1 * trial) * factor, []
    errors = []
    for h in range(1, H + 1):
        bias, variance = 0.02 * size * h * noise[0], 2.0 * (1 + 0.5 * factor) ** h * noise[1]
        errors.append(bias + variance / BATCH)
        of = {"bias2": bias, "variance": variance, "mse": errors[-1], "cosine": 1 - 0.1 * bias}
        of |= {"relative_mse": errors[-1] / 0.3, "prediction_error": 0.05 * h * size * noise[2]}
        found += [ModelValue(model, Key(name, at=h), value) for name, value in of.items()]
    for block in ("A", "B", "r_s", "r_a"):
        found += [
            ModelValue(
                model, Key("jacobian_error", block, region=region), worse * factor * noise[3]
            )
            for region, worse in ((SMOOTH, 0.1), (CLIPPED, 1.0))
        ]
    single = {
        "least_mse": min(errors), "usable_horizon": 3.0 + (factor < 1), "best_horizon": 2.0,
        "lyapunov": 0.05 * factor * noise[4], "held_out_mse": 0.1 / factor * noise[5],
        "step_cost": {"dd": 1.6}.get(model, 1.0),
    }  # fmt: skip
    return [*found, *(ModelValue(model, Key(name), value) for name, value in single.items())]


def planted(trials: int = 4, task: str = "planted", **changed: Any) -> Remedies:
    cells = None
    for trial in range(trials):
        numbers = values(BASELINE, 1.0, trial)
        for arm in ARMS:
            numbers += [*values(arm, FACTOR[arm], trial), *values(longer(arm), LONGER, trial)]
        numbers.append(ModelValue(SIMULATOR, Key("lyapunov"), 0.04 + 0.001 * trial))
        cells = extended(cells, trial, numbers)
    pairs = [
        pair
        for arm in ARMS
        for pair in (ModelPair(arm, STEPS, BASELINE, arm), ModelPair(arm, TIME, longer(arm), arm))
    ]
    config = {
        "task": task, "command": f"gradlab remedies {task}", "policy_hash": "abc", "horizon": H,
        "starts": 64, "rows": 3000, "batch": BATCH, "costs": {"dd": 1.6}, "seed": 0,
        "settings": {"hidden": [64, 64], "activation": "silu", "members": 1, "epochs": 60},
    }  # fmt: skip
    notes = {
        "trials": [
            {"trial": k, "truth": {"status": "converged", "reason": ""}} for k in range(trials)
        ]
    }
    assert cells is not None
    return replace(Remedies(cells, tuple(pairs), config, {"torch": "2.13.0"}, notes), **changed)


RUN = planted()
TABLE, LEVELS = RUN.table(), RUN.levels()
