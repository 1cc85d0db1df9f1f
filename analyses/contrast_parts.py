"""Parts of criteria whose frozen table has a row for each contrast, with what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

from analyses.criteria import Frozen, Part, Side


def contrasts(frozen: Frozen) -> Iterator[Part]:
    """Of paired runs (`model_based_claims`)."""
    for row in frozen.rows.to_dict("records"):
        yield from asked_of(row)


def asked_of(row: Mapping[Any, Any]) -> Iterator[Part]:
    """A value within `least` and `most`, NaN where there is no such end."""
    ends = float(row["value"]), float(row["low"]), float(row["high"])
    if isfinite(row["least"]):
        yield Part(row["label"], *ends, "above", float(row["least"]))
    if isfinite(row["most"]):
        yield Part(row["label"], *ends, "below", float(row["most"]))


def frontier(frozen: Frozen) -> Iterator[Part]:
    """Of contact tasks; the wall beside them is the premise (`frontier_estimators`)."""
    asked: dict[str, tuple[str, Side, float]] = {
        "bias2 less variance / N′": ("all", "below", 0.0),
        "MSE over that of ivw": ("ddcg", "above", 0.9),
        "MSE over that of all": ("ivw", "below", 1.0),
    }
    for row in frozen.rows.to_dict("records"):
        if row["quantity"] not in asked:
            continue
        estimator, side, bound = asked[row["quantity"]]
        if row["estimator"] == estimator and row["world"] != "wall":
            label = f"{estimator}, {row['quantity']}, {row['world']}, h = {row['horizon']}"
            yield Part(label, row["value"], row["low"], row["high"], side, bound)
