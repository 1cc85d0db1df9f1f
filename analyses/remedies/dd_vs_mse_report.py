"""DD-VS-MSE in words and as a figure, from its tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.harness.forest import plain_ticks
from analyses.harness.paired_trials import ALIKE, told

ALL = "all"  # the name under which all worlds are taken together
MAIN = "w = 10, equal time"
WHAT = {"bias2": "bias² of the policy gradient", "jacobian": "Jacobian MSE"}
ANSWERS = ("better", "worse", "alike", "undecided")


def sentence(
    table: pd.DataFrame, near: pd.DataFrame, times: float, alone: Sequence[tuple[str, float]]
) -> str:
    """The verdict.

    Args:
        table: of `comparison`; near: of `foreseen`; times: what a step with the loss costs.
        alone: worlds (name, noise) without which the others together decide no size.
    """
    single, whole = table[table["world"] != ALL], table[table["world"] == ALL]
    timed = _of(single, "bias2", MAIN)
    cosine = _of(single, "cosine_10", MAIN)
    moved = cosine[(cosine["ci_low"] > 0) | (cosine["ci_high"] < 0)]
    opening = f"{_opening(table, alone)}{_rests(table, alone)}"
    return (
        f"{opening} {' '.join(_weight(single, whole, w) for w in ('10', '1'))} "
        f"{_jacobian_alone(single)} "
        f"Each system, w = 10, equal time, bias²: {_by_world(timed)}. Cosines at h = 10 differ "
        f"beyond their interval in {len(moved)} of {len(cosine)} cells, by at most "
        f"{cosine['value'].abs().max():.2g}. Foretold from the data: {_foretold(near)}."
        f"{_missing(timed)} A step with the loss took {times:.2g} times as long. N = "
        f"{int(timed['n'].min())} trials; 2×64 SiLU, reward known."
    )


def _rests(table: pd.DataFrame, alone: Sequence[tuple[str, float]]) -> str:
    """The systems that alone carry the answer for all of them."""
    if not alone:
        return ""
    worlds = table.loc[table["world"] != ALL, ["world", "noise"]].drop_duplicates()
    return (
        f" All of this rests on {len(alone)} of {len(worlds)} systems: without "
        f"{' or without '.join(named(*key) for key in alone)} every size is undecided."
    )


def _weight(single: pd.DataFrame, whole: pd.DataFrame, w: str) -> str:
    """What one weight does, system by system and all together."""
    counts = {
        (name, budget): _counted(_of(single, name, f"w = {w}, {budget}"))
        for name in ("bias2", "jacobian")
        for budget in ("equal time", "equal steps")
    }
    together = {name: _by_size(_of(whole, name, f"w = {w}, equal time")) for name in WHAT}
    return (
        f"w = {w} at equal time: the gradient's squared bias is {counts['bias2', 'equal time']}, "
        f"the Jacobian MSE {counts['jacobian', 'equal time']} (at equal steps "
        f"{counts['bias2', 'equal steps']}, and {counts['jacobian', 'equal steps']}); all systems "
        f"together, with/without, bias²: {together['bias2']}; Jacobian MSE: "
        f"{together['jacobian']}."
    )


def _jacobian_alone(single: pd.DataFrame) -> str:
    """Does the gradient gain where the Jacobian does?"""
    cells = ["world", "noise", "rows"]
    gained = _of(single, "jacobian", MAIN).set_index(cells)["answer"] == "better"
    answers = _of(single, "bias2", MAIN).set_index(cells)["answer"][gained]
    found = int((answers == "better").sum())
    return f"Where w = 10 lowers the Jacobian error ({len(answers)} cells), bias² falls in {found}."


def agreement(near: pd.DataFrame) -> dict[str, float]:
    """How often errors fell at equal time, by what `loss_check` had found, over both weights."""
    found: dict[str, float] = {}
    for word, rows in near.groupby("said"):
        found[f"trials where neighbours {word}"] = int((rows["w"] == rows["w"].max()).sum())
        for quantity in ("jacobian", "bias2"):
            found[f"{quantity} lower where neighbours {word}"] = (rows[quantity] < 1).mean()
    return found


def _of(table: pd.DataFrame, quantity: str, pair: str) -> pd.DataFrame:
    return table[(table["quantity"] == quantity) & (table["pair"] == pair)]


def _opening(table: pd.DataFrame, alone: Sequence[tuple[str, float]]) -> str:
    """Who is right, from all systems together at equal time under both weights."""
    where = "on these systems" if not alone else "on these systems taken together"
    timed = table[table["pair"].str.endswith("equal time") & (table["quantity"] == "bias2")]
    count = timed[timed["world"] == ALL]["answer"].value_counts()
    better, rest = count.get("better", 0), count.get("worse", 0) + count.get("alike", 0)
    if rest and not better:
        return f"RP-PGM is right {where}: state prediction suffices."
    if better and not rest:
        return f"DDPPO is right {where}."
    return "Each is right at some size." if better else "No size decides."


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
    return "; ".join(f"{named(*key)}: {_by_size(rows)}" for key, rows in cells)


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


def named(name: str, noise: float) -> str:
    if name == ALL:
        return "all four"
    return f"{name}, {f'noise {noise:.0%}' if noise else 'no noise'}"


def figure(table: pd.DataFrame, near: pd.DataFrame) -> Figure:
    """Ratios of bias² and of Jacobian MSE by data size, and the relative bias itself."""
    worlds = list(table.groupby(["world", "noise"], sort=False))
    drawing = Figure(figsize=(2.7 * len(worlds) + 0.6, 7.8), layout="constrained")
    panels = drawing.subplots(3, len(worlds), sharey="row", squeeze=False)
    for axes, ((name, noise), rows) in zip(panels.T, worlds, strict=True):
        axes[0].set_title(named(name, noise), fontsize=9)
        for each, quantity in zip(axes, WHAT, strict=False):
            _ratios(each, rows[rows["quantity"] == quantity])
        _biases(axes[2], rows)
        sizes = sorted(rows["rows"].unique())
        for each in axes:
            each.set_xscale("log")
            each.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
            each.minorticks_off()
        mine = (near["world"] == name) & (near["noise"] == noise)
        _mark_foretold(axes[0], near if name == ALL else near[mine])
    for axes, name in zip(panels[:, 0], WHAT.values(), strict=False):
        axes.set_ylabel(f"{name}\nwith / without (below 1: it helps)", fontsize=8)
    panels[2, 0].set_ylabel("bias of the policy gradient\n/ its true norm, h = 10", fontsize=8)
    for axes in panels[:, 0]:
        plain_ticks(axes.yaxis)
    drawing.supxlabel(
        "recorded transitions        (+a −b: trials whose data say beforehand that neighbours can "
        "help, cannot help)",
        fontsize=8,
    )
    handles = [h for axes in panels[1:, 0] for h in axes.get_legend_handles_labels()[0]]
    drawing.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    return drawing


def _ratios(axes: Axes, rows: pd.DataFrame) -> None:
    axes.axhspan(1 / ALIKE, ALIKE, color="0.92", zorder=0)
    axes.axhline(1, color="black", linewidth=0.6)
    styles = {
        "w = 10, equal time": ("o-", "black", "black", 1.0),
        "w = 1, equal time": ("s:", "0.45", "0.45", 1.07),
        "w = 10, equal steps": ("o--", "black", "white", 0.93),
    }
    for pair, (line, colour, face, shift) in styles.items():
        part = rows[rows["pair"] == pair].sort_values("rows")
        y = part["value"]
        error = np.abs([y - part["ci_low"], part["ci_high"] - y])
        axes.errorbar(
            part["rows"] * shift, y, error, fmt=line, color=colour, label=pair,
            markerfacecolor=face, markersize=4, linewidth=1, capsize=2,
        )  # fmt: skip
    axes.set_yscale("log")


def _mark_foretold(axes: Axes, near: pd.DataFrame) -> None:
    """Under each size: in how many trials neighbours were near enough to help, or not."""
    sizes = sorted(near["rows"].unique())
    once = near[near["w"] == near["w"].max()]  # the data say one thing for every weight
    said = [once[once["rows"] == size]["said"].value_counts() for size in sizes]
    counts = [f"+{one.get('can help', 0)} −{one.get('cannot help', 0)}" for one in said]
    labels = [f"{size:,}\n{count}" for size, count in zip(sizes, counts, strict=True)]
    axes.set_xticks(sizes, labels, fontsize=7)


def _biases(axes: Axes, rows: pd.DataFrame) -> None:
    part = rows[(rows["quantity"] == "bias2_10") & (rows["pair"] == MAIN)]
    part = part.sort_values("rows")
    for column, line, label in (
        ("without", "o-", "bottom: squared error alone"),
        ("with", "s--", "bottom: with the loss, w = 10"),
    ):
        axes.plot(part["rows"], part[column] ** 0.5, line, color="black", label=label,
                  markerfacecolor="black" if column == "without" else "white",
                  markersize=4, linewidth=1)  # fmt: skip
    axes.axhline(1, color="0.6", linewidth=0.6)
    axes.set_yscale("log")
