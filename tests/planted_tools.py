"""Results of tools by formula: a comparison of Jacobians and a test of remedies.

The comparison is of two small systems, with what its verdict says; every ratio of the remedies is
known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

import gradlab
from gradlab import systems
from gradlab.data.trajectories import stream
from gradlab.tools.jacobians.page import verdict
from gradlab.tools.remedies.result import (
    BASELINE,
    SIMULATOR,
    STEPS,
    TIME,
    ModelPair,
    ModelValue,
    Remedies,
    longer,
    of_trial,
)


class PlantedSystem:
    """A system whose derivatives are written by hand: `linearize` of a subclass has the fault."""

    differentiable = False

    def __init__(self, system, fault):
        self.system, self.fault = system, fault

    def __getattr__(self, name):
        return getattr(self.system, name)


def system(strength):
    def step(s, a):
        moved = torch.stack([s[:, 0] + 0.2 * s[:, 1], 0.9 * s[:, 1] + a[:, 0]], 1)
        return moved + strength * torch.sin(s), -(s**2).sum(1) - (1 + strength) * a[:, 0] ** 2

    return systems.from_function(step, state_dim=2, action_dim=1)


def policy():
    network = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    torch.nn.init.constant_(network.weight, -0.2)
    return network


def starts(n=32):
    return torch.randn(n, 2, generator=stream(0, "test"), dtype=torch.float64)


def compared(model=True, names=("position [m]", "speed [m/s]"), **settings):
    data = (starts(200), torch.randn(200, 1, generator=stream(1, "test")).double())
    return gradlab.compare_jacobians(
        system(0.0),
        system(0.05) if model else None,
        starts(),
        policy(),
        data if model else None,
        state_names=names,
        action_names=("push [N]",),
        settings={"task": "mine", "command": "gradlab jacobians mine"} | settings,
    )


def said(run, about):
    (found,) = [each for each in verdict(run) if each.code == about]
    return found


def grown(run, section, quantity, factor, **where):
    """The run with some numbers multiplied."""
    columns = {name: column.copy() for name, column in run.columns.items()}
    rows = run.rows(section, quantity=quantity, **where).index
    for name in ("value", "ci_low", "ci_high"):
        columns[name][rows] *= factor
    return replace(run, columns=columns)


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
        found += [ModelValue(model, name, value, at=h) for name, value in of.items()]
    for block in ("A", "B", "r_s", "r_a"):
        found.append(ModelValue(model, "jacobian_error", 0.1 * factor * noise[3], block))
    single = {
        "least_mse": min(errors), "usable_horizon": 3.0 + (factor < 1), "best_horizon": 2.0,
        "lyapunov": 0.05 * factor * noise[4], "held_out_mse": 0.1 / factor * noise[5],
        "step_cost": {"dd": 1.6}.get(model, 1.0),
    }  # fmt: skip
    return [*found, *(ModelValue(model, name, value) for name, value in single.items())]


def planted(trials: int = 4, task: str = "planted", **changed: Any) -> Remedies:
    cells: list[ModelValue] = []
    for trial in range(trials):
        numbers = values(BASELINE, 1.0, trial)
        for arm in ARMS:
            numbers += [*values(arm, FACTOR[arm], trial), *values(longer(arm), LONGER, trial)]
        numbers.append(ModelValue(SIMULATOR, "lyapunov", 0.04 + 0.001 * trial))
        cells += of_trial(trial, numbers)
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
    return replace(
        Remedies(tuple(cells), tuple(pairs), config, {"torch": "2.13.0"}, notes), **changed
    )


RUN = planted()
TABLE, LEVELS = RUN.table(), RUN.levels()
