"""Which figures a report shows, in which order, and what to look for in each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab import figures
from gradlab.figures.style import SIZE
from gradlab.profile import Profile

ERROR = "Bias, variance and error"
DIRECTION = "Direction and noise"
THEORY = "Theory"


@dataclass(frozen=True)
class Panel:
    """One figure: file name, section, caption."""

    name: str
    section: str
    caption: str
    figure: Figure


def panels(profile: Profile) -> list[Panel]:
    """The figures of `profile`: one error figure per estimator with a horizon, then comparisons."""
    table, batch = profile.table(), profile.batch
    names = [str(name) for name in dict.fromkeys(table["estimator"]) if name != "data"]
    found = [
        _panel(
            f"error-{number}-{_file_name(name)}",
            ERROR,
            f"{name}: where squared bias and variance / N′ cross, their sum is near its smallest.",
            partial(
                figures.bias_variance,
                table,
                estimator=name,
                batch=batch,
                truth_norm2=_zero_level(table, [name]),
                truth_error2=_truth_error(profile, [name]),
            ),
        )
        for number, name in enumerate(names, 1)
    ]
    compare = "Lower is better. Below the level of data, unrolling pays."
    cosine = "1 is the true direction; at 0 a step along the gradient gains nothing."
    noise = "Below the line at 1 / N′ the mean of one batch is mostly noise."
    return [
        _panel(
            "mse",
            ERROR,
            compare,
            partial(
                figures.mse,
                table,
                truth_norm2=_zero_level(table, ["data", *names]),
                truth_error2=_truth_error(profile, ["data", *names]),
            ),
        ),
        *found,
        _panel("cosine", DIRECTION, cosine, partial(figures.cosine, table)),
        *_signs(table),
        _panel("snr", DIRECTION, noise, partial(figures.snr, table, batch=batch)),
        *_bounds(profile),
    ]


def _signs(table: pd.DataFrame) -> list[Panel]:
    if not (table["quantity"] == "sign_agreement").any():
        return []
    caption = "A step that moves half of the parameters the wrong way is no better than chance."
    draw = partial(figures.sign_agreement, table)
    return [_panel("sign_agreement", DIRECTION, caption, draw)]


def _bounds(profile: Profile) -> list[Panel]:
    found = () if profile.theory is None else profile.theory.bounds
    bounded, table = {each.quantity for each in found}, profile.bounds()
    names = {"bias": "bounds", "variance": "variance_bound"}
    return [
        _panel(
            name,
            THEORY,
            f"The gap between a bound and the measured {quantity} is what the theorem gives away.",
            partial(figures.bounds, table, quantity=quantity),
        )
        for quantity, name in names.items()
        if quantity in bounded
    ]


def _truth_error(profile: Profile, names: Sequence[str]) -> float | None:
    """Squared standard error of the truth, where all named estimators share one truth."""
    actions = profile.config.get("actions")
    known = actions if isinstance(actions, Mapping) else {}
    kinds = {known.get(name, "first") == "first" for name in names if name in known}
    if len(kinds) > 1:
        return None
    separate = kinds == {False} and "all_standard_error" in profile.truth
    error = profile.truth.get("all_standard_error" if separate else "standard_error")
    return float(error) ** 2 if isinstance(error, int | float) else None


def _panel(name: str, section: str, caption: str, draw: Callable[..., Axes]) -> Panel:
    figure = Figure(figsize=SIZE, layout="constrained")
    draw(ax=figure.add_subplot())
    return Panel(name, section, caption, figure)


def _zero_level(table: pd.DataFrame, names: Sequence[str]) -> float | None:
    """|truth|², the error of a zero gradient, where all named estimators share one truth."""
    rows = table[table["estimator"].isin(names)]
    error = rows[rows["quantity"] == "mse"].set_index(["estimator", "horizon"])["value"]
    relative = rows[rows["quantity"] == "relative_mse"].set_index(["estimator", "horizon"])["value"]
    levels = (error / relative).dropna()
    if levels.empty or levels.max() > levels.min() * (1 + 1e-6):
        return None
    return float(levels.iloc[0])


def _file_name(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:40]
