"""Spectral normalisation and the gradient by horizon, in two long runs on Hopper (RP-PGM 2, 5).

    python -m analyses.model_based.by_horizon --runs runs/model-based

At the networks of the five stages of `rp-dp` and `rp-dp-sn`, from 256 of the replayed states that
are kept beside them: the gradient by all actions through the learned model with the critic after
h steps, start by start, against score functions of the simulator's return with θ in the same
actions. Gradients are in the weights that act. Criterion: `reports/model-based`, "Hopper, 25,000
transitions". One line of `by-horizon.csv` for each stage, seed and h; what is there is not made
again, and the lines between the page's marks are written from all that are.

A small gradient has a small variance: variance / |E G|² says what of a ratio is more than that.
Products of means are over pairs of different starts and are summed over stages and seeds before
they are divided, since most truths are too noisy for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro

from analyses.harness.student import geometric_mean
from analyses.harness.verdicts import put
from analyses.model_based.runs import LONG_SEEDS, RUNS, STAGES, Arm, path_of
from gradlab import Estimator, Tail
from gradlab.data.noise import child
from gradlab.gradients.starts import as_starts
from gradlab.gradients.tail import Setting
from gradlab.networks import checkpoint
from gradlab.networks.gaussian_ensemble import GaussianEnsemble
from gradlab.storage import records
from gradlab.systems.learned import LearnedSystem
from gradlab.training import checkpoints
from gradlab.training.measured.row_errors import squares
from gradlab.truth.score_actions import score_truth

OUTPUT = Path("reports/model-based")
TABLE = "by-horizon.csv"
PLAIN, NORMALISED = Arm("rp-dp", "hopper-long"), Arm("rp-dp-sn", "hopper-long")
HORIZONS = (1, 2, 4, 8)
SAMPLES = 256


def measured(arm: Arm, folder: Path, stage: int, seed: int) -> Iterator[dict[str, object]]:
    """One line for each h."""
    task = arm.task()
    kept = checkpoints.folder(path_of(arm, folder), arm.iterations // STAGES * stage)
    policy, critic, model = (
        checkpoint.load(kept / f"seed{seed}-{kind}.safetensors").double()
        for kind in ("policy", "critic", "prediction")
    )
    assert isinstance(model, GaussianEnsemble)
    states = records.read(kept / "states.h5").groups["states"]["state"].values[seed, :SAMPLES]
    starts = as_starts(torch.from_numpy(states), task.simulator.state_dim)
    draw = child(seed, f"by horizon {stage}")
    setting = Setting(
        task.simulator, policy, starts, task.discount, task.horizon, "mask", draw
    )  # fmt: skip
    truth = score_truth(setting, [h + 1 for h in HORIZONS])  # the critic's action carries θ, too
    system = LearnedSystem(model, alive=task.alive)
    for h in HORIZONS:
        estimator = Estimator(system, system, "all", Tail(h, critic, task.discount))
        G = estimator.gradients(policy, starts, draw, "mask").detach()
        yield {
            "row": arm.row, "stage": stage, "seed": seed, "h": h, "truth": truth.status,
            "variance": float(G.var(dim=0).sum()), **squares(G, truth.gradients(h + 1)),
        }  # fmt: skip


def listed(table: pd.DataFrame) -> str:
    """In Markdown, a line for each h: ratios of geometric means over stages with intervals over
    seeds; bias and cosine from sums over stages and seeds."""
    both = f"`{PLAIN.row}` and `{NORMALISED.row}`"
    names = (
        f"variance, `{NORMALISED.row}` over `{PLAIN.row}`", f"variance / mean², {both}",
        "squared bias / truth², the same", "cosine with the truth, the same",
    )  # fmt: skip
    lines = [f"| h | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for h, own in table.groupby("h"):
        wide = np.log(own.pivot(index=["seed", "stage"], columns="row", values="variance"))
        apart = (wide[NORMALISED.row] - wide[PLAIN.row]).groupby("seed").mean()
        of = own.groupby("row").sum(numeric_only=True).loc[[PLAIN.row, NORMALISED.row]]
        bias = (of["gradient2"] - 2 * of["inner"] + of["truth2"]) / of["truth2"]
        cosine = of["inner"] / (of["gradient2"] * of["truth2"]) ** 0.5
        cells = (
            "{:.2g} [{:.2g}, {:.2g}]".format(*geometric_mean(np.exp(apart))),
            *(", ".join(f"{x:.2g}" if abs(x) < 10 else f"{x:,.0f}" for x in pair)
              for pair in (of["variance"] / of["gradient2"], bias, cosine)),
        )  # fmt: skip
        lines.append(f"| {h} | {' | '.join(cells)} |".replace("-", "−"))
    return "\n".join(lines)


def main(runs: Path = RUNS, output: Path = OUTPUT) -> None:
    place = output / TABLE
    table = pd.read_csv(place) if place.is_file() else pd.DataFrame()
    for stage in range(1, STAGES + 1):
        for seed in range(LONG_SEEDS):
            for arm in (PLAIN, NORMALISED):
                key = {"row": arm.row, "stage": stage, "seed": seed}
                if len(table) and (table[list(key)] == pd.Series(key)).all(axis=1).any():
                    continue
                print(key, flush=True)
                table = pd.concat([table, pd.DataFrame(measured(arm, runs, stage, seed))])
                table.to_csv(place, index=False, float_format="%.6g")
    text = listed(table)
    print(text)
    put(output / "README.md", "by-horizon", text)


if __name__ == "__main__":
    tyro.cli(main)
