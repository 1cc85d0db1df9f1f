"""One figure of the papers from runs: a panel of their page by its name, or one of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab import validation
from gradlab.errors import InputError
from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.style import INCHES, Look, column
from gradlab.reporting import kinds
from gradlab.reporting.figure_data import drawn as data_of
from gradlab.reporting.page import Panel, panel
from gradlab.runs.training.results import GOALS, KIND, Training, first_reached, load, loaded
from gradlab.storage import journal, records

_SPEEDS, _BY_HORIZON = "convergence", "gradient-horizons"
FORMATS = (".png", ".pdf", ".svg")
# Panels that a run has only where it was asked for them.
OPTIONS = {
    "weights-rule": "gradlab train --weights measured", "weights-error": "the same",
    "weights": "an algorithm that mixes horizons, such as mpg-v2",
    "gradient-parts": "gradlab train --gradient-every N", "gradient-relative": "the same",
    _BY_HORIZON: "gradlab train --gradient-every N of every run",
    _SPEEDS: "training runs of a task with goals, such as path_tracking",
    "gradient-dynamics_parts": "gradlab train --gradient-every N, of a row with a model",
    "gradient-dynamics_relative": "the same",
    "model-prediction": "an algorithm with a learned model, such as ddppo",
    "model-gradient": "gradlab train --two-model",
    "return_over_updates": "gradlab measure, without --no-rehearsal",
    "decay": "gradlab measure --also decay",
    "loss-surface": "`python -m analyses.jacobians.landscape`: no run holds slices of its return",
}  # fmt: skip


def convergence(runs: dict[str, Training], ax: Axes | None = None) -> Axes:
    """Iterations to each goal, a point per seed and a bar at their median (MPG, Figs. 3b and 4b).

    A seed that never reaches a goal stands at the top, open; a median among these has no bar.
    """
    ax = style.new_axes() if ax is None else ax
    goals = GOALS[next(iter(runs.values())).task]
    longest = max(int(run.iteration[-1]) for run in runs.values())
    never = 1.06 * longest
    for place, (name, look) in enumerate(style.looks(list(runs)).items()):
        for k, goal in enumerate(goals):
            first = first_reached(runs[name], goal)
            x = k + (place - (len(runs) - 1) / 2) * 0.8 / len(runs)
            spread = np.linspace(-0.2, 0.2, len(first)) / len(runs)
            met = np.isfinite(first)
            label = look.label if k == 0 else None
            ax.plot(x + spread[met], first[met], look.marker or "o", color=look.colour,
                    markersize=4, label=label, linestyle="")  # fmt: skip
            ax.plot(x + spread[~met], np.full((~met).sum(), never), look.marker or "o",
                    color=look.colour, markersize=4, markerfacecolor="none",
                    linestyle="")  # fmt: skip
            if np.isfinite(middle := float(np.median(np.where(met, first, np.inf)))):
                ax.hlines(middle, x - 0.3 / len(runs), x + 0.3 / len(runs), color=look.colour)
    ax.axhline(1.03 * longest, color=style.MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    notes = ["a point: a seed; a line: their median; above the dashed line: never in this run"]
    style.dress(ax, "Iterations to each goal", "iterations", notes)
    ax.set_xlabel("mean return of the evaluation episodes", color=style.INK)
    ax.set_xticks(range(len(goals)), [style.tick(goal) for goal in goals])
    ax.set_ylim(bottom=-0.02 * longest)
    return ax


def gradient_horizons(runs: Mapping[str, Training], axes: Sequence[Axes]) -> None:
    """Variance and squared bias of the gradient over the horizon, pale at the first measurement of
    a run and full at its last (RP-PGM, Figs. 2 and 5): means over the seeds."""
    for ax, quantity, title in zip(
        axes, ("variance", "bias2"), ("Variance of one sample", "Squared bias"), strict=True
    ):
        lines: list[tuple[Curve, Look, float]] = []
        for name, look in style.looks(list(runs)).items():
            found, last = runs[name].gradients, len(runs[name].gradients["iteration"]) - 1
            for place, shade in zip(sorted({0, last // 2, last}), (0.3, 0.6, 1.0), strict=False):
                value = found[quantity][place].mean(axis=0)
                ends = (np.full(len(value), np.nan),) * 2
                if place == last and len(runs[name].seeds) == 1:
                    ends = tuple(found[f"{quantity}_{end}"][place, 0] for end in ("low", "high"))
                line = Curve(found["horizon"].astype(float), value, *ends)
                at = f"{look.label}, {int(found['iteration'][place]):,} iterations"
                lines.append((line, replace(look, label=at), shade if last else 1.0))
        floor = drawing.log_floor([line for line, _, _ in lines])
        for line, look, shade in lines:
            before = len(ax.lines)
            drawing.draw(ax, line, look, floor)
            for drawn in ax.lines[before:]:
                drawn.set_alpha(shade)
        ax.set_yscale("log")
        style.dress(
            ax,
            f"{title} by horizon",
            "in squared reward units",
            ["pale: early; a gap: not above 0"],
        )
        ax.set_xlabel("horizon h [steps]", color=style.INK)


def chosen(name: str, paths: Sequence[Path]) -> Panel:
    """The figure called `name`, with a note where the runs are of several commits."""
    if not paths:
        raise InputError("runs are missing: name at least one RUN.h5")
    own = _own(paths)
    if name in own:
        found = own[name]()
    else:
        page = kinds.page_of(paths[0]) if len(paths) == 1 else kinds.compared(paths)[0]
        every = {each.name: each for each in page.panels}
        if name not in every:
            how = f"; {name} needs {OPTIONS[name]}" if name in OPTIONS else ""
            raise InputError(
                f"name is {name!r}, but these runs have {', '.join([*every, *own])}{how}"
            )
        found = every[name]
    files = [records.attributes(path) for path in paths if path.is_file()]
    commits = sorted({str(each["commit"]) for each in files if each.get("commit")})
    if len(commits) > 1:
        found.figure.text(
            0.995, 0.992, f"runs of several commits: {', '.join(c[:8] for c in commits)}",
            ha="right", va="top", fontsize=7, color=style.MUTED,
        )  # fmt: skip
    return found


def _own(paths: Sequence[Path]) -> dict[str, Callable[[], Panel]]:
    """The figures that no page has, by name: those for which these training runs have columns."""
    if not all(path.is_file() and journal.kind(path) == KIND for path in paths):
        return {}
    runs = loaded(paths) if len(paths) > 1 else {(run := load(paths[0])).name: run}
    own: dict[str, Callable[[], Panel]] = {}
    if next(iter(runs.values())).task in GOALS:
        caption = "A point is a seed, a line their median."
        own[_SPEEDS] = lambda: panel(
            _SPEEDS, "Does it learn?", caption, lambda ax: convergence(runs, ax)
        )
    if all(len(run.gradients.get("iteration", ())) for run in runs.values()):

        def by_horizon() -> Panel:
            wide, high = style.SIZE
            figure = Figure(figsize=(1.8 * wide, high), layout="constrained")
            gradient_horizons(runs, figure.subplots(1, 2))
            return Panel(_BY_HORIZON, "Gradients", "Pale at first, full at the end.", figure)

        own[_BY_HORIZON] = by_horizon
    return own


def sized(figure: Figure, width: str | None) -> None:
    """At the width of a paper's column; a figure of several axes is only scaled."""
    if width is None:
        return
    validation.word("width", width, tuple(INCHES))
    if len(figure.axes) == 1:
        column(figure.axes[0], width)  # type: ignore[arg-type]
    else:
        wide, high = figure.get_size_inches()
        figure.set_size_inches(INCHES[width], high * INCHES[width] / wide)


def save(figure: Figure, target: Path) -> pd.DataFrame:
    """Writes the figure, and what it shows as a table beside it (.csv); returns the table.

    Raises:
        InputError: a name with another ending, or a folder that cannot be written.
    """
    if target.suffix not in FORMATS:
        raise InputError(f"output is {target}: name a file that ends in {', '.join(FORMATS)}")
    shown = data_of(figure)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}):
            figure.savefig(target, dpi=200, facecolor="white")
        shown.to_csv(target.with_suffix(".csv"), index=False)
    except OSError as error:
        raise InputError(f"output is {target}, which cannot be written ({error})") from error
    return shown
