"""N-W-SENS: how much do the number of neighbours n and the weight w of the gradient loss matter?

    claim       the gradient loss is insensitive to n, even n = 1 helps; higher dimensions want a
                smaller w
    paper       DDPPO, Fig. 3 left and middle, Table 1
    criterion   at the best w, largest/smallest Jacobian MSE over n ≤ 1.5, and all below that of a
                model without the loss; Spearman correlation of the best w with the dimension < 0
                (whole 95% interval, bootstrap over trials)

    python -m analyses.n_w_sens [--small] [--output reports/remedies] [--trials FILE]

s' = ½ s + G tanh(W s) + B a with random G, W, B, of 3, 10 and 30 dimensions (1, 3, 10 actions),
2,000 rows of random actions, 3 trials of record and fit; one network of 2×64 SiLU units, 1,000
steps of 256 rows by likelihood + w R as in GRADLOSS, one of the n neighbours per step in turn, so
that every n costs the same; n ∈ {1, 5, 10, 25}, w ∈ {0.01, 0.1, 1, 10, 50}.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd
import tyro
import torch
from torch import Tensor

from analyses.model_pairs import (
    TEST_ROWS,
    TEST_SEED,
    Row,
    cost_of,
    errors,
    held_out,
    kept,
    photographs,
    settings,
)  # fmt: skip
from gradlab.data.noise import stream
from gradlab.fitting.collection import collect
from gradlab.fitting.derivative_losses import DirectionalDerivative
from gradlab.fitting.fitted import Fit
from gradlab.fitting.losses import OneStep
from gradlab.systems.function import from_function
from gradlab.systems.learned import LearnedSystem
from gradlab.tasks import Task

DIMENSIONS, NEIGHBOURS, WEIGHTS = (3, 10, 30), (1, 5, 10, 25), (0.01, 0.1, 1.0, 10.0, 50.0)
ROWS, TRIALS, STEPS = 2000, 3, 1000
PLAIN = OneStep("nll")


@cache
def task(dimension: int) -> Task:
    """Linear and tanh dynamics of one random draw; the reward −|s|² matters to nobody here."""
    actions, generator = max(1, dimension // 3), stream(0, "n-w-sens", dimension)

    def drawn(rows: int, columns: int, scale: float) -> Tensor:
        unit = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        return scale * unit / math.sqrt(columns)

    W, G = drawn(dimension, dimension, 2.0), drawn(dimension, dimension, 1.0)
    B = drawn(dimension, actions, 1.0)

    def step(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        after = 0.5 * state + (state @ W.to(state).T).tanh() @ G.to(state).T
        return after + action @ B.to(state).T, -state.square().sum(dim=1)

    def starts(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, dimension, generator=generator, dtype=torch.float64)

    return Task(
        f"tanh-{dimension}", from_function(step, dimension, actions), None, starts, 0.95, 25
    )


def measure(trials: Path, small: bool = False) -> pd.DataFrame:
    """One row per dimension, trial and model."""
    dimensions, count, steps = ((3,), 2, 10) if small else (DIMENSIONS, TRIALS, STEPS)
    cells: list[Row] = [
        {"dimension": dimension, "trial": trial, "steps": steps}
        for trial in range(count)
        for dimension in dimensions
    ]
    return kept(trials, cells, one_trial)


def one_trial(cell: Row) -> list[Row]:
    """Every n and w of one cell, and the model without the loss."""
    here, seed = task(int(cell["dimension"])), int(cell["trial"])
    data, shape = collect(here, ROWS, seed=seed), settings(seed)
    test = held_out(here.simulator, collect(here, TEST_ROWS, seed=TEST_SEED))
    steps, times = int(cell["steps"]), times_of(int(cell["dimension"]))
    longer = round(times * steps)
    plain = photographs(data, shape, PLAIN, (steps, longer))

    def judged(fit: Fit) -> Row:
        reward = here.simulator.step
        model = LearnedSystem(fit.ensemble.double(), lambda s, a, after: reward(s, a).reward)
        return {"times": times, "best_epoch": fit.best_epoch[0]} | errors(model, test)

    found: list[Row] = [
        {"arm": "nll", "budget": name, "n": 0, "w": 0.0} | judged(plain[end])
        for name, end in (("equal steps", steps), ("equal time", longer))
    ]
    for n, w in product(NEIGHBOURS, WEIGHTS):
        fit = photographs(data, shape, loss(n, w), (steps,))[steps]
        found.append({"arm": "dd", "budget": "both", "n": n, "w": w} | judged(fit))
    return found


def loss(n: int, w: float) -> DirectionalDerivative:
    return DirectionalDerivative(neighbours=n, weight=w, as_printed=True, directions=1)


@cache
def times_of(dimension: int) -> float:
    data = collect(task(dimension), ROWS, seed=TEST_SEED)
    return cost_of(data, loss(10, 1.0), PLAIN)


if __name__ == "__main__":
    tyro.cli(measure)
