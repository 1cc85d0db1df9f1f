"""TWO-MODEL: states of one model and Jacobians of another, does it lower the gradient's bias?

    claim       two models (prediction and gradient) beat a single model with the
                directional-derivative loss; both beat a model without it
    paper       DDPPO, Figs. 3 right and 5
    criterion   its five-minute proxy: squared bias of the policy gradient, roll-outs of the
                prediction model with Jacobians of the gradient model, below that of the gradient
                model alone and below that of the prediction model alone (whole 95% intervals of the
                paired ratios), pendulum at every data size and cart-pole

    python -m analyses.remedies.two_model [--small] [--output reports/remedies] [--trials FILE]

From the fits of GRADLOSS (`.gradloss`). "As long": the prediction model alone, fitted for
as long as both together. Bias: geometric mean over h = 1, 3, 5, 10 steps, critic all but exact.
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

TWO = ("two-model", "both")
PAIRS = {
    "single": (("dd", "both"), TWO),
    "no loss": (("nll", "equal steps"), TWO),
    "no loss, as long": (("nll", "time of both"), TWO),
    "single, no loss": (("nll", "equal steps"), ("dd", "both")),
}
JUDGED = ("single", "no loss")
WORLDS = ("pendulum", "cart-pole")


def judge(trials: pd.DataFrame) -> Verdict:
    """The verdict from GRADLOSS's rows."""
    each = tuple(f"bias2_{h}" for h in (1, 3, 5, 10))
    table = comparison(trials, ("world", "rows"), PAIRS, ("bias2", *each))
    overall = table[table["quantity"] == "bias2"]
    decisive = overall[overall["pair"].isin(JUDGED) & overall["world"].isin(WORLDS)]
    numbers = as_numbers(overall, ("world", "rows", "pair"))
    holds = bool((decisive["ci_high"] < 1).all())
    lists = {name: listed(overall[overall["pair"] == name]) for name in PAIRS}
    sentence = (
        f"{_opening(decisive)} bias², two models over the single one with the loss: "
        f"{lists['single']}; over one without it: {lists['no loss']}; over one without it that was "
        f"fitted as long as both: {lists['no loss, as long']}. The single one with the loss over "
        f"one without: {lists['single, no loss']}. N = {int(table['n'].min())} trials; returns are "
        f"not part of the proxy."
    )
    return Verdict(
        "TWO-MODEL",
        "DDPPO, Figs. 3 right and 5",
        "bias² of prediction roll-outs × gradient model's Jacobians below that of the single model "
        "with the loss and below that of the one without (whole 95% intervals), pendulum at every "
        "size and cart-pole",
        holds,
        sentence,
        numbers,
        table,
        _figure(overall),
    )


def _opening(rows: pd.DataFrame) -> str:
    parts = []
    for name, other in zip(JUDGED, ("the single one with the loss", "one without it"), strict=True):
        part = rows[rows["pair"] == name]
        less, more = int((part["ci_high"] < 1).sum()), int((part["ci_low"] > 1).sum())
        parts.append(f"less than {other} in {less} of {len(part)} cells (more in {more})")
    return f"On pendulum and cart-pole two models err {', '.join(parts)}."


def _figure(table: pd.DataFrame) -> Figure:
    label = [f"{row['world']}, {row['rows']:,} rows" for _, row in table.iterrows()]
    figure = Figure(figsize=(6.5, 4.2), layout="constrained")
    axes = figure.subplots()
    styles = {
        "single": "over one model with the loss",
        "no loss": "over one without, equal steps",
        "no loss, as long": "over one without, as long as both",
    }
    what = "squared bias of the policy gradient, two models / one"
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
    save(judge(table), output, "python -m analyses.remedies.two_model")
    remedy_claims.refresh(output)


if __name__ == "__main__":
    tyro.cli(main)
