"""Table and learning curves of the model-based runs: every seed, none left out.

    python -m analyses.model_based.report [--runs reports/model-based/runs]

Of runs whose files are elsewhere the table keeps its lines; a world is written, and drawn, where
its `sac` is.

Medians over all seeds with order statistics around them (94% for five seeds), as everywhere. The
mean over the run is that of its evaluations, the first one included.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analyses.harness.student import half_width
from analyses.harness.verdicts import put
from analyses.model_based.runs import LONG, MAIN, Arm, Swing, World, arms, path_of
from gradlab.figures.style import BLUE, GRID, INK, MUTED
from gradlab.runs.training.results import Training, load
from gradlab.statistics.over_groups import aggregate

Floats = NDArray[np.float64]
RUNS = Path("reports/model-based/runs")
OUTPUT = Path("reports/model-based")
COLUMNS = 5
TITLES = {"pendulum": "pendulum, γ 0.95", "cart-pole": "cart-pole swing-up"}


def transitions(run: Training, arm: Arm) -> list[int]:
    """At every evaluation, of one seed."""
    row = arm.algorithm()
    if row.source.steps:
        per = row.source.steps * int(run.config["settings"]["agents"])
        return [int(k) * per for k in run.iteration]
    return [int(k) // (row.updates or 1) for k in run.iteration]


def finals(runs: dict[Arm, Training]) -> pd.DataFrame:
    """One line for each run that there is."""
    lines = []
    for arm, run in runs.items():
        last, whole = aggregate(run.returns[-1]), aggregate(run.returns.mean(axis=0))
        lines.append({
            "run": arm.name, "seeds": len(run.seeds), "updates": int(run.iteration[-1]),
            "transitions": transitions(run, arm)[-1],
            "final": f"{last.value:.3g} [{last.low:.3g}, {last.high:.3g}]",
            "over the run": f"{whole.value:.3g} [{whole.low:.3g}, {whole.high:.3g}]",
            "every seed": ", ".join(f"{x:.3g}" for x in np.sort(run.returns[-1])[::-1]),
            "minutes": round(float(run.seconds[-1]) / 60, 1),
        })  # fmt: skip
    return pd.DataFrame(lines)


def listed(runs: dict[Arm, Training], world: World) -> str:
    """The runs of a world in Markdown, best first: its final return, its mean, the seeds that end
    within a tenth of SAC's, and the share of the reward's held-out variance that the last fit of
    its model explains; of the long runs also how far its mean lies above SAC's."""
    own = {arm: run for arm, run in runs.items() if arm.world == world}
    order = sorted(own, key=lambda arm: -float(np.median(own[arm].returns[-1])))
    names = ["final return", "mean over the run", "near `sac`", "reward explained"]
    if world in LONG:
        names.append("mean less `sac`'s")
    lines = [f"| run | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for arm in order:
        run = own[arm]
        means = run.returns[-1], run.returns.mean(axis=0)
        cells = [*map(_interval, means), near(run, runs.get(Arm("sac", world))), _reward(run)]
        if world in LONG:
            cells.append("–" if arm.row == "sac" else _beside(run, own[Arm("sac", world)]))
        changes = {
            "mse": "model by squared error", "wide": "model of 2×200", "exact": "exact model",
        }  # fmt: skip
        parts = [f"`{arm.row}`"]
        if arm.horizon is not None:
            parts.append(f"h = {arm.horizon}")
        if arm.model is not None:
            parts.append(changes[arm.model])
        if arm.algorithm().source.steps:
            parts.append(f"{arm.iterations:,} updates")
        if arm.paths is not None:
            parts.append(f"{arm.paths} paths")
        words = ", ".join(parts)
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return "\n".join(lines)


def near(run: Training, sac: Training | None) -> str:
    """Seeds that end no further below SAC's final median than a tenth of the way from there to the
    untrained policy's: four of five is what `runs` calls to learn."""
    if sac is None:
        return "–"
    first, last = np.median(sac.returns[0]), np.median(sac.returns[-1])
    learned = int((run.returns[-1] >= last - 0.1 * (last - first)).sum())
    return f"{learned} of {run.returns.shape[1]}"


def _interval(values: Floats) -> str:
    """Of three digits, or one after the point."""
    whole = aggregate(values)
    numbers = [float(x) for x in (whole.value, whole.low, whole.high)]
    digits = 1 if max(map(abs, numbers)) < 100 else 0
    rounded = [round(x, digits if digits else 3 - len(f"{abs(x):.0f}")) for x in numbers]
    value, low, high = (f"{x:,.{digits}f}".replace("-", "−") for x in rounded)
    return f"{value} [{low}, {high}]"


def _beside(run: Training, sac: Training) -> str:
    """The mean over the run less SAC's of the same seed, with Student's interval."""
    apart = run.returns.mean(axis=0) - sac.returns.mean(axis=0)
    mean, half = apart.mean(), float(half_width(apart))
    return f"{mean:.0f} [{mean - half:.0f}, {mean + half:.0f}]".replace("-", "−")


def _reward(run: Training) -> str:
    """The median of the seeds."""
    if "prediction_explained" not in run.model:
        return "no model"
    share = float(np.median(run.model["prediction_explained"][-1][..., -1]))
    return f"{share:.2f}".replace("-", "−")


def drawn(runs: dict[Arm, Training]) -> Figure:
    """A panel for each main row: its seeds, their median, and SAC's median beside it."""
    worlds = [world for world in get_args(Swing) if Arm("sac", world) in runs]
    rows = -(-len(MAIN) // COLUMNS)
    figure = Figure(figsize=(11.5, 2.35 * rows * len(worlds)), layout="constrained")
    parts = figure.subfigures(len(worlds), 1, squeeze=False)[:, 0]
    for world, part in zip(worlds, parts, strict=True):
        part.suptitle(TITLES[world], x=0.01, ha="left", fontweight="bold", color=INK)
        axes = part.subplots(rows, COLUMNS, sharey=True)
        for row, ax in zip(MAIN, axes.flat, strict=True):
            arm = Arm(row, world)
            if arm in runs:
                _panel(ax, runs[arm], arm, runs[Arm("sac", world)])
            ax.set_title(row, loc="left", fontsize=10, color=INK)
        for ax in axes[:, 0]:
            ax.set_ylabel("return of an episode", fontsize=9)
        for ax in axes[-1]:
            ax.set_xlabel("updates", fontsize=9)
    return figure


def _panel(ax: Axes, run: Training, arm: Arm, sac: Training) -> None:
    for seed in range(run.returns.shape[1]):
        ax.plot(run.iteration, run.returns[:, seed], color=BLUE, alpha=0.35, linewidth=0.8)
    ax.plot(run.iteration, np.median(run.returns, axis=1), color=BLUE, linewidth=2)
    if arm.row != "sac" and not arm.algorithm().source.steps:
        ax.plot(sac.iteration, np.median(sac.returns, axis=1), color=MUTED, linestyle=(0, (4, 2)))
    ax.grid(True, axis="y", color=GRID, linewidth=0.8)
    ax.tick_params(labelsize=8)
    ax.locator_params(axis="x", nbins=4)
    ax.spines[["top", "right"]].set_visible(False)


def main(runs: Path = RUNS, output: Path = OUTPUT) -> None:
    output.mkdir(parents=True, exist_ok=True)
    there = {arm: load(path_of(arm, runs)) for arm in arms() if path_of(arm, runs).exists()}
    table, place = finals(there), output / "table.csv"
    if place.is_file():
        before = pd.read_csv(place)
        table = pd.concat([before[~before["run"].isin(table["run"])], table])
    table.to_csv(place, index=False)
    print(table.to_string(index=False))
    worlds = [world for world in get_args(World) if Arm("sac", world) in there]
    for world in worlds:
        put(output / "README.md", world, listed(there, world))
    if {*worlds} & {*get_args(Swing)}:
        drawn(there).savefig(output / "main.png", dpi=110)


if __name__ == "__main__":
    tyro.cli(main)
