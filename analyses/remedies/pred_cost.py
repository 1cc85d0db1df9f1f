"""PRED-COST: does a model that is fitted to gradients predict worse?

    claim       the gradient model (with the directional-derivative loss) predicts worse than the
                prediction model (by likelihood)
    paper       DDPPO, Fig. 6
    criterion   ratio of the held-out prediction MSE, gradient model over prediction model, above 1
                (whole 95% interval) in every world and at every data size, equal steps

    python -m analyses.remedies.pred_cost [--small] [--output reports/remedies] [--trials FILE]

From the fits of GRADLOSS (`analyses.remedies.gradloss`); at equal time beside it.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import tyro
from matplotlib.figure import Figure

from analyses.harness.forest import forest, legend_above
from analyses.harness.paired_trials import as_numbers, comparison, listed
from analyses.harness.verdicts import Verdict, save
from analyses.remedies import gradloss
from analyses.remedies import page as remedy_claims

PAIRS = {name: gradloss.PAIRS[name] for name in ("equal steps", "equal time")}


def judge(trials: pd.DataFrame) -> Verdict:
    """The verdict from GRADLOSS's rows."""
    table = comparison(trials, ("world", "rows"), PAIRS, ("prediction",))
    steps, timed = (table[table["pair"] == name] for name in PAIRS)
    numbers = as_numbers(table, ("world", "rows", "pair"))
    sentence = (
        f"Worse in {_worse(steps)} at equal steps, in {_worse(timed)} at equal time. Prediction "
        f"MSE, gradient model over prediction model, equal steps: {listed(steps)}; equal time: "
        f"{listed(timed)}. N = {int(table['n'].min())} trials."
    )
    return Verdict(
        "PRED-COST",
        "DDPPO, Fig. 6",
        "held-out prediction MSE, gradient over prediction model, above 1 (whole 95% interval) in "
        "every world and at every size, equal steps",
        bool((steps["ci_low"] > 1).all()),
        sentence,
        numbers,
        table,
        _figure(table),
    )


def _worse(rows: pd.DataFrame) -> str:
    better = int((rows["ci_high"] < 1).sum())
    also = f" (better in {better})" if better else ""
    return f"{int((rows['ci_low'] > 1).sum())} of {len(rows)} cells{also}"


def _figure(table: pd.DataFrame) -> Figure:
    label = [f"{row['world']}, {row['rows']:,} rows" for _, row in table.iterrows()]
    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    axes = figure.subplots()
    styles = {"equal time": "equal time", "equal steps": "equal steps"}
    what = "held-out prediction MSE, gradient model / prediction model"
    forest(axes, table.assign(label=label), what, styles)
    legend_above(figure, axes)
    return figure


def main(small: bool = False, output: Path = gradloss.FOLDER, trials: Path | None = None) -> None:
    """Judge, and fit what is not yet fitted.

    Args:
        small: one size, two trials.
        output: folder of the verdict.
        trials: file of GRADLOSS's single trials; None: in the output.
    """
    table = gradloss.measure(trials or output / "gradloss-trials.csv", small)
    save(judge(table), output, "python -m analyses.remedies.pred_cost")
    remedy_claims.refresh(output)


if __name__ == "__main__":
    tyro.cli(main)
