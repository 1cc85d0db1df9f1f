"""CAPACITY-ERRORS: is the gain of two models that of their doubled parameters?

    claim       one network with twice the parameters does not have the gain of the pair of
                prediction and gradient model
    paper       DDPPO, Figs. 4 and 7
    criterion   a proxy of returns, which CAPACITY judges (`analyses.model_based.claims`): Jacobian
                MSE and squared bias of the policy gradient of the pair below those of one network
                with twice the parameters, by likelihood (whole 95% intervals of the paired ratios),
                in every world

    python -m analyses.remedies.capacity [--small] [--output reports/remedies] [--trials FILE]

From the fits of GRADLOSS at 3,000 rows (`.gradloss`): all hidden layers of the larger
network widened to twice the parameters; fitted for as many steps as one of the pair, and for as
many as both take in time, which is longer than both take.
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
    "equal steps": (("double", "equal steps"), TWO),
    "as long": (("double", "steps of both"), TWO),
}
QUANTITIES = {"jacobian": "Jacobian MSE", "bias2": "gradient bias²"}


def judge(trials: pd.DataFrame) -> Verdict:
    """The verdict from GRADLOSS's rows."""
    table = comparison(trials, ("world", "rows"), PAIRS, (*QUANTITIES, "prediction"))
    steps = table[(table["pair"] == "equal steps") & table["quantity"].isin(QUANTITIES)]
    numbers = as_numbers(table, ("quantity", "world", "pair"))
    lists = {
        (name, pair): listed(
            table[(table["quantity"] == name) & (table["pair"] == pair)], ("world",)
        )
        for name in QUANTITIES
        for pair in PAIRS
    }
    won, lost = int((steps["ci_high"] < 1).sum()), int((steps["ci_low"] > 1).sum())
    sentence = (
        f"The pair is better in {won} and worse in {lost} of {len(steps)} comparisons at equal "
        f"steps. Pair over twice the parameters, Jacobian MSE: "
        f"{lists['jacobian', 'equal steps']}; as long: {lists['jacobian', 'as long']}. bias²: "
        f"{lists['bias2', 'equal steps']}; as long: {lists['bias2', 'as long']}. N = "
        f"{int(table['n'].min())} trials."
    )
    return Verdict(
        "CAPACITY-ERRORS",
        "DDPPO, Figs. 4 and 7",
        "Jacobian MSE and bias² of the pair below those of one network with twice the parameters "
        "(whole 95% intervals), in every world, equal steps",
        bool((steps["ci_high"] < 1).all()),
        sentence,
        numbers,
        table,
    )


main = remedy_claims.trials_study(gradloss.measure, judge, "gradloss-trials.csv")


if __name__ == "__main__":
    tyro.cli(main)
