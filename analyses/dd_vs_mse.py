"""DD-VS-MSE: does a model need a loss on its derivatives, or do state predictions suffice?

    claim       RP-PGM: models that predict states suffice; DDPPO: the model's gradient has to be
                learned, by directional derivatives to neighbouring data
    paper       RP-PGM, section 4.3, against DDPPO, section 5.2
    criterion   a decided answer at every data size: the interval of the ratio of the policy
                gradient's squared bias, with the loss over without, at equal fitting time, lies
                below 1, above 1, or within [0.8, 1.25]

    python -m analyses.dd_vs_mse [--small] [--output reports/remedies] [--trials FILE]

Pendulum and cart-pole, without noise and with noise of a tenth of the spread of s' − s; 500 to
20,000 rows; 10 seeds of record and of fit. One network of 2×64 SiLU units, 2,000 steps of 256 rows
by squared error, against the same with w R beside it (DDPPO eq. 9, sign corrected; n = 10, w = 1,
standardised, one of the ten neighbours per step in turn), and against squared error for as long as
that took. The reward is known. The policy's gradient has θ in the first action, 1, 3, 5 and 10
model steps, and a critic that is all but exact, so that its bias is the model's own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure

from analyses import remedy_claims
from analyses.model_pairs import (
    HORIZONS, Ratio, Row, cost_ratio, errors, gradients, held_out_of, kept, learned,
    photographs, ratio, settings,
)  # fmt: skip
from analyses.model_worlds import world
from analyses.verdicts import Verdict, save
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.losses import OneStep
from gradlab.fitting.nearness import nearness

WORLDS = (("pendulum", 0.0), ("pendulum", 0.1), ("cart-pole", 0.0), ("cart-pole", 0.1))
ROWS = (500, 2000, 5000, 20_000)
TRIALS = 10
STEPS = 2000
LOSS = DirectionalDerivative(prediction="mse", directions=1)
BASELINE = OneStep("mse")
BUDGETS = ("equal time", "equal steps")


def measure(trials: Path, small: bool = False, most: int = TRIALS) -> pd.DataFrame:
    """One row per world, size, trial and model; `most` trials."""
    worlds, sizes = (WORLDS[2:3], (200,)) if small else (WORLDS, ROWS)
    count, steps = (2, 20) if small else (most, STEPS)
    cells: list[Row] = [
        {"world": name, "noise": noise, "rows": rows, "trial": trial, "steps": steps}
        for trial in range(count)
        for rows in sizes
        for name, noise in worlds
    ]
    return kept(trials, cells, one_trial)


def one_trial(cell: Row) -> list[Row]:
    """The three models of one cell."""
    name, noise, rows = str(cell["world"]), float(cell["noise"]), int(cell["rows"])
    here, shape = world(name, noise), settings(int(cell["trial"]))
    data, test = here.record(rows, int(cell["trial"])), held_out_of(here)
    steps, times = int(cell["steps"]), cost_ratio(name, noise, LOSS, BASELINE)
    longer = round(times * steps)
    plain = photographs(data, shape, BASELINE, (steps, longer))
    fits = {
        ("mse", "equal steps"): plain[steps],
        ("mse", "equal time"): plain[longer],
        ("dd", "both"): photographs(data, shape, LOSS, (steps,))[steps],
    }
    systems = {" ".join(key): learned(here, fit) for key, fit in fits.items()}
    biases = gradients(here, systems)
    near = nearness(data, plain[longer], LOSS.neighbours, LOSS.divided)
    foreseen: Row = {"times": times, "nearness": near.verdict, "distance": near.distance}
    foreseen |= {"target_error": near.target_error, "model_error": near.model_error}
    return [
        {"arm": arm, "budget": budget, "best_epoch": fit.best_epoch[0]}
        | errors(systems[f"{arm} {budget}"], test)
        | biases[f"{arm} {budget}"]
        | foreseen
        for (arm, budget), fit in fits.items()
    ]


if __name__ == "__main__":
    tyro.cli(measure)
