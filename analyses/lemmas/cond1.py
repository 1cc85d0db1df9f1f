"""COND1: does a model's state error grow linearly with the prediction horizon?

    claim       sup |s_{t+i} − ŝ_{t+i}| ≤ c_m i: "model state error grows linearly"
    paper       MPG and MPG journal, Condition 1
    criterion   25 steps, 256 starts, prior models of both tasks: the exponent of a power law has a
                95% interval inside [0.8, 1.2] and R² ≥ 0.95; "violated" where an exponential wins

    python -m analyses.lemmas.cond1 [--small] [--output reports/lemmas]

Closed loop: simulator and prior each follow the policy (the prior's Riccati feedback, distilled).
Open loop: the prior replays the simulator's actions, which is what a chain of Jacobians with fixed
actions sees. Once as published, where the priors push y by 0.5 m or x by 0.1 m a step, and once
without that push, which leaves the mismatch of the dynamics. Norm: all coordinates in SI units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import gradlab
from analyses.harness.verdicts import Verdict, study
from gradlab.data.noise import stream
from gradlab.fitting import stabilising_policy
from gradlab.gradients.rollout import rollout
from gradlab.gradients.starts import Starts, as_starts
from gradlab.statistics.growth import ErrorGrowth, error_growth
from gradlab.systems import cartpole, vehicle
from gradlab.tasks import Task

FOLDER = Path("reports/lemmas")
STARTS, STEPS, SEED = 256, 25, 0
LOOPS = ("closed", "open")
NOISES = ("as published", "push removed")
NORM = "norm"


@dataclass(frozen=True, eq=False)
class Case:
    """A task and the prior noise that cancels its constant push."""

    task: Task
    still: float


def cases() -> dict[str, Case]:
    pendulum = gradlab.tasks.inverted_pendulum("analytic", slider="wide")
    return {
        "path tracking": Case(
            gradlab.tasks.path_tracking(), -vehicle.MODEL_BIAS / vehicle.MODEL_NOISE
        ),
        "inverted pendulum": Case(pendulum, -cartpole.MODEL_BIAS / cartpole.MODEL_NOISE),
    }


def measure(small: bool = False) -> Verdict:
    starts = 32 if small else STARTS
    return judge(
        pd.DataFrame([row for name, case in cases().items() for row in _rows(name, case, starts)])
    )


def _rows(name: str, case: Case, count: int) -> Iterator[dict[str, object]]:
    """One row per loop, noise and coordinate."""
    task = case.task
    policy = stabilising_policy(task).double()
    begin = as_starts(task.starts(count, stream(SEED, "starts")), task.simulator.state_dim)
    for loop in LOOPS:
        for noise in NOISES:
            gaps = differences(case, policy, begin, loop, drawn=noise == NOISES[0])
            for row in growth(gaps, task.state_names):
                yield {"task": name, "loop": loop, "noise": noise} | row


def growth(gaps: Tensor, names: tuple[str, ...]) -> Iterator[dict[str, object]]:
    """How the norm and every coordinate of ŝ_i − s_i [N, 25, ds] grow; nothing where none errs."""
    distances = {NORM: gaps.norm(dim=2)} | {
        label: gaps[:, :, j].abs() for j, label in enumerate(names)
    }
    for label, each in distances.items():
        found = error_growth(each.numpy())
        if found is not None:
            largest = (each / torch.arange(1, STEPS + 1)).max()
            yield {"coordinate": label, "largest_c_m": float(largest)} | _values(found)


def differences(case: Case, policy: nn.Module, begin: Starts, loop: str, drawn: bool) -> Tensor:
    """ŝ_i − s_i of steps 1 … 25, [N, 25, ds]; `drawn`: by the prior's noise, else `case.still`."""
    task = case.task
    assert task.prior is not None
    path = rollout(task.simulator, policy, begin, STEPS, SEED)
    state, gaps = begin.states, []
    for t in range(STEPS):
        xi = begin.dynamics_noise(task.prior, SEED, t)
        xi = xi if drawn else torch.full_like(xi, case.still)
        with torch.no_grad():
            action = path.actions[t] if loop == "open" else policy(state)
            state = task.prior.step(state, action, xi).state
        gaps.append(state - path.states[t + 1])
    return torch.stack(gaps, dim=1)


def _values(found: ErrorGrowth) -> dict[str, object]:
    values: dict[str, object] = {"law": found.law, "condition": found.condition}
    for name in ("exponent", "rate", "evidence"):
        fitted = getattr(found, name)
        values |= {name: fitted.value, f"{name}_low": fitted.low, f"{name}_high": fitted.high}
    steps = np.arange(1, STEPS + 1)
    fit = float(np.corrcoef(steps, np.log(found.errors))[0, 1] ** 2)
    values |= {"power_fit": found.power_fit, "exponential_fit": fit}
    return (
        values
        | {"c_m": float((found.errors / steps).max())}
        | {f"error_{i}": float(found.errors[i - 1]) for i in range(1, STEPS + 1)}
    )


def judge(table: pd.DataFrame) -> Verdict:
    """The verdict from one row per task, loop, noise and coordinate."""
    norms = table[table["coordinate"] == NORM]
    published = norms[norms["noise"] == NOISES[0]]
    holds = bool((published["law"] == "linear").all())
    exponential = table[(table["law"] == "exponential") & (table["coordinate"] != NORM)]
    numbers: dict[str, float] = {
        "norms": len(published),
        "norms_linear": int((published["law"] == "linear").sum()),
        "coordinates_exponential": len(exponential),
    }
    for _, row in norms.iterrows():
        key = "_".join(f"{row['task']} {row['loop']} {row['noise']}".split())
        numbers |= {f"{key}_{name}": row[name] for name in ("exponent", "rate", "evidence", "c_m")}
    return Verdict(
        "COND1",
        "MPG and MPG (journal), Condition 1",
        "exponent's interval inside [0.8, 1.2], R² ≥ 0.95: both priors, open and closed loop",
        holds,
        _sentence(norms, exponential, holds),
        numbers,
        table,
    )


def _sentence(norms: pd.DataFrame, exponential: pd.DataFrame, holds: bool) -> str:
    opening = "Holds" if holds else "Does not hold in general"

    def told(rows: pd.DataFrame) -> str:
        return "; ".join(
            f"{row['task']}, {row['loop']} loop: {row['condition']} (c_m {row['c_m']:.2g})"
            for _, row in rows.iterrows()
        )

    published, removed = (norms[norms["noise"] == noise] for noise in NOISES)
    hidden = exponential[exponential["noise"] == NOISES[0]]
    where = ", ".join(
        f"{row['coordinate'].split()[0]} of the {row['task']} ({row['loop']} loop, "
        f"{row['rate']:.2f} per step)"
        for _, row in hidden.iterrows()
    )
    return (
        f"{opening}. As published: {told(published)}. Without the priors' constant push: "
        f"{told(removed)}. Coordinates whose error is exponential as published: {where or 'none'}; "
        f"over 25 steps the push, which itself grows linearly, hides them in the norm."
    )


if __name__ == "__main__":
    study(measure, FOLDER)
