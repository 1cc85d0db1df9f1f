"""Whose gradient? What the model-based rows follow while they train, against the true gradient.

    python -m analyses.model_based.whose_gradient [--runs reports/model-based/runs] [--starts 8192]

Reads the main runs of `model_based`, and keeps the lines of those whose files have left the tree:
at five stages of a row's own training, its own loss start by start at 1,024 states that it starts
from, against score functions of the simulator's return with θ in the same actions. No criterion was
set: this is a description. Numbers are sums over seeds before they are divided
(`pooled_gradients`), at a stage or, as stage 0, over all of them.

    cosine      E G · E T / |E G||E T|; none where the seeds do not tell a square from zero
    bias        |E G − E T|² / |E T|²: a gradient of zero has 1
    noise       variance over the samples of an update, over the MSE of an update
    states, jacobians, critic    parts of |E G − E T|², over it

A row points uphill at a stage where the interval of its cosine lies above 0, and is usable at a
horizon where it lies above 0.7, as in a measurement's usable range.

With --starts, the runs that are measured at so many states, by the criterion on the page, each as
one row of a table; there a cell is one seed at one stage, by its own interval, and the noise is
what the measurement makes of the variance of a stage's cosines over the seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analyses.harness.pooled_gradients import PARTS, pooled, with_ends
from analyses.harness.verdicts import put
from analyses.model_based.runs import MAIN, STAGES, Arm, Swing, World, finished, path_of
from gradlab.figures.style import BLUE, GREEN, INK, MUTED, VERMILION, ruled
from gradlab.runs.decision_rules import COSINE
from gradlab.runs.training.results import Training, load
from gradlab.statistics.intervals import student
from gradlab.tools.papers.figures import markdown
from gradlab.training.measured.row_gradients import samples
from gradlab.training.parts.policy_losses import Term

RUNS = Path("reports/model-based/runs")
OUTPUT = Path("reports/whose-gradient")
COLOURS = {"states": GREEN, "jacobians": BLUE, "critic": VERMILION}
MAKES = {
    "states": "the model's states make", "jacobians": "the model's Jacobians make",
    "critic": "the critic makes",
}  # fmt: skip
HATCHES = {"states": "///", "jacobians": "...", "critic": ""}


def rows_of(run: Training, arm: Arm) -> Iterator[dict[str, object]]:
    """One for each horizon at each stage, and, at stage 0, at all of them."""
    row = replace(arm.algorithm(), batch=int(run.config["algorithm"]["batch"]))
    errors = pooled(run, lambda horizon: samples(row, Term(horizon)))
    for horizon, count in zip(errors.horizons, errors.samples, strict=True):
        for stage in range(len(errors.iterations) + 1):
            estimate = partial(errors.estimate, stage=stage, horizon=horizon)
            sums = errors.sums(stage, horizon)
            noise = sums["variance"] / count
            error = sums["bias2"] + noise
            yield {
                "world": arm.world, "row": arm.row, "stage": stage, "horizon": horizon,
                "last": horizon == errors.horizons[-1], "lost": errors.lost(stage, horizon),
                **with_ends("cosine", estimate("cosine")), **with_ends("bias", estimate("bias")),
                "noise": noise / error if error > 0 else np.nan,
                "states": estimate("states").value, "jacobians": estimate("jacobians").value,
                **with_ends("critic", estimate("critic")),
            }  # fmt: skip


def measured(runs: Path) -> pd.DataFrame:
    """Of all main runs that there are."""
    rows: list[dict[str, object]] = []
    for world in get_args(World):
        for row in MAIN:
            arm = Arm(row, world)
            path = path_of(arm, runs)
            if path.exists() and "inner" in (run := load(path)).gradients:
                rows += rows_of(run, arm)
    return pd.DataFrame(rows)


def with_earlier(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Beside these the lines of a table that has runs whose files are not here any more."""
    if not path.exists():
        return table
    run, earlier = ["world", "row"], pd.read_csv(path)
    if len(table):
        again = earlier.set_index(run).index.isin(table.set_index(run).index)
        earlier = earlier[~again]
    order = [*get_args(World), *MAIN].index
    both = pd.concat([earlier, table], ignore_index=True)
    return both.sort_values(run, key=lambda names: names.map(order), kind="stable")


def precise(runs: Path, starts: int) -> Iterator[dict[str, object]]:
    """Of every run that is measured at so many states and has come to its end."""
    for row in MAIN:
        for world in get_args(Swing):
            arm = Arm(row, world, starts=starts)
            if not finished(arm, runs):
                continue
            run = load(path_of(arm, runs))
            if len(run.gradients["iteration"]) == STAGES:  # the last comes after the training
                yield {"row": f"`{row}`", "world": world} | _judged(run, arm)


def _judged(run: Training, arm: Arm) -> dict[str, object]:
    own = [line for line in rows_of(run, arm) if line["last"]]
    whole, *stages = (pd.Series(line) for line in own)
    up, down = (sum(_side(stage) == side for stage in stages) for side in ("uphill", "downhill"))
    value, low, high = (run.gradients[f"cosine{end}"][..., -1] for end in ("", "_low", "_high"))
    cells = np.array([low > 0, high < 0, low >= COSINE]).sum(axis=(1, 2))
    half, left = (high - low) / 2, ~((low > 0) | (high < 0))
    more = f"{np.nanmedian(half[left] / abs(value[left])) ** 2:.0f}×" if left.any() else "–"
    noise = np.nanmean((half / student(np.inf)) ** 2) / np.nanmean(value.var(axis=1, ddof=1))
    return {
        "cosine over its training": _with_interval(whole), "points": _side(whole),
        "stages uphill, downhill": f"{up}, {down} of {len(stages)}",
        "training": "decided" if max(up, down) >= len(stages) - 1 else "open",
        "cells uphill": cells[0], "downhill": cells[1], "usable": cells[2], "open": left.sum(),
        "states for the median open cell": more, "noise": f"{noise:.0%}",
    }  # fmt: skip


def _side(row: pd.Series[Any]) -> str:
    if row["cosine low"] > 0:
        return "uphill" if row["cosine low"] < COSINE else "uphill, usable"
    return "downhill" if row["cosine high"] < 0 else "open"


def sentences(table: pd.DataFrame) -> pd.DataFrame:
    """One for each row and world: where its gradient points, and what makes its error."""
    lines = []
    for (world, row), own in table.groupby(["world", "row"], sort=False):
        lines.append({"world": world, "row": row, "sentence": sentence(str(row), own)})
    return pd.DataFrame(lines)


def sentence(row: str, table: pd.DataFrame) -> str:
    table = table[table["last"]]
    whole, stages = table[table["stage"] == 0].iloc[0], table[table["stage"] > 0]
    uphill, downhill = (stages["cosine low"] > 0).sum(), (stages["cosine high"] < 0).sum()
    usable = (stages["cosine low"] >= COSINE).sum()
    first, *_, last = (_stated(stage) for _, stage in stages.iterrows())
    words = [
        f"`{row}` (h = {whole['horizon']}): cosine {_with_interval(whole)} over its training, "
        f"{first} at the first stage and {last} at the last; uphill in {uphill} of {len(stages)} "
        f"stages"
        + (f", downhill in {downhill}" if downhill else "")
        + (f", usable in {usable}" if usable else "")
    ]
    if whole["horizon"] and not np.isnan(whole["critic"]):
        largest = max(PARTS, key=lambda name: float(whole[name]))
        words.append(f"{MAKES[largest]} {_share(whole, largest)} of its squared bias")
    return "; ".join(words) + "."


def _share(row: pd.Series[Any], part: str) -> str:
    share, ends = f"{row[part]:.0%}", [row.get(f"{part} low"), row.get(f"{part} high")]
    known = part == "critic" and not np.isnan(ends).any()
    return f"{share} [{ends[0]:.0%}, {ends[1]:.0%}]" if known else share


def _with_interval(row: pd.Series[Any]) -> str:
    if _stated(row) == "not known":
        return "not known"
    low, high = (_clipped(row[name]) for name in ENDS[1:])
    return f"{_stated(row)} [{low}, {high}]"


def _stated(row: pd.Series[Any]) -> str:
    """The estimate, where its interval is known."""
    known = not np.isnan([row[name] for name in ENDS]).any()
    return _clipped(row["cosine"]) if known else "not known"


def _clipped(cosine: float) -> str:
    """An estimate may lie beyond ±1, the cosine itself may not."""
    return f"{np.clip(cosine, -1, 1):.2f}".replace("-", "−")


def drawn(table: pd.DataFrame) -> Figure:
    """Cosine by stage, and parts of the squared bias, for each row: a column for each world."""
    worlds = [world for world in get_args(World) if (table["world"] == world).any()]
    figure = Figure(figsize=(5.2 * len(worlds), 8.2), layout="constrained")
    axes = figure.subplots(2, len(worlds), squeeze=False)
    for column, world in enumerate(worlds):
        longest = table[(table["world"] == world) & table["last"]]
        rows = list(dict.fromkeys(longest["row"]))
        _cosines(axes[0, column], longest[longest["stage"] > 0], rows)
        _shares(axes[1, column], longest[longest["stage"] == 0], rows)
        axes[0, column].set_title(world, loc="left", color=INK, fontweight="bold")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _cosines(ax: Axes, table: pd.DataFrame, rows: list[str]) -> None:
    stages = int(table["stage"].max())
    for y, row in enumerate(rows):
        own = table[table["row"] == row]
        for stage, *numbers in own[["stage", *ENDS]].to_numpy(float).tolist():
            value, low, high = np.clip(numbers, -1, 1)
            at = y + 0.13 * (stage - (stages + 1) / 2)
            shade = str(0.72 - 0.62 * stage / stages)
            ax.plot([low, high], [at, at], color=shade, linewidth=1.4)
            known = not np.isnan([low, high]).any()
            ax.plot(
                [value],
                [at],
                "o",
                color=shade,
                markersize=3.4,
                markerfacecolor=shade if known else "white",
            )
    ax.axvline(0, color=MUTED, linewidth=0.8)
    ax.axvline(COSINE, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    ax.set_xlim(-1, 1)
    ax.set_xlabel("cosine with the true gradient\nstages 1 to 5 (darker); open: no interval")
    _rows(ax, rows)


def _shares(ax: Axes, table: pd.DataFrame, rows: list[str]) -> None:
    for y, row in enumerate(rows):
        own, left, right = table[table["row"] == row], 0.0, 0.0
        for name, colour in COLOURS.items():
            share = float(own[name].iloc[0])
            begin = right if share >= 0 else left
            ax.barh(y, share, left=begin, height=0.62, color=colour, hatch=HATCHES[name],
                    edgecolor="white", label=LABELS[name] if y == 0 else None)  # fmt: skip
            left, right = left + min(share, 0), right + max(share, 0)
    ax.axvline(0, color=MUTED, linewidth=0.8)
    ax.set_xlabel("share of the squared bias, all stages")
    _rows(ax, rows)


ENDS = ("cosine", "cosine low", "cosine high")
LABELS = {"states": "the model's states", "jacobians": "its Jacobians", "critic": "the critic"}


def _rows(ax: Axes, rows: list[str]) -> None:
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ruled(ax, "x")


def main(runs: Path = RUNS, output: Path = OUTPUT, starts: int | None = None) -> None:
    output.mkdir(parents=True, exist_ok=True)
    if starts is not None:
        text = markdown(pd.DataFrame(precise(runs, starts)))
        print(text)
        put(output / "README.md", f"{starts} states", text)
        return
    table = with_earlier(measured(runs), output / "table.csv")
    table.to_csv(output / "table.csv", index=False, float_format="%.4g")
    lines = sentences(table)
    lines.to_csv(output / "sentences.csv", index=False)
    for world, own in lines.groupby("world", sort=False):
        text = "\n".join(f"- {sentence}" for sentence in own["sentence"])
        print(f"{world}\n{text}\n")
        put(output / "README.md", str(world), text)
    drawn(table).savefig(output / "whose-gradient.png", dpi=150)


if __name__ == "__main__":
    tyro.cli(main)
