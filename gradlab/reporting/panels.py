"""Which figures a report shows, in which order, and what to look for in each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab import figures
from gradlab.figures.style import SIZE
from gradlab.profile import Profile

ERROR = "Bias, variance and error"
DIRECTION = "Direction and noise"


@dataclass(frozen=True)
class Panel:
    """One figure: file name, section, caption."""

    name: str
    section: str
    caption: str
    figure: Figure


def panels(profile: Profile) -> list[Panel]:
    """The figures of `profile`: one error figure per estimator with a horizon, then comparisons."""
    table, batch, zero = profile.table(), profile.batch, _truth_norm2(profile)
    names = [str(name) for name in dict.fromkeys(table["estimator"]) if name != "data"]
    found = [
        _panel(
            f"error-{number}-{_file_name(name)}",
            ERROR,
            f"{name}: where squared bias and variance / N′ cross, their sum is near its smallest.",
            partial(figures.bias_variance, table, estimator=name, batch=batch, truth_norm2=zero),
        )
        for number, name in enumerate(names, 1)
    ]
    compare = "Lower is better. Below the level of data, unrolling pays."
    cosine = "1 is the true direction; at 0 a step along the gradient gains nothing."
    noise = "Below the line at 1 / N′ the mean of one batch is mostly noise."
    return [
        _panel("mse", ERROR, compare, partial(figures.mse, table, truth_norm2=zero)),
        *found,
        _panel("cosine", DIRECTION, cosine, partial(figures.cosine, table)),
        _panel("snr", DIRECTION, noise, partial(figures.snr, table, batch=batch)),
    ]


def _panel(name: str, section: str, caption: str, draw: Callable[..., Axes]) -> Panel:
    figure = Figure(figsize=SIZE, layout="constrained")
    draw(ax=figure.add_subplot())
    return Panel(name, section, caption, figure)


def _truth_norm2(profile: Profile) -> float | None:
    norm = profile.truth.get("norm")
    usable = isinstance(norm, int | float) and bool(profile.truth.get("admissible", True))
    return float(norm) ** 2 if usable and isinstance(norm, int | float) else None


def _file_name(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)[:40]
