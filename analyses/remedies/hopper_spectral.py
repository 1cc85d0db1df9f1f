"""HOPPER-SN: on Hopper, does spectral normalisation cut the gradient variance of a learned model?

    claim       plain models of Hopper have exploding gradient variance; with model and policy
                normalised it is much lower for all unroll lengths
    paper       RP-PGM, section 7.2, Figs. 2 and 5
    criterion   as SN-VAR: variance ratio plain/normalised at least 10 at h = 15, its interval
                above 1 for all h >= 5; slope of log variance at most half; improved policies

    python -m analyses.remedies.hopper_spectral [--small] [--output reports/remedies]

MuJoCo's Hopper-v5. Models of next state and reward (five ReLU layers, 128 wide) fitted to 5000
transitions of random actions and, beside it, of a controller that holds the initial posture with
noise added; arms, policies and measures of `sn_var`, the simulator's own variance beside them.
Gradients run on after a fall, in model and simulator alike. The paper's curves are of a full
training, which this is not.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from analyses.harness.verdicts import Verdict, study
from analyses.jacobians import robots
from analyses.remedies import page as remedy_claims
from analyses.remedies import sn_var
from analyses.remedies.spectral_arms import MODEL, ROWS, SEEDS, UPDATES, fitted
from gradlab.fitting.collection import exploring
from gradlab.tasks import task_from_name

FOLDER = remedy_claims.FOLDER
SAMPLES = 64


def measure(small: bool = False) -> Verdict:
    seeds, rows, updates, samples = (2, 300, 2, 8) if small else (SEEDS, ROWS, UPDATES, SAMPLES)
    settings = replace(MODEL, epochs=2 if small else MODEL.epochs)
    task = task_from_name("Hopper-v5", {})
    found = [
        row
        for name, policy in {
            "random actions": None,
            "holding its posture": exploring(task, robots.posture(task.simulator)[0]),
        }.items()
        for seed in range(seeds)
        for row in sn_var.rows_of(
            name, fitted(task, None, seed, rows, settings, policy), updates, samples
        )
    ]
    return judge(pd.DataFrame(found))


def judge(table: pd.DataFrame) -> Verdict:
    return replace(sn_var.judge(table), claim="HOPPER-SN")


if __name__ == "__main__":
    study(measure, FOLDER, remedy_claims.refresh)
