"""GRADLOSS: does the directional-derivative loss lower the error of a model's Jacobian?

    claim       with the loss the gradient error is lower while the prediction error goes to zero
                with and without it; more so on the nonlinear pendulum
    paper       DDPPO, section 5.2, Fig. 2 left
    criterion   paired ratio of the held-out Jacobian MSE with/without below 1 (whole 95% interval)
                in both worlds, and ratio(pendulum) < ratio(linear)

    python -m analyses.gradloss [--small] [--output reports/remedies] [--trials FILE]

Data of a random policy, 1,000 / 3,000 / 10,000 rows, 5 trials; one network of 2×64 SiLU units
(reduced: the paper has 7 of 4×200), 2,000 steps of 256 rows by likelihood, against the same with
w R beside it (eq. 9–10, sign corrected, as printed otherwise: n = 10, w = 10, those of Table 1 for
InvertedPendulum; one of the ten neighbours per step, in turn), at equal steps, and against the likelihood for as long as that took. Jacobian of
s' alone; the pendulum's rows on its velocity limit are left out, and given beside. At 3,000 rows
also with ReLU, and with the squares divided by the predicted variance (w = 1).

The same fits serve PRED-COST, TWO-MODEL and CAPACITY.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import tyro

from analyses.model_pairs import (
    Row,
    cost_ratio,
    errors,
    gradients,
    held_out_of,
    kept,
    learned,
    photographs,
    settings,
)  # fmt: skip
from analyses.model_worlds import world
from gradlab.data.trajectories import Trajectories
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.fitted import Fit
from gradlab.fitting.losses import OneStep
from gradlab.fitting.model_settings import SMALL
from gradlab.fitting.two_models import doubled
from gradlab.systems.two_models import TwoModels

ROWS = (1000, 3000, 10_000)
MIDDLE = 3000  # where the further arms are
TRIALS, STEPS = 5, 2000
PLAIN = OneStep("nll")
PRINTED = DirectionalDerivative(weight=10.0, as_printed=True, directions=1)
SCALED = DirectionalDerivative(directions=1)
BUDGETS = ("equal steps", "equal time")
Fits = dict[tuple[str, str], Fit]


def measure(trials: Path, small: bool = False) -> pd.DataFrame:
    """One row per world, size, trial and model; the cart-pole at the middle size alone."""
    count, steps, sizes = (2, 20, (200,)) if small else (TRIALS, STEPS, ROWS)
    cells: list[Row] = [
        {"world": name, "rows": rows, "trial": trial, "steps": steps}
        for trial in range(count)
        for rows in sizes
        for name in ("linear", "pendulum", "cart-pole")
        if name != "cart-pole" or rows == MIDDLE
    ]
    return kept(trials, cells, one_trial)


def one_trial(cell: Row) -> list[Row]:
    """All models of one cell."""
    name, rows, seed = str(cell["world"]), int(cell["rows"]), int(cell["trial"])
    here, data = world(name), world(name).record(rows, seed)
    times = cost_ratio(name, 0.0, PRINTED, PLAIN)
    fits = fitted(data, seed, int(cell["steps"]), times)
    if rows == MIDDLE:
        fits |= further(data, seed, int(cell["steps"]), times)
    systems = {key: learned(here, fit) for key, fit in fits.items()}
    biases = gradients(here, {" ".join(key): each for key, each in systems.items()})
    two = TwoModels(systems["nll", "equal steps"], systems["dd", "both"])
    test = held_out_of(here)
    found: list[Row] = [
        {"arm": arm, "budget": budget, "best_epoch": fit.best_epoch[0], "times": times}
        | errors(systems[arm, budget], test)
        | biases[f"{arm} {budget}"]
        for (arm, budget), fit in fits.items()
    ]
    both: Row = {"arm": "two-model", "budget": "both", "times": times + 1}
    return [*found, both | errors(two, test) | gradients(here, {"two": two})["two"]]


def fitted(data: Trajectories, seed: int, steps: int, times: float) -> Fits:
    """With the loss, and without it for as many steps, as long, and as long as both together."""
    shape = settings(seed)
    ends = {"equal steps": steps, "equal time": round(times * steps)}
    ends["time of both"] = round((1 + times) * steps)
    plain = photographs(data, shape, PLAIN, ends.values())
    with_loss = photographs(data, shape, PRINTED, (steps,))[steps]
    return {("nll", name): plain[end] for name, end in ends.items()} | {("dd", "both"): with_loss}


def further(data: Trajectories, seed: int, steps: int, times: float) -> Fits:
    """ReLU with and without, the scaled loss, and twice the parameters."""
    shape, relu = settings(seed), settings(seed, activation="relu")
    ds, da = data.state.shape[1], data.action.shape[1]
    double = settings(seed, hidden=doubled(SMALL.hidden, (ds + da, 2 * ds)))
    longer = round((1 + times) * steps)
    large = photographs(data, double, PLAIN, (steps, longer))
    return {
        ("double", "equal steps"): large[steps],
        ("double", "steps of both"): large[longer],
        ("relu nll", "equal steps"): photographs(data, relu, PLAIN, (steps,))[steps],
        ("relu dd", "both"): photographs(data, relu, PRINTED, (steps,))[steps],
        ("scaled dd", "both"): photographs(data, shape, SCALED, (steps,))[steps],
    }


if __name__ == "__main__":
    tyro.cli(measure)
