"""Bounds of the papers on an estimator's bias or variance, with constants measured along paths.

Plain values that travel with a profile. They may be missing from an older file: that is "not
recorded".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gradlab.storage.codec import stored

Floats = NDArray[np.float64]
VALUE_UNIT = "gradient norm for a bias, its square for a variance"
_MEASURED = {"bias": "bias2", "variance": "variance"}


@dataclass(frozen=True, eq=False)
class Bound:
    """What one theorem promises about one estimator's bias or variance, beside what was measured.

    Attributes:
        theorem: paper and number.
        estimator: the one whose bias or variance it bounds.
        values: |bias|, or the variance of one gradient, at most, at horizons 0 … H, from constants
            measured along paths; NaN where the theorem says nothing, or nothing that can be
            computed.
        applies: whether its assumptions hold for the measured constants.
        sentence: why, with the measured constant.
        best: the horizon at which it is smallest (brute force); −1 where there is none.
        quantity: what it bounds, "bias" or "variance".
    """

    theorem: str
    estimator: str
    values: Annotated[Floats, stored("horizon", name="value", unit=VALUE_UNIT)]
    applies: bool
    sentence: str
    best: Annotated[int, stored(unit="steps")]
    quantity: str = "bias"  # all that a file without the array has


@dataclass(frozen=True)
class Bounds:
    """Bounds and the constants that they were computed from.

    Attributes:
        constants: lower estimates of suprema: the largest value along the sampled paths.
        starts: how many starts these paths have.
    """

    bounds: Annotated[tuple[Bound, ...], stored("bound")]
    constants: Annotated[
        Mapping[str, float], stored("constant", name=("constant", "size"), unit=("", "task units"))
    ]
    starts: Annotated[int, stored("start")]


def bounds_table(theory: Bounds, table: pd.DataFrame) -> pd.DataFrame:
    """What was measured and the bounds on it, one row per estimator, horizon and quantity.

    Args:
        table: of a profile; its squared biases become norms, with their intervals.

    Returns:
        Its column `bounded` says to which of "bias" and "variance" a row belongs.
    """
    measured = [_measured(theory, table, each) for each in _MEASURED]
    promised = [
        {
            "estimator": each.estimator,
            "horizon": h,
            "quantity": each.theorem,
            "value": value,
            "method": f"{'applies' if each.applies else 'does not apply'}: {each.sentence}",
            "bounded": each.quantity,
        }
        for each in theory.bounds
        for h, value in enumerate(each.values)
    ]
    return pd.concat([*measured, pd.DataFrame(promised)], ignore_index=True)


def _measured(theory: Bounds, table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The rows of the estimators that have a bound of this quantity."""
    names = {each.estimator for each in theory.bounds if each.quantity == quantity}
    chosen = table["estimator"].isin(names) & (table["quantity"] == _MEASURED[quantity])
    rows = table[chosen].assign(quantity=quantity, bounded=quantity)
    if quantity == "bias":
        for name in ("value", "ci_low", "ci_high"):
            rows[name] = np.sqrt(np.maximum(rows[name], 0.0))
        rows["se"] = np.nan
    return rows
