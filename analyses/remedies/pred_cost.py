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

import pandas as pd
import tyro

from analyses.harness.paired_trials import as_numbers, comparison, listed
from analyses.harness.verdicts import Verdict
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
    )


def _worse(rows: pd.DataFrame) -> str:
    better = int((rows["ci_high"] < 1).sum())
    also = f" (better in {better})" if better else ""
    return f"{int((rows['ci_low'] > 1).sum())} of {len(rows)} cells{also}"


main = remedy_claims.trials_study(gradloss.measure, judge, "gradloss-trials.csv")


if __name__ == "__main__":
    tyro.cli(main)
