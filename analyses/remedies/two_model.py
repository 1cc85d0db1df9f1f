"""TWO-MODEL-BIAS: states of one model and Jacobians of another, does it lower the gradient's bias?

    claim       two models (prediction and gradient) beat a single model with the
                directional-derivative loss; both beat a model without it
    paper       DDPPO, Figs. 3 right and 5
    criterion   a proxy of returns, which TWO-MODEL judges (`analyses.model_based.claims`): squared
                bias of the policy gradient, roll-outs of the prediction model with Jacobians of the
                gradient model, below that of the gradient model alone and below that of the
                prediction model alone (whole 95% intervals of the paired ratios), pendulum at every
                data size and cart-pole

    python -m analyses.remedies.two_model [--small] [--output reports/remedies] [--trials FILE]

From the fits of GRADLOSS (`.gradloss`). "As long": the prediction model alone, fitted for
as long as both together. Bias: geometric mean over h = 1, 3, 5, 10 steps, critic all but exact.
"""

from __future__ import annotations

import pandas as pd
import tyro

from analyses.harness.paired_trials import as_numbers, comparison, listed
from analyses.harness.verdicts import Verdict
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
    parts = []
    for name, other in zip(JUDGED, ("the single one with the loss", "one without it"), strict=True):
        part = decisive[decisive["pair"] == name]
        less, more = int((part["ci_high"] < 1).sum()), int((part["ci_low"] > 1).sum())
        parts.append(f"less than {other} in {less} of {len(part)} cells (more in {more})")
    opening = f"On pendulum and cart-pole two models err {', '.join(parts)}."
    sentence = (
        f"{opening} bias², two models over the single one with the loss: "
        f"{lists['single']}; over one without it: {lists['no loss']}; over one without it that was "
        f"fitted as long as both: {lists['no loss, as long']}. The single one with the loss over "
        f"one without: {lists['single, no loss']}. N = {int(table['n'].min())} trials; returns are "
        f"not part of the proxy."
    )
    return Verdict(
        "TWO-MODEL-BIAS",
        "DDPPO, Figs. 3 right and 5",
        "bias² of prediction roll-outs × gradient model's Jacobians below that of the single model "
        "with the loss and below that of the one without (whole 95% intervals), pendulum at every "
        "size and cart-pole",
        holds,
        sentence,
        numbers,
        table,
    )


main = remedy_claims.trials_study(gradloss.measure, judge, "gradloss-trials.csv")


if __name__ == "__main__":
    tyro.cli(main)
