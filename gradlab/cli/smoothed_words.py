"""Errors against a smoothed return (`gradlab measure --smooth`) in one sentence."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TYPE_CHECKING, Any

from gradlab.cli.arguments import Document
from gradlab.wording import span, two

if TYPE_CHECKING:
    from pandas import DataFrame


def smoothed_sentence(table: DataFrame, horizon: int) -> Document:
    """Squared biases at the longest horizon, as shares of the reference's squared norm.

    Args:
        table: of `measurement.smoothed.against_smoothed`, with one smoothing.
    """
    rows = table[(table["quantity"] == "bias2") & (table["reference"] != "true")]
    last = rows[rows["horizon"] == rows.groupby("estimator")["horizon"].transform("max")]
    name = str(rows["reference"].iloc[0])
    compared = last[last["value"].notna() & (last["norm"] > 0)]
    parts = [_part(row) for row in compared.to_dict("records")]
    if not parts:
        text = f"The gradient of the return {name} is not known from 0: more starts are needed."
        return {"text": text, "decided": False}
    text = (
        f"Squared bias against the return {name}, over that gradient's square, at h = {horizon} "
        f"(or the estimator's own): {', '.join(parts)}."
    )
    return {"text": text, "decided": True}


def _part(row: Mapping[Hashable, Any]) -> str:
    square = row["norm"] ** 2
    value, low, high = (max(row[end], 0.0) / square for end in ("value", "ci_low", "ci_high"))
    return f"{row['estimator']} {two(value)} ({span(low, high)})"
