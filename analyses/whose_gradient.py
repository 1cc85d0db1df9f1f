"""Whose gradient? What the model-based rows follow while they train, against the true gradient.

    python -m analyses.whose_gradient [--runs reports/model-based/runs]

Reads the main runs of `model_based`: at five stages of a row's own training, its own loss start by
start at 1,024 states that it starts from, against score functions of the simulator's return with θ
in the same actions. No criterion was set: this is a description. For each row, world, stage and
horizon

    cosine      with the true gradient, mean over the seeds, Student's 95% interval
    bias        √(squared bias / |true gradient|²), median over the seeds
    noise       variance / batch over the MSE of a batch, median over the seeds
    states, jacobians, critic    parts of the squared bias, summed over the seeds, over its sum

A seed's cosine is an estimate with an interval of its own, which the spread of seeds contains. A
row is usable at a horizon where the interval of the mean lies above 0.7, as in a measurement's
usable range; it points uphill where it lies above 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import t as student

from analyses.model_based import MAIN, Arm, World, path_of
from gradlab.figures.style import BLUE, GREEN, GRID, INK, MUTED, VERMILION
from gradlab.runs.training.results import Training, load
from gradlab.runs.usable_horizons import COSINE

RUNS = Path("reports/model-based/runs")
OUTPUT = Path("reports/whose-gradient")
PARTS = {"bias2_states": "states", "bias2_jacobians": "jacobians", "bias2_tail": "critic"}
COLOURS = {"states": GREEN, "jacobians": BLUE, "critic": VERMILION}
MAKES = {
    "states": "the model's states make", "jacobians": "the model's Jacobians make",
    "critic": "the critic makes",
}  # fmt: skip
HATCHES = {"states": "///", "jacobians": "...", "critic": ""}
Floats = NDArray[np.float64]


def rows_of(run: Training, row: str, world: World) -> Iterator[dict[str, object]]:
    """One for each stage and horizon."""
    table, batch = run.gradients, int(run.config["algorithm"]["batch"])
    for k, iteration in enumerate(table["iteration"]):
        for j, horizon in enumerate(table["horizon"]):

            def of(name: str, k: int = k, j: int = j) -> Floats:
                return np.asarray(table[name][k][:, j], dtype=np.float64)

            bias2, mse, relative = of("bias2"), of("mse"), of("relative_mse")
            if not np.isfinite(bias2).any():
                continue
            cosine, low, high = mean_interval(np.clip(of("cosine"), -1, 1))
            parts = {text: float(np.nansum(of(name))) for name, text in PARTS.items()}
            whole = sum(parts.values())
            yield {
                "world": world, "row": row, "stage": k + 1, "iteration": int(iteration),
                "horizon": int(horizon), "last": int(horizon) == int(table["horizon"][-1]),
                "seeds": int(np.isfinite(bias2).sum()), "cosine": cosine, "low": low, "high": high,
                "bias": float(np.nanmedian(np.sqrt(np.maximum(bias2 * relative / mse, 0)))),
                "noise": float(np.nanmedian(of("variance") / batch / mse)),
                **{text: part / whole if whole else np.nan for text, part in parts.items()},
            }  # fmt: skip


def mean_interval(values: Floats) -> tuple[float, float, float]:
    """Mean over the seeds that have one, and Student's 95% interval."""
    kept = values[np.isfinite(values)]
    if len(kept) < 2:
        return float(kept.mean()) if len(kept) else np.nan, np.nan, np.nan
    mean = float(kept.mean())
    half = float(student.ppf(0.975, len(kept) - 1) * kept.std(ddof=1) / len(kept) ** 0.5)
    return mean, mean - half, mean + half


def measured(runs: Path) -> pd.DataFrame:
    """Of all main runs that there are."""
    rows: list[dict[str, object]] = []
    for world in get_args(World):
        for row in MAIN:
            path = path_of(Arm(row, world), runs)
            if path.exists():
                rows += rows_of(load(path), row, world)
    return pd.DataFrame(rows)


def sentences(table: pd.DataFrame) -> pd.DataFrame:
    """One for each row and world: where its gradient points, and what makes its error."""
    lines = []
    for (world, row), own in table.groupby(["world", "row"], sort=False):
        lines.append({"world": world, "row": row, "sentence": sentence(str(row), own)})
    return pd.DataFrame(lines)


def sentence(row: str, table: pd.DataFrame) -> str:
    own = table[table["last"]]
    stages = len(own)
    uphill, downhill = int((own["low"] > 0).sum()), int((own["high"] < 0).sum())
    usable = own[own["low"] >= COSINE]
    h = int(own["horizon"].iloc[0])
    said = [
        f"`{row}` (h = {h}): cosine {own['cosine'].iloc[0]:.2f} at the first stage, "
        f"{own['cosine'].iloc[-1]:.2f} at the last; uphill in {uphill} of {stages} stages"
        + (f", downhill in {downhill}" if downhill else "")
        + (f", usable in {len(usable)}" if len(usable) else "")
    ]
    if h:
        shares = {name: float(own[name].mean()) for name in PARTS.values()}
        largest = max(shares, key=lambda name: shares[name])
        said.append(f"{MAKES[largest]} {shares[largest]:.0%} of its squared bias")
    return "; ".join(said) + "."


def drawn(table: pd.DataFrame) -> Figure:
    """Cosine by stage, and parts of the squared bias, for each row: a column for each world."""
    worlds = [world for world in get_args(World) if (table["world"] == world).any()]
    figure = Figure(figsize=(5.2 * len(worlds), 8.2), layout="constrained")
    axes = figure.subplots(2, len(worlds), squeeze=False)
    for column, world in enumerate(worlds):
        own = table[(table["world"] == world) & table["last"]]
        rows = list(dict.fromkeys(own["row"]))
        _cosines(axes[0, column], own, rows)
        _shares(axes[1, column], own, rows)
        axes[0, column].set_title(world, loc="left", color=INK, fontweight="bold")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _cosines(ax: Axes, table: pd.DataFrame, rows: list[str]) -> None:
    stages = int(table["stage"].max())
    for y, row in enumerate(rows):
        own = table[table["row"] == row]
        for stage, *numbers in own[["stage", "cosine", "low", "high"]].to_numpy(float).tolist():
            value, low, high = (max(-1.0, min(number, 1.0)) for number in numbers)
            at = y + 0.13 * (stage - (stages + 1) / 2)
            shade = str(0.72 - 0.62 * stage / stages)
            ax.plot([low, high], [at, at], color=shade, linewidth=1.4)
            ax.plot([value], [at], "o", color=shade, markersize=3.4)
    ax.axvline(0, color=MUTED, linewidth=0.8)
    ax.axvline(COSINE, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    ax.set_xlim(-1, 1)
    ax.set_xlabel("cosine with the true gradient, stages 1 to 5 (darker)")
    _rows(ax, rows)


def _shares(ax: Axes, table: pd.DataFrame, rows: list[str]) -> None:
    for y, row in enumerate(rows):
        own, left, right = table[table["row"] == row], 0.0, 0.0
        for name, colour in COLOURS.items():
            share = float(own[name].mean())
            begin = right if share >= 0 else left
            ax.barh(y, share, left=begin, height=0.62, color=colour, hatch=HATCHES[name],
                    edgecolor="white", label=LABELS[name] if y == 0 else None)  # fmt: skip
            left, right = left + min(share, 0), right + max(share, 0)
    ax.axvline(0, color=MUTED, linewidth=0.8)
    ax.set_xlabel("share of the squared bias, mean over the stages")
    _rows(ax, rows)


LABELS = {"states": "the model's states", "jacobians": "its Jacobians", "critic": "the critic"}


def _rows(ax: Axes, rows: list[str]) -> None:
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(True, axis="x", color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def main(runs: Path = RUNS, output: Path = OUTPUT) -> None:
    output.mkdir(parents=True, exist_ok=True)
    table = measured(runs)
    table.to_csv(output / "table.csv", index=False, float_format="%.4g")
    lines = sentences(table)
    lines.to_csv(output / "sentences.csv", index=False)
    for world, text in zip(lines["world"], lines["sentence"], strict=True):
        print(f"{world}: {text}")
    drawn(table).savefig(output / "whose-gradient.png", dpi=150)


if __name__ == "__main__":
    tyro.cli(main)
