"""DD-VS-MSE-WORLDS: is a loss on the model's derivatives needed? Each world by itself.

    claim       the policy gradient needs the directional-derivative loss (DDPPO); models that
                predict states suffice (RP-PGM)
    paper       RP-PGM, section 4.3, against DDPPO, section 5.2
    criterion   each world, at 500 rows: geometric mean over ten trials of the gradient's squared
                bias, with the loss (w = 10) over without at equal fitting time; its Student's 95%
                interval lies below 0.8 (needed there: a fifth of the squared bias goes) or above
                0.8 (not needed there), else undecided. DDPPO is right if the loss is needed in
                every world, RP-PGM if in none

    python -m analyses.dd_vs_mse_worlds run --world pendulum --noise 0
    python -m analyses.dd_vs_mse_worlds table

Worlds, networks, losses and budgets are those of DD-VS-MSE, whose seven trials suggested the
question and do not count: trials 100 to 109 are new records and new fits. 500 rows, where data are
scarcest, since the time allows one size; 5,000 rows follow, trial by trial, as far as the clock
allows, and are reported beside. A threshold of 0.8 instead of DD-VS-MSE's 1 and of its "alike"
makes one question of two: is there a gain worth having? Beside the criterion, too: equal steps,
the Jacobian's error, and the ten trials together with the seven.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure
from tyro.conf import subcommand

from analyses import remedy_claims
from analyses.dd_vs_mse import PAIRS, STEPS, WORLDS, one_trial
from analyses.dd_vs_mse_report import MAIN
from analyses.forest import forest, legend_above
from analyses.paired_trials import Paired, Row, columns, kept, ratio, with_bias
from analyses.verdicts import Verdict, save

FOLDER = remedy_claims.FOLDER
ROWS = (500, 5000)
WEIGHTS = (0.0, 10.0)
FIRST, TRIALS = 100, 10
NEEDED = 0.8


@dataclass(frozen=True)
class Run:
    """Fit and measure the trials of one world; what is there is kept."""

    world: Literal["pendulum", "cart-pole"]
    noise: float
    trials: int = TRIALS
    output: Path = FOLDER

    def run(self) -> None:
        cells: list[Row] = [
            {"world": self.world, "noise": self.noise, "rows": rows, "trial": FIRST + trial,
             "steps": STEPS, "weight": weight}
            for rows in ROWS
            for trial in range(self.trials)
            for weight in WEIGHTS
        ]  # fmt: skip
        name = f"dd-vs-mse-worlds-{self.world}-{self.noise:g}-trials.csv"
        kept(self.output / name, cells, one_trial)


@dataclass(frozen=True)
class Table:
    """The verdict from the trials."""

    output: Path = FOLDER

    def run(self) -> None:
        found = sorted(self.output.glob("dd-vs-mse-worlds-*-trials.csv"))
        trials = pd.concat([pd.read_csv(path) for path in found], ignore_index=True)
        earlier = pd.read_csv(self.output / "dd-vs-mse-trials.csv")
        save(judge(trials, earlier), self.output, "python -m analyses.dd_vs_mse_worlds table")
        remedy_claims.refresh(self.output)


def judge(trials: pd.DataFrame, earlier: pd.DataFrame) -> Verdict:
    """The verdict from one row per world, size, trial and model, with the earlier trials beside."""
    raise NotImplementedError


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tyro.cli(Annotated[Run, subcommand("run")] | Annotated[Table, subcommand("table")]).run()


if __name__ == "__main__":
    main()
