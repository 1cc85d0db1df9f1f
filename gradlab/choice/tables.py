"""A choice as long tables, for figures and for machines."""

from __future__ import annotations

import pandas as pd

from gradlab.choice.values import Choice, Contender, Mixing


def best_table(choice: Choice) -> pd.DataFrame:
    """What is best by each criterion: its value with the 95% interval, and the set that may be.

    Columns: criterion, estimator, horizon, value, ci_low, ci_high, and the 95% set as a list of
    (estimator, horizon).
    """
    return pd.DataFrame(
        [
            {
                "criterion": found.criterion,
                "estimator": found.cell[0],
                "horizon": found.cell[1],
                "value": found.value,
                "ci_low": found.interval.low,
                "ci_high": found.interval.high,
                "set": list(found.kept),
            }
            for found in (choice.gain, choice.mse, choice.direction)
            if found is not None
        ]
    )


def weight_table(mixing: Mixing) -> pd.DataFrame:
    """Shares by every chooser: estimator, horizon, chooser, value, ci_low, ci_high."""
    rows = []
    choosers = {"gain": mixing.gain, "mse": mixing.mse, "direction": mixing.direction}
    for chooser, found in choosers.items():
        if found is None:
            continue
        for cell, *numbers in zip(mixing.cells, found.share, found.low, found.high, strict=True):
            rows.append((*cell, chooser, *map(float, numbers)))
    for each in mixing.contenders:
        if "rule" in each.name:
            for cell, w in zip(mixing.cells, each.weights, strict=True):
                rows.append((*cell, each.name, float(w), float(w), float(w)))
    columns = ["estimator", "horizon", "chooser", "value", "ci_low", "ci_high"]
    return pd.DataFrame(rows, columns=columns)


def contender_table(mixing: Mixing) -> pd.DataFrame:
    """Error and direction of every contender on unseen starts."""
    return pd.DataFrame(
        [
            {
                "chooser": each.name,
                "mse": each.mse,
                "mse_low": each.mse_interval.low,
                "mse_high": each.mse_interval.high,
                "cosine": each.cosine,
                "cosine_low": each.cosine_interval.low,
                "cosine_high": each.cosine_interval.high,
                **_gain(each),
            }
            for each in mixing.contenders
        ]
    )


def _gain(each: Contender) -> dict[str, float]:
    if each.gain is None or each.gain_interval is None:
        return {}
    ends = each.gain_interval
    return {"gain": each.gain, "gain_low": ends.low, "gain_high": ends.high}


def trial_table(choice: Choice) -> pd.DataFrame:
    """What if: change, batch, estimator, horizon, and MSE and cosine with their intervals."""
    if choice.what_if is None:
        return pd.DataFrame()
    return pd.DataFrame(
        [
            {
                "change": each.change,
                "batch": each.batch,
                "estimator": each.best[0],
                "horizon": each.best[1],
                "kept": len(each.kept),
                "mse": each.mse,
                "mse_low": each.mse_interval.low,
                "mse_high": each.mse_interval.high,
                "cosine": each.cosine,
                "cosine_low": each.cosine_interval.low,
                "cosine_high": each.cosine_interval.high,
            }
            for each in choice.what_if.batches
        ]
    )
