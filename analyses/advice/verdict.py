"""The four criteria over all cells, and the figure of promised against happened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.stats
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Row = dict[str, Any]
LOOKS = {  # colour and marker of each kind of world
    "linear": ("#4477aa", "o"), "smooth": ("#228833", "s"), "learned": ("#ccbb44", "D"),
    "jumps": ("#ee6677", "^"), "contact": ("#aa3377", "v"),
}  # fmt: skip


def signs(rows: Sequence[Row]) -> list[bool]:
    """(a) One update along what was recommended is shown to raise the return."""
    return [row["after_1"][1] > 0 for row in rows if row["recommended"]]


def named(rows: Sequence[Row]) -> list[bool]:
    """(a′) The first of the updates that are recommended is shown to raise it."""
    return [row["after_update"][1] > 0 for row in rows if row["recommended"]]


def wrong_greens(rows: Sequence[Row]) -> list[Row]:
    """(a) Green lights of which the plain step, the first of the recommended updates or all of them
    are shown to lower it."""
    greens = [row for row in rows if row["recommended"] and row["light"] == "act"]
    tried = ("after_1", "after_update", "after_k")
    return [row for row in greens if any(row[each][2] < 0 for each in tried)]


def choices(rows: Sequence[Row]) -> list[bool]:
    """(b) The recommended has 95% of the best in hindsight; or nothing was recommended, and
    nothing is shown to help."""
    return [row["share"][0] >= 0.95 if row["recommended"] else not row["helps"] for row in rows]


def ends(rows: Sequence[Row]) -> list[bool]:
    """(c) Followed for as long as it is said to hold, the return is above its start."""
    return [row["after_k"][0] > 0 for row in rows if row["recommended"]]


CRITERIA: dict[str, tuple[Callable[[Sequence[Row]], list[bool]], float, str]] = {
    "a": (signs, 0.95, "signs confirmed by paired returns, plain steps of 4%"),
    "a′": (named, 0.95, "signs confirmed by paired returns, first recommended updates"),
    "b": (choices, 0.80, "choices with 95% of the best in hindsight"),
    "c": (ends, 0.90, "returns above their start after as many updates as promised"),
}


def by_world(rows: Sequence[Row]) -> pd.DataFrame:
    """How many of how many cells meet each criterion, a row for each world and one for all."""
    worlds = {world: [r for r in rows if r["world"] == world] for world in _names(rows)}
    table = []
    for name, some in {**worlds, "all": list(rows)}.items():
        line: Row = {"world": name, "cells": len(some)}
        for letter, (judge, _, _) in CRITERIA.items():
            met = judge(some)
            line[letter] = f"{sum(met)}/{len(met)}"
        kept = sum(not row["recommended"] for row in some)
        seconds = np.median([sum(row["seconds"].values()) for row in some])
        wrong = len(wrong_greens(some))
        table.append(line | {"wrong greens": wrong, "kept": kept, "seconds": round(seconds)})
    return pd.DataFrame(table)


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["world"] for row in rows))


def sentences(rows: Sequence[Row]) -> list[str]:
    """Each criterion with its share, interval and outcome."""
    said = []
    for letter, (judge, least, what) in CRITERIA.items():
        good = judge(rows)
        if not good:
            continue
        low, high = scipy.stats.binomtest(sum(good), len(good)).proportion_ci(method="wilson")
        outcome = "holds" if low >= least else "refuted" if high < least else "undecided"
        said.append(
            f"({letter}) {what}: {sum(good)} of {len(good)} ({low:.0%}–{high:.0%}), at least "
            f"{least:.0%} asked for: {outcome}."
        )
    wrong = wrong_greens(rows)
    said.append(f"(a) Green lights with a wrong sign: {len(wrong)}, none allowed.")
    return said


_PANELS = {
    "happened": "what one step did, over the best step tried",
    "share": "what all recommended updates did,\nover the best choice in hindsight",
}


def promised_against_happened(rows: Sequence[Row]) -> Figure:
    """Gain of one step as it was promised, against its share of the best step that was tried, the
    simulator's own included, and against what following the recommendation brought as a share of
    the best choice in hindsight; a dot for each cell, with 95% intervals."""
    figure = Figure(figsize=(9.2, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    shown = [row for row in rows if row["recommended"] and np.isfinite(row["promised"]).all()]
    for ax, (key, label) in zip(axes, _PANELS.items(), strict=True):
        for kind, (colour, marker) in LOOKS.items():
            some = [row for row in shown if row["kind"] == kind]
            if not some:
                continue
            x, y = (np.clip([row[name] for row in some], -1.5, 1.5) for name in ("promised", key))
            spans = [np.abs(v[:, 1:].T - v[:, 0]) for v in (x, y)]
            ax.errorbar(
                x[:, 0], y[:, 0], spans[1], spans[0], marker, color=colour, ms=4, lw=0.7,
                alpha=0.8, label=f"{kind} ({len(some)})",
            )  # fmt: skip
        ax.axhline(0, color="0.6", lw=0.8, ls=":", zorder=0)
        ax.set(xlabel="promised gain of one step", ylabel=label, xticks=np.arange(-1, 1.1, 0.5))
    axes[0].axline((0, 0), slope=1, color="0.6", lw=0.8, zorder=0)
    axes[1].axhline(1, color="0.6", lw=0.8, zorder=0)
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def write_verdict(rows: Sequence[Row], output: Path) -> str:
    """Writes by-world.csv and promised.png; returns the verdict."""
    table = by_world(rows)
    table.to_csv(output / "by-world.csv", index=False)
    figure = promised_against_happened(rows)
    FigureCanvasAgg(figure)
    figure.savefig(output / "promised.png", dpi=110)
    return "\n".join([table.to_string(index=False), "", *sentences(rows)])
