"""DD-VS-MSE in words and as a figure, from its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.forest import plain_ticks
from analyses.paired_trials import ALIKE, told

ALL = "all"  # the name under which all worlds are taken together
ANSWERS = ("better", "worse", "alike", "undecided")


def sentence(table: pd.DataFrame, near: pd.DataFrame, times: float) -> str:
    """The verdict.

    Args:
        table: of `comparison`; near: of `foreseen`; times: what a step with the loss costs.
    """
    single = table[table["world"] != ALL]
    timed = _of(single, "bias2", "equal time")
    jacobian = {
        pair: _counted(_of(single, "jacobian", pair)) for pair in ("equal time", "equal steps")
    }
    cosine = _of(single, "cosine_10", "equal time")
    moved = cosine[(cosine["ci_low"] > 0) | (cosine["ci_high"] < 0)]
    return (
        f"{_opening(timed)} At equal time the loss makes the gradient's squared bias "
        f"{_counted(timed)}, the Jacobian MSE {jacobian['equal time']}; at equal steps, where "
        f"it is given {times:.2g} times as long, {_counted(_of(single, 'bias2', 'equal steps'))}, "
        f"{jacobian['equal steps']}. All four systems together, bias² with/without at equal time: "
        f"{_by_size(_of(table[table['world'] == ALL], 'bias2', 'equal time'))}; Jacobian MSE: "
        f"{_by_size(_of(table[table['world'] == ALL], 'jacobian', 'equal time'))}. Each: "
        f"{_by_world(timed)}. Cosines at h = 10 differ beyond their interval in {len(moved)} of "
        f"{len(cosine)} cells, by at most {cosine['value'].abs().max():.2g}. Foretold from the "
        f"data: {_foretold(near)}.{_missing(timed)} N = {int(timed['n'].min())} trials; 2×64 SiLU, "
        f"reward known."
    )


def agreement(near: pd.DataFrame) -> dict[str, float]:
    """How often the Jacobian's and the gradient's error fell, by what `nearness` had said."""
    found: dict[str, float] = {}
    for word, rows in near.groupby("said"):
        found[f"trials where neighbours {word}"] = len(rows)
        for quantity in ("jacobian", "bias2"):
            found[f"{quantity} lower where neighbours {word}"] = (rows[quantity] < 1).mean()
    return found


def _of(table: pd.DataFrame, quantity: str, pair: str) -> pd.DataFrame:
    return table[(table["quantity"] == quantity) & (table["pair"] == pair)]


def _opening(timed: pd.DataFrame) -> str:
    count = timed["answer"].value_counts()
    better, rest = count.get("better", 0), count.get("worse", 0) + count.get("alike", 0)
    if rest and not better:
        return "RP-PGM is right on these systems: state prediction suffices."
    if better and not rest:
        return "DDPPO is right on these systems."
    return "Each is right somewhere." if better else "No size decides."


def _counted(rows: pd.DataFrame) -> str:
    count = rows["answer"].value_counts()
    parts = [f"{word} in {count[word]}" for word in ANSWERS if word in count]
    return f"{', '.join(parts)} of {count.sum()} cells"


def _by_size(rows: pd.DataFrame) -> str:
    return ", ".join(
        f"{row['rows']:,} rows {told(row)} {row['answer']}"
        for _, row in rows.sort_values("rows").iterrows()
    )


def _by_world(timed: pd.DataFrame) -> str:
    cells = timed.groupby(["world", "noise"], sort=False)
    return "; ".join(f"{_named(*key)}: {_by_size(rows)}" for key, rows in cells)


def _foretold(near: pd.DataFrame) -> str:
    found = agreement(near)
    return "; ".join(
        f"{word} ({found[f'trials where neighbours {word}']:.0f} fits): lower Jacobian error in "
        f"{found[f'jacobian lower where neighbours {word}']:.0%}, lower bias² in "
        f"{found[f'bias2 lower where neighbours {word}']:.0%}"
        for word in sorted(near["said"].unique())
    )


def _missing(timed: pd.DataFrame) -> str:
    """How many trials more the undecided cells want."""
    more = timed[timed["answer"] == "undecided"]["more"]
    if more.empty:
        return ""
    return f" Undecided cells would want about {more.median():.0f} trials more in the median."


def _named(name: str, noise: float) -> str:
    if name == ALL:
        return "all four"
    return f"{name}, {f'noise {noise:.0%}' if noise else 'no noise'}"


def figure(table: pd.DataFrame, near: pd.DataFrame) -> Figure:
    """Above the ratio by data size, below the relative bias itself."""
    worlds = list(table.groupby(["world", "noise"], sort=False))
    drawing = Figure(figsize=(2.9 * len(worlds) + 0.6, 6.2), layout="constrained")
    panels = drawing.subplots(2, len(worlds), sharey="row", squeeze=False)
    for axes, ((name, noise), rows) in zip(panels.T, worlds, strict=True):
        axes[0].set_title(_named(name, noise), fontsize=9)
        _ratios(axes[0], rows)
        _biases(axes[1], rows)
        for each in axes:
            each.set_xscale("log")
            sizes = sorted(rows["rows"].unique())
            each.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
            each.minorticks_off()
        mine = (near["world"] == name) & (near["noise"] == noise)
        _mark_foretold(axes[0], near if name == ALL else near[mine])
    for axes in panels[:, 0]:
        plain_ticks(axes.yaxis)
    panels[0, 0].set_ylabel("with / without the loss\n(below 1: it helps)", fontsize=8)
    panels[1, 0].set_ylabel("bias of the policy gradient\n/ its true norm, h = 10", fontsize=8)
    drawing.supxlabel(
        "recorded transitions        (+a −b: trials whose data say beforehand that neighbours can "
        "help, cannot help)",
        fontsize=8,
    )
    handles = [h for axes in panels[:, 0] for h in axes.get_legend_handles_labels()[0]]
    drawing.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    return drawing


def _ratios(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhspan(1 / ALIKE, ALIKE, color="0.92", zorder=0)
    axes.axhline(1, color="black", linewidth=0.6)
    styles = {
        ("bias2", "equal time"): ("o-", "black", "black", "bias², equal time", 1.0),
        ("bias2", "equal steps"): ("o--", "black", "white", "bias², equal steps", 0.94),
        ("jacobian", "equal time"): ("s:", "0.45", "0.45", "Jacobian MSE, equal time", 1.06),
    }
    for (quantity, budget), (line, colour, face, label, shift) in styles.items():
        part = rows[(rows["quantity"] == quantity) & (rows["pair"] == budget)]
        part = part.sort_values("rows")
        y = part["value"]
        error = np.stack([y - part["ci_low"], part["ci_high"] - y])
        axes.errorbar(
            part["rows"] * shift, y, np.abs(error), fmt=line, color=colour, label=label,
            markerfacecolor=face, markersize=4, linewidth=1, capsize=2,
        )  # fmt: skip
    axes.set_yscale("log")


def _mark_foretold(axes: Axes, near: pd.DataFrame) -> None:
    """Under each size: in how many trials neighbours were near enough to help, or not."""
    sizes = sorted(near["rows"].unique())
    said = [near[near["rows"] == size]["said"].value_counts() for size in sizes]
    counts = [f"+{one.get('can help', 0)} −{one.get('cannot help', 0)}" for one in said]
    labels = [f"{size:,}\n{count}" for size, count in zip(sizes, counts, strict=True)]
    axes.set_xticks(sizes, labels, fontsize=7)


def _biases(axes: Axes, rows: pd.DataFrame) -> None:
    part = rows[(rows["quantity"] == "bias2_10") & (rows["pair"] == "equal time")]
    part = part.sort_values("rows")
    for column, line, label in (
        ("without", "o-", "below: squared error alone"),
        ("with", "s--", "below: with the loss beside it"),
    ):
        axes.plot(part["rows"], part[column] ** 0.5, line, color="black", label=label,
                  markerfacecolor="black" if column == "without" else "white",
                  markersize=4, linewidth=1)  # fmt: skip
    axes.axhline(1, color="0.6", linewidth=0.6)
    axes.set_yscale("log")
