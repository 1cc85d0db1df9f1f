"""LANDSCAPE through a learned model: is a long unroll's surface rougher, and does SN smooth it?

    claim       the loss surface of a training policy is rougher at long h; smoother with spectral
                normalisation of model and policy
    paper       RP-PGM, section 7.2, Fig. 3 (there: Hopper)
    criterion   mean |second difference| / range of a 21×21 slice: plain h = 15 at least 3× plain
                h = 3; normalised at most half of plain at h = 15; on both tasks

    python -m analyses.remedies.landscape_learned [--small] [--output reports/remedies]

Slices as in `landscape`, of returns that the model predicts, around the improved policies of
`spectral_arms`; 5 seeds, two pairs of directions each. A normalised policy is moved by its plain
weights V, as the others are, and beside it by W, V = W/σ(W), in which its optimiser moves: there
the norms stay at 1 wherever it goes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from analyses.harness.verdicts import Verdict, study
from analyses.jacobians.landscape import HORIZONS, LONG, ROUGHER, SHORT, roughness, slice_of
from analyses.remedies import page as remedy_claims
from analyses.remedies.sn_var import BOTH, PLAIN, ratio
from analyses.remedies.spectral_arms import (
    ARMS,
    MODEL,
    ROWS,
    SEEDS,
    UPDATES,
    Trial,
    plain,
    tasks,
    treated,
    trial,
    world,
)

FOLDER = remedy_claims.FOLDER
PAIRS = 2
BY_W = "both, moved by W"
SMOOTHER = 2.0
Array = NDArray[np.float64]


def measure(small: bool = False) -> Verdict:
    seeds, rows, updates = (2, 500, 2) if small else (SEEDS, ROWS, UPDATES)
    pairs, epochs = (1, 2) if small else (PAIRS, MODEL.epochs)
    found = []
    for name in tasks():
        for seed in range(seeds):
            made = trial(name, seed, rows, epochs)
            for arm, pair, surface in slices(made, updates, pairs):
                found += [
                    {"task": name, "arm": arm, "seed": seed, "pair": pair, "h": h,
                     "roughness": roughness(surface[k]), "range": np.ptp(surface[k])}
                    for k, h in enumerate(HORIZONS)
                ]  # fmt: skip
    return judge(pd.DataFrame(found))


def slices(made: Trial, updates: int, pairs: int) -> Iterator[tuple[str, int, Array]]:
    """Surfaces [unrolls, 21, 21] around every arm's improved policy, directions of each seed."""
    for arm, which in ARMS.items():
        alike = treated(made, which, updates)
        place, policy = world(made.task.name, made.task, alike.model), plain(alike.improved)
        for pair in range(pairs):
            drawn = made.seed * PAIRS + pair
            yield arm, pair, slice_of(place, policy, drawn)
            if arm == BOTH:
                yield BY_W, pair, slice_of(place, policy, drawn, renormalised)


def renormalised(moved: dict[str, Tensor]) -> dict[str, Tensor]:
    """W / σ(W) of every weight [points, out, in]."""
    return {
        name: each / torch.linalg.matrix_norm(each, ord=2)[:, None, None]
        if each.ndim == 3
        else each
        for name, each in moved.items()
    }


def judge(table: pd.DataFrame) -> Verdict:
    """The verdict from the roughness of each task, arm, seed, pair of directions and h."""
    told, numbers, rough, smooth = [], {}, [], []
    for task, rows in table.groupby("task", sort=False):
        found = cell(rows)
        for name, values in found.items():
            key = f"{task}_{name}".replace(", ", "_").replace(" ", "_")
            numbers |= {key: values[0], f"{key}_low": values[1], f"{key}_high": values[2]}
        rough.append(found["longer"][0] >= ROUGHER)
        smooth.append(found[BOTH][0] >= SMOOTHER)
        medians = rows[rows["h"] == LONG].groupby("arm")["roughness"].median()
        told.append(
            f"{task}: plain, h = {LONG} against {SHORT} {_said(found['longer'])}; at h = {LONG} "
            f"plain against both normalised {_said(found[BOTH])} (median {medians[PLAIN]:.4f} "
            f"against {medians[BOTH]:.4f}; moved by W {_said(found[BY_W])}; model alone "
            f"{_said(found['model'])}, policy alone {_said(found['policy'])})"
        )
    sentence = (
        f"A plain surface is at least {ROUGHER:g}× rougher at h = {LONG} than at {SHORT} on "
        f"{sum(rough)} of {len(rough)} tasks, and at least {SMOOTHER:g}× as rough as a normalised "
        f"one on {sum(smooth)}. {'; '.join(told)}. Geometric means over {table['seed'].nunique()} "
        f"seeds, {table['pair'].nunique()} pairs of directions each; a parabola has 0.0100."
    )
    return Verdict(
        "LANDSCAPE-LEARNED",
        "RP-PGM, Fig. 3",
        "mean |second difference| / range: plain h = 15 at least 3× plain h = 3; normalised at "
        "most half of plain at h = 15; both tasks",
        all(rough) and all(smooth),
        sentence,
        numbers,
        table,
    )


def cell(rows: pd.DataFrame) -> dict[str, tuple[float, float, float]]:
    """Ratios of roughness for one task: long to short, and plain to every other arm at long h."""
    logs = rows.assign(roughness=np.log(rows["roughness"]))
    mean = np.exp(logs.groupby(["arm", "h", "seed"])["roughness"].mean())
    at = {arm: mean[arm, LONG].to_numpy() for arm in mean.index.get_level_values("arm").unique()}
    others = {arm: ratio(at[PLAIN], values) for arm, values in at.items() if arm != PLAIN}
    return {"longer": ratio(at[PLAIN], mean[PLAIN, SHORT].to_numpy())} | others


def _said(values: tuple[float, float, float]) -> str:
    return f"{values[0]:.2f}× [{values[1]:.2f}, {values[2]:.2f}]"


if __name__ == "__main__":
    study(measure, FOLDER, remedy_claims.refresh)
