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

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from analyses.harness.commands import commands
from analyses.harness.training import trained
from analyses.harness.verdicts import put
from gradlab import tasks
from gradlab.reporting.output import compare
from gradlab.runs.training.pairs import WORDS, table
from gradlab.runs.training.results import Training, load
from gradlab.training.algorithms import Algorithm, find
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


def training(
    arm: str, iterations: int = 2000, seeds: int = 5, gradient_every: int = 500,
    evaluate_every: int = 100, threads: int = 1, folder: Path = FOLDER / "runs",
) -> None:  # fmt: skip
    """Train one arm; goes on where a run was stopped."""
    torch.set_num_threads(threads)
    trained(
        row_of(arm), tasks.inverted_pendulum(engine="analytic", slider="wide"),
        folder / f"{arm}.h5", seeds=seeds, iterations=iterations, evaluate_every=evaluate_every,
        gradient_every=gradient_every, checkpoint_every=250, keep=(1.0,),
        command=f"python -m analyses.remedies_training train --arm {arm} "
        f"--iterations {iterations} --seeds {seeds}",
    )  # fmt: skip


def report(folder: Path = FOLDER / "runs", output: Path = FOLDER) -> None:
    """The page of all runs, paired.csv, and the tables and verdicts of README.md."""
    paths = [path for arm in ARMS if (path := folder / f"{arm}.h5").is_file()]
    runs = {path.stem: load(path) for path in paths}
    pairs = table(runs)
    pairs.to_csv(output / "paired.csv", index=False, float_format="%.6g")
    told = [f"- {sentence.text}" for sentence in paired_verdict(runs)]
    put(output / "README.md", "verdicts", "\n".join(told) + "\n")
    put(output / "README.md", "arms", arms(runs))
    put(output / "README.md", "pairs", differences(pairs))
    if len(paths) > 1:
        compare(paths, output / "report.html")


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
    commands(train=training, table=report)
