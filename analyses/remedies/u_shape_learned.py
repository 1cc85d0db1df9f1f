"""U-SHAPE with a learned network: does the gradient's error fall with the horizon, then rise?

    claim       with the true dynamics the error of the H-step gradient falls with H; with a
                learned model it falls, then rises
    paper       MAAC, section 4.2 and Fig. 2
    criterion   true dynamics: error(50)/error(1) ≤ 0.05, slope of log error below 0;
                learned model: smallest error at an interior H in ≥ 95% of bootstraps,
                error(1)/error(H*) ≥ 1.5 and error(80)/error(H*) ≥ 2, both intervals above 1

    python -m analyses.remedies.u_shape_learned [--small] [--output reports/remedies]

`u_shape` with two hidden layers of 64 SiLU units in the place of least squares, on MAAC's double
integrator and on Gymnasium's pendulum about its upright position, linear policies, γ = 0.95. Model
(by likelihood) and quadratic critic (LSTD) from the same n transitions, whose next states are read
with an error of 5% of the states' spread; the reward is known. θ in every action, 256 starts;
error: L1 distance of the mean gradient from that of 400 true steps on the same starts and noise,
10 seeds of data and fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd
import torch
from torch import Tensor, nn

from analyses.bounds import fitted_double_integrator as fitted
from analyses.bounds.tailed_gradients import QuadraticCritic
from analyses.bounds.u_shape import ARMS, HORIZONS, curves_of, tested
from analyses.harness.systems import linear_policy
from analyses.harness.verdicts import Verdict, study
from analyses.remedies import page as remedy_claims
from gradlab.data.noise import stream
from gradlab.data.trajectories import Trajectories
from gradlab.fitting.model_settings import SMALL, ModelSettings
from gradlab.fitting.models import fit_model
from gradlab.gradients.estimator import Estimator
from gradlab.gradients.gram import path_mean_gradients
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Tail
from gradlab.gradients.weighted_terms import carried
from gradlab.systems.learned import LearnedSystem
from gradlab.systems.pendulum import Pendulum
from gradlab.systems.system import System

FOLDER = remedy_claims.FOLDER
MODEL = replace(SMALL, members=1, bootstrap=False, reward=False, patience=10)
DISCOUNT = 0.95
MISREAD = 0.05  # of every coordinate of s', in units of the spread of s
SAMPLES = (200, 2000)
STARTS = 256
LONG = 400
SEEDS = 10
CELL = ["system", "n"]
LARGEST = 1e12  # errors beyond, of models that leave the finite numbers, are cut here


@dataclass(frozen=True, eq=False)
class Setting:
    """A system, a linear policy a = W s on it, and the spread of starts and of recorded states."""

    system: System
    weight: Tensor
    spread: float


def settings() -> dict[str, Setting]:
    def row(*values: float) -> Tensor:
        return torch.tensor([values], dtype=torch.float64)

    mass = {
        f"double integrator, {gain:g} of the optimal gain": Setting(system, given.weight, 1.0)
        for gain in (0.6, 0.1)
        for given, system, _ in (fitted.make_setting(gain),)
    }
    rod = {
        f"pendulum, gains {p:g} and {d:g}": Setting(Pendulum(), row(-p, -d), 0.1)
        for p, d in ((8.0, 2.0), (6.0, 1.0))
    }
    return mass | rod


def measure(small: bool = False) -> Verdict:
    samples, seeds = ((200,), 2) if small else (SAMPLES, SEEDS)
    chosen = replace(MODEL, epochs=2) if small else MODEL
    return judge(
        pd.DataFrame(
            row
            for name, setting in settings().items()
            for n in samples
            for row in _rows(name, setting, n, seeds, chosen)
        )
    )


def _rows(
    name: str, setting: Setting, n: int, seeds: int, chosen: ModelSettings
) -> Iterator[dict[str, object]]:
    """One row per seed, arm and horizon."""
    truth = gradients(setting, setting.system, None, (LONG,))[0]
    for seed in range(seeds):
        data = fitted.drawn(
            setting.system, setting.weight, MISREAD * setting.spread, n, seed, setting.spread
        )
        model = learned(setting, data, replace(chosen, seed=seed))
        critic = QuadraticCritic(fitted.temporal_differences(data, setting.weight, DISCOUNT))
        for arm, system in zip(ARMS, (setting.system, model), strict=False):
            found = gradients(setting, system, critic, HORIZONS)
            error = (found - truth).abs().sum(dim=1) / truth.abs().sum()
            cosine = torch.cosine_similarity(found, truth[None])
            for k, h in enumerate(HORIZONS):
                finite = bool(torch.isfinite(error[k]))
                yield {
                    "system": name, "n": n, "seed": seed, "arm": arm, "horizon": h,
                    "error": min(float(error[k]), LARGEST) if finite else LARGEST,
                    "cosine": float(cosine[k]) if finite else 0.0,
                }  # fmt: skip


def gradients(
    setting: Setting, system: System, critic: nn.Module | None, horizons: tuple[int, ...]
) -> Tensor:
    """Mean ascent gradients in W [horizons, 2], states and Jacobians by `system`."""
    begin = as_starts(starts(setting), 2)
    estimator = Estimator(system, system, "all", Tail(horizons[-1], critic, DISCOUNT))
    found = carried(estimator, linear_policy(setting.weight), begin, horizons, 0, "ignore")
    return path_mean_gradients(found.jacobian, found.costates, found.ends)


def starts(setting: Setting) -> Tensor:
    """[256, 2], the same for every seed."""
    draw = torch.randn(STARTS, 2, generator=stream(0, "starts"), dtype=torch.float64)
    return setting.spread * draw


def learned(setting: Setting, data: fitted.Transitions, chosen: ModelSettings) -> LearnedSystem:
    """A network fitted to the transitions, with the system's own reward of (s, a)."""
    n = len(data.state)
    record = Trajectories(
        trajectory=torch.arange(n), step=torch.zeros(n, dtype=torch.long), state=data.state,
        action=data.action, reward=data.reward, next_state=data.after,
        terminated=torch.zeros(n, dtype=torch.bool), truncated=torch.ones(n, dtype=torch.bool),
    )  # fmt: skip

    def reward(state: Tensor, action: Tensor, after: Tensor) -> Tensor:
        return setting.system.step(state, action).reward

    return LearnedSystem(fit_model(record, chosen).ensemble, reward)


def judge(rows: pd.DataFrame) -> Verdict:
    """The verdict from one row per system, n, arm, seed and horizon."""
    cells = pd.DataFrame(
        dict(zip(CELL, key, strict=True)) | tested(group)
        for key, group in rows.groupby(CELL, sort=False)
    )
    falls, found = int(cells["true_met"].sum()), int(cells["learned_met"].sum())
    holds = falls == found == len(cells)
    numbers = {"cells": len(cells), "cells_true_met": falls, "cells_learned_met": found}
    for _, cell in cells.iterrows():
        key = f"{cell['system']}_{cell['n']}".replace(", ", "_").replace(" ", "_")
        numbers |= {f"{key}_{name}": float(cell[name])
                    for name in ("true_ratio", "best", "fall", "fall_low", "rise", "rise_low",
                                 "interior", "single")}  # fmt: skip
    sentence = (
        f"{'True' if holds else 'Partly' if found else 'Not seen'}. True dynamics meet theirs in "
        f"{falls} of {len(cells)} cells (largest error(50)/error(1) "
        f"{cells['true_ratio'].max():.3f}); learned models make the U in {found}: "
        f"{'; '.join(map(_told, (cell for _, cell in cells.iterrows())))}. {rows['seed'].nunique()}"
        f" seeds; of single fits {cells['single'].mean():.0%} fall by 1.5 and rise by 2."
    )
    return Verdict(
        "U-SHAPE-LEARNED",
        "MAAC, section 4.2, Fig. 2",
        "true: error(50)/error(1) ≤ 0.05, slope < 0; learned: interior minimum in 95% of "
        "bootstraps, fall ≥ 1.5 and rise ≥ 2 in every cell",
        holds,
        sentence,
        numbers,
        curves_of(rows, CELL).merge(cells, on=CELL),
    )


def _told(cell: pd.Series) -> str:
    return (
        f"{cell['system']}, n = {cell['n']}: H* = {cell['best']:.0f}, fall {cell['fall']:.2f} "
        f"[{cell['fall_low']:.2f}, …], rise {cell['rise']:.3g} [{cell['rise_low']:.2g}, …]"
        f"{', a U' if cell['learned_met'] else ''}"
    )


if __name__ == "__main__":
    study(measure, FOLDER, remedy_claims.refresh)
