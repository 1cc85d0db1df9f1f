"""Remedies inside MPG: MPG-v2 on a model that is learned while it trains, with and without each.

    python -m analyses.remedies_training train --arm dd        one run; goes on where it stopped
    python -m analyses.remedies_training table                 the page and README.md, from the runs

The analytic inverted pendulum with the authors' unlimited slider, MPG-v2 with the published code's
gradient clip and five seeds, as in `reports/inverted-pendulum-training`; the prior gives way to
five members of 2 × 64 per seed, refitted every 250 iterations. Arms differ from "nll" in one thing
(the last in two); seeds share start states, draws and initial networks, so that everything is
paired over seeds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro
from tyro.conf import subcommand

from analyses.harness.verdicts import put
from gradlab import tasks
from gradlab.cli.terminal.progress_bars import bars
from gradlab.reporting.output import compare
from gradlab.runs.training.pairs import WORDS, table
from gradlab.runs.training.results import Training, load
from gradlab.training.algorithms import Algorithm, find
from gradlab.training.checkpoints import resume_file
from gradlab.training.loop import train
from gradlab.training.models.model_choice import LOSSES, LearnedModel
from gradlab.verdicts.training.pairs import paired_verdict

FOLDER = Path("reports/remedies/training")
SPECTRAL = LearnedModel(spectral="all_but_last")
ARMS: Mapping[str, tuple[LearnedModel, dict[str, str]]] = {
    "nll": (LearnedModel(), {}),
    "dd": (LearnedModel(loss=LOSSES["dd"]), {}),
    "spectral-model": (SPECTRAL, {}),
    "two-model": (LearnedModel(loss=LOSSES["dd"], two_models=True), {}),
    "multistep": (LearnedModel(loss=LOSSES["multistep"]), {}),
    "spectral-model-policy": (SPECTRAL, {"policy_spectral": "all"}),
}


def row_of(arm: str) -> Algorithm:
    model, further = ARMS[arm]
    return replace(find("mpg-v2"), clip=3.0, model=model, **further)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Train:
    """Train one arm; goes on where a run was stopped."""

    arm: str
    iterations: int = 2000
    seeds: int = 5
    gradient_every: int = 500
    evaluate_every: int = 100
    threads: int = 1
    folder: Path = FOLDER / "runs"

    def run(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        path = self.folder / f"{self.arm}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with bars() as progress:
            train(
                row_of(self.arm),
                tasks.inverted_pendulum(engine="analytic", slider="wide"),
                path,
                resume=resume_file(path).exists(),
                progress=progress,
                seeds=self.seeds,
                iterations=self.iterations,
                evaluate_every=self.evaluate_every,
                gradient_every=self.gradient_every,
                checkpoint_every=250,
                keep=(1.0,),
                command=f"python -m analyses.remedies_training train --arm {self.arm} "
                f"--iterations {self.iterations} --seeds {self.seeds}",
            )


@dataclass(frozen=True)
class Table:
    """The page of all runs, paired.csv, and the tables and verdicts of README.md."""

    folder: Path = FOLDER / "runs"
    output: Path = FOLDER

    def run(self) -> None:
        paths = [self.folder / f"{arm}.h5" for arm in ARMS]
        paths = [path for path in paths if path.is_file()]
        runs = {path.stem: load(path) for path in paths}
        pairs = table(runs)
        pairs.to_csv(self.output / "paired.csv", index=False, float_format="%.6g")
        told = [f"- {sentence.text}" for sentence in paired_verdict(runs)]
        put(self.output / "README.md", "verdicts", "\n".join(told) + "\n")
        put(self.output / "README.md", "arms", arms(runs))
        put(self.output / "README.md", "pairs", differences(pairs))
        if len(paths) > 1:
            compare(paths, self.output / "report.html")


def arms(runs: Mapping[str, Training]) -> str:
    """What every arm came to, as a Markdown table."""
    heads = ["arm", "final return of every seed", "mean return over the run"]
    heads += ["held-out variance explained: median, least", "relative gradient MSE, median"]
    heads += ["the model's part, median", "wall time"]
    lines = [" | ".join(heads), " | ".join(["---"] * len(heads))]
    for name, run in runs.items():
        explained = run.model["prediction_explained"][-1]
        whole, own = (
            np.nanmedian(run.gradients[column][:, :, -1])
            for column in ("relative_mse", "dynamics_relative_mse")
        )
        cells = [
            name,
            ", ".join(f"{value:.3g}" for value in np.sort(run.returns[-1])[::-1]),
            f"{np.trapezoid(run.returns.mean(axis=1), run.iteration) / run.iteration[-1]:.3g}",
            f"{np.median(explained):.5f}, {explained.min():.4f}",
            f"{whole:.3g}",
            f"{own:.3g}",
            f"{run.seconds[-1] / 60:.0f} min",
        ]
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def differences(pairs: pd.DataFrame) -> str:
    """Every paired difference and ratio, as a Markdown table."""
    lines = ["arm | quantity | nll | arm | change | 95% interval | seeds, measurements"]
    lines.append(" | ".join(["---"] * 7))
    for _, pair in pairs.iterrows():
        form = "{:.3g}×" if pair["ratio"] else "{:+.3g}"
        cells = [
            pair["run"],
            WORDS.get(pair["quantity"], pair["quantity"]),
            f"{pair['first']:.3g}",
            f"{pair['second']:.3g}",
        ]
        cells += [form.format(pair["change"]), f"{pair['low']:.3g} to {pair['high']:.3g}"]
        cells += [f"{pair['seeds']:.0f}, {pair['measurements']:.0f}"]
        lines.append(" | ".join(cells))
    return "\n".join(lines) + "\n"


def main() -> None:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tyro.cli(Annotated[Train, subcommand("train")] | Annotated[Table, subcommand("table")]).run()
