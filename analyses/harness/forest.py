"""Ratios with their intervals, one under another, on a logarithmic axis with a line at 1."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from analyses.harness.paired_trials import ALIKE

# Filled: as long; hollow: as many steps. Readable without colour.
STYLES = (("o", "black"), ("o", "white"), ("s", "0.5"), ("D", "white"))
CROWDED = 200.0  # times from end to end


def forest(axes: Axes, table: pd.DataFrame, xlabel: str, styles: Mapping[str, str]) -> None:
    """Draw rows of a comparison.

    Args:
        table: columns label, pair, value, ci_low, ci_high; labels from above in their order.
        styles: pairs that are drawn, and their names in the legend.
    """
    labels = list(dict.fromkeys(table["label"]))
    axes.axvspan(1 / ALIKE, ALIKE, color="0.92", zorder=0)
    axes.axvline(1, color="black", linewidth=0.6)
    for k, (pair, name) in enumerate(styles.items()):
        rows = table[table["pair"] == pair]
        y = np.array([labels.index(each) for each in rows["label"]]) + 0.22 * (
            k - (len(styles) - 1) / 2
        )
        error = np.abs([rows["value"] - rows["ci_low"], rows["ci_high"] - rows["value"]])
        marker, face = STYLES[k]
        axes.errorbar(rows["value"], y, xerr=error, fmt=marker, color="black", label=name,
                      markerfacecolor=face, markersize=4, linewidth=1, capsize=2)  # fmt: skip
    axes.set_xscale("log")
    plain_ticks(axes.xaxis)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(xlabel, fontsize=8)


def legend_above(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, of what `axes` shows."""
    shown = axes.get_legend_handles_labels()
    figure.legend(*shown, loc="outside upper center", ncols=3, frameon=False, fontsize=8)


def plain_ticks(axis: Axis) -> None:
    """0.1, 1, 10 for powers of ten, with 2 and 5 between them where there is room."""
    low, high = axis.get_view_interval()
    subs = (1.0, 2.0, 5.0) if high / low < CROWDED else (1.0,)
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
