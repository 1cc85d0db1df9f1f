"""Parts of criteria whose frozen table has a row for each contrast, with what is asked of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from analyses.harness.criteria import Frozen, Part, Side


def contrasts(frozen: Frozen) -> Iterator[Part]:
    """Every row of the table, as one part or two."""
    for row in frozen.rows.to_dict("records"):
        yield from asked_of(row)


def asked_of(row: Mapping[Any, Any]) -> Iterator[Part]:
    """A value within `least` and `most`, NaN where there is no such end."""
    ends = float(row["value"]), float(row["low"]), float(row["high"])
    label = f"{row['quantity']}, {row['label']}" if "quantity" in row else row["label"]
    if isfinite(row["least"]):
        yield Part(label, *ends, "above", float(row["least"]))
    if isfinite(row["most"]):
        yield Part(label, *ends, "below", float(row["most"]))


def met(rows: pd.DataFrame) -> bool:
    """Something is asked for, and all of it is met."""
    parts = [part for row in rows.to_dict("records") for part in asked_of(row)]
    return bool(parts) and all(part.state == "met" for part in parts)


def in_words(row: Mapping[Any, Any]) -> str:
    """A value, its interval and what was asked of it."""
    asked = " and ".join(
        f"{'≥' if part.side == 'above' else '≤'} {part.threshold:.3g}" for part in asked_of(row)
    )
    states = {part.state for part in asked_of(row)}
    state = next((one for one in ("missed", "undecided") if one in states), "met")
    known = not np.isnan([row["low"], row["high"]]).any()
    ends = f"{row['label']}: {row['value']:+.3g} [{row['low']:.3g}, {row['high']:.3g}]"
    ends = ends if known else f"{row['label']}: not told from noise"
    return f"{ends} ({state}, asked: {asked})" if asked else ends


def numbers_of(rows: pd.DataFrame, **more: float) -> dict[str, float]:
    """Of each row, its value and its ends, by its label."""
    numbers = dict(more)
    for row in rows.to_dict("records"):
        name = str(row["label"])
        numbers |= {name: row["value"], f"{name} low": row["low"], f"{name} high": row["high"]}
    return numbers


WALL = "wall"
# Quantity → of which estimator, and where it has to lie (`frontier_estimators`).
FRONTIER: Mapping[str, tuple[str, Side, float]] = {
    "bias2 less variance / N′": ("all", "below", 0.0),
    "MSE over that of ivw": ("ddcg", "above", 0.9),
    "MSE over that of all": ("ivw", "below", 1.0),
}
SHOWN_BY_WALL = ("bias2 less variance / N′", "MSE over that of ivw")


def frontier_parts(table: pd.DataFrame) -> list[tuple[str, str, Part]]:
    """World, quantity and part of every row that the criterion asks for."""
    found = []
    for row in table.to_dict("records"):
        if row["quantity"] in FRONTIER:
            estimator, side, bound = FRONTIER[row["quantity"]]
            label = f"{row['world']} h {row['horizon']}, {estimator} {row['quantity']}"
            part = Part(label, row["value"], row["low"], row["high"], side, bound)
            found.append((str(row["world"]), str(row["quantity"]), part))
    return found


def has_power(parts: Sequence[tuple[str, str, Part]]) -> bool:
    """Whether the wall shows the bias of its jump: the premise."""
    shown = {name for world, name, part in parts if world == WALL and part.state == "missed"}
    return shown.issuperset(SHOWN_BY_WALL)


def frontier(frozen: Frozen) -> Iterator[Part]:
    """Of contact tasks; none without the premise."""
    parts = frontier_parts(frozen.rows)
    if has_power(parts):
        yield from (part for world, _, part in parts if world != WALL)
