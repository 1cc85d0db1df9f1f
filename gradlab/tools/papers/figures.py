"""One figure of the papers from runs: a panel of their page by its name, or one of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from gradlab import validation
from gradlab.errors import InputError
from gradlab.figures import style
from gradlab.figures.style import INCHES, column
from gradlab.reporting import kinds
from gradlab.reporting.figure_data import drawn as data_of
from gradlab.reporting.page import Panel, panel
from gradlab.runs.profile import load as load_profile
from gradlab.runs.training.results import GOALS, KIND, Training, first_reached, load, loaded
from gradlab.storage import journal, records
from gradlab.tools.papers import curves
from gradlab.tools.papers.published import RETURNS, printed

_SPEEDS, _BY_HORIZON, _FIT = "convergence", "gradient-horizons", "fit"
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
    "model-errors": "gradlab train --two-model, or ddppo, of every run",
    "error-horizon": "gradlab train --gradient-every N, of rows with a learned model",
    "fit-errors": "gradlab fit --jacobians of every model",
    "return-horizons": "runs of gradlab train --horizons H with several H",
    "loss-settings": "runs of gradlab train ddppo with several --neighbours or --loss-weight",
    "return_over_updates": "gradlab measure, without --no-rehearsal",
    "decay": "gradlab measure --also decay",
    "loss-surface": "gradlab measure --surface H …, such as --surface 3 15",
}  # fmt: skip


def convergence(runs: dict[str, Training], ax: Axes | None = None) -> Axes:
    """Iterations to each goal, a point per seed and a bar at their median (MPG, Figs. 3b and 4b).

    A seed that never reaches a goal stands at the top, open; a median among these has no bar.
    """
    ax = style.new_axes() if ax is None else ax
    goals = GOALS[next(iter(runs.values())).task]
    longest = max(int(run.iteration[-1]) for run in runs.values())
    never, highest = 1.06 * longest, 0.0
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
            cell = printed(RETURNS, runs[name].task, runs[name].name).get(
                f"paper: to {goal:g}", "–"
            )
            if cell.isdigit():
                highest = max(highest, float(cell))
                ax.plot(x, float(cell), "x", color=style.INK, markersize=7, zorder=3)
            if np.isfinite(middle := float(np.median(np.where(met, first, np.inf)))):
                ax.hlines(middle, x - 0.3 / len(runs), x + 0.3 / len(runs), color=look.colour)
    ax.axhline(1.03 * longest, color=style.MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    notes = [
        "a point: a seed; a line: their median; open, above the dashed line: never in this run"
    ]
    if highest:
        ax.plot([], [], "x", color=style.INK, markersize=7, linestyle="", label="the paper's mean")
    style.dress(ax, "Iterations to each goal", "iterations", notes)
    ax.set_xlabel("mean return of the evaluation episodes", color=style.INK)
    ax.set_xticks(range(len(goals)), [style.tick(goal) for goal in goals])
    ax.set_ylim(-0.02 * longest, max(1.1 * longest, 1.05 * highest))
    return ax


def chosen(name: str, paths: Sequence[Path]) -> Panel:
    """The figure called `name`, with a note where the runs are of several commits."""
    if not paths:
        raise InputError("runs are missing: name at least one RUN.h5")
    files = [file for path in paths for file in kinds.files(path)]
    own = _own(files)
    if name in own:
        found = own[name]()
    else:
        if {journal.kind(file) for file in files} == {_FIT}:
            raise InputError(f"name is {name!r}, but of fits there is fit-errors{_needs(name)}")
        page = kinds.page_of(paths[0]) if len(paths) == 1 else kinds.compared(paths)[0]
        every = {each.name: each for each in page.panels}
        if name not in every:
            names = ", ".join([*every, *own])
            raise InputError(f"name is {name!r}, but these runs have {names}{_needs(name)}")
        found = every[name]
    if words := mixed(files):
        above = found.figure
        if title := above.get_suptitle():
            curves.headed(above, f"{' '.join(title.split())}; {words}", 10)
        else:
            above.suptitle(words, x=0.995, ha="right", fontsize=7, color=style.MUTED)
    return found


def mixed(files: Sequence[Path]) -> str:
    """That runs are of several commits; "" where they are not."""
    written = [records.attributes(path) for path in files if path.is_file()]
    commits = sorted({str(each["commit"])[:8] for each in written if each.get("commit")})
    return f"runs of several commits: {', '.join(commits)}" if len(commits) > 1 else ""


def training_runs(paths: Sequence[Path]) -> dict[str, Training]:
    """Runs by name, those of a sweep for its folder."""
    if not paths:
        raise InputError("runs are missing: name at least one RUN.h5")
    files = [file for path in paths for file in kinds.files(path)]
    return loaded(files) if len(files) > 1 else {(run := load(files[0])).name: run}


def _needs(name: str) -> str:
    return f"; {name} needs {OPTIONS[name]}" if name in OPTIONS else ""


def _own(paths: Sequence[Path]) -> dict[str, Callable[[], Panel]]:
    """The figures that no page has, by name: those for which these training runs have columns."""
    found = {journal.kind(path) for path in paths}
    if found == {_FIT}:
        fits = {path.stem: records.read(path) for path in paths}
        if not all("jacobian_error" in fit.groups["curves"] for fit in fits.values()):
            return {}
        caption = "Small errors of the prediction need not be small errors of the Jacobian."
        draw = partial(curves.fit_errors, fits=fits)
        return {"fit-errors": partial(Panel, "fit-errors", "", caption, draw)}
    if found == {kinds.PROFILE}:
        profiles = {path.stem: load_profile(path) for path in paths}
        if any(each.surface is None for each in profiles.values()):
            return {}
        draw = partial(curves.loss_surface, runs=profiles)
        caption = "Roughness: mean second difference in shares of the range."
        return {"loss-surface": partial(Panel, "loss-surface", "", caption, draw)}
    if found != {KIND}:
        return {}
    runs = training_runs(paths)
    own: dict[str, Callable[[], Panel]] = {}
    if next(iter(runs.values())).task in GOALS:
        caption = "A point is a seed, a line their median."
        own[_SPEEDS] = lambda: panel(
            _SPEEDS, "Does it learn?", caption, lambda ax: convergence(runs, ax)
        )
    every = list(runs.values())
    cells: dict[str, tuple[str, Callable[[Figure], object]]] = {}
    if all(len(run.gradients.get("iteration", ())) for run in every):
        caption = "Pale at first, full at the end."
        cells[_BY_HORIZON] = caption, partial(curves.gradient_horizons, runs=runs)
        if all(np.isfinite(run.gradients.get("bias2_states", np.nan)).any() for run in every):
            caption = "What the critic alone leaves, and what the model adds, over H."
            cells["error-horizon"] = caption, partial(curves.error_by_horizon, runs=runs)
    if all("transitions" in run.evaluations for run in every):
        caption = "The paper's curves: over transitions, the mean of the seeds."
        whole = {next(iter(every)).task: runs}
        for name, groups in (
            ("learning-curves", whole), ("return-horizons", curves.by_horizon(runs)),
            ("loss-settings", curves.by_loss(runs)),
        ):  # fmt: skip
            if groups:
                cells[name] = caption, partial(curves.learning_curves, groups=groups)
    if all("gradient_explained" in run.model for run in every):
        caption = "One step, after every fit."
        cells["model-errors"] = caption, partial(curves.model_errors, runs=runs)
    return own | {name: partial(Panel, name, "", *each) for name, each in cells.items()}


def sized(figure: Figure, width: str | None) -> None:
    """At the width of a paper's column; of several axes, in its smallest text."""
    if width is None:
        return
    validation.word("width", width, tuple(INCHES))
    if len(figure.axes) == 1:
        column(figure.axes[0], width)  # type: ignore[arg-type]
        return
    every = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    shown = [ax for ax in every if ax.get_visible()]
    grid = shown[0].get_gridspec()
    across = min(grid.ncols, int(INCHES[width] / 1.6)) if grid else 1
    down = -(-len(shown) // across)
    if grid and len(shown) == len(every) and across < grid.ncols:
        cells = figure.add_gridspec(down, across)
        for k, ax in enumerate(shown):
            ax.set_subplotspec(cells[k // across, k % across])
    entries = 0
    for legend in list(figure.legends):
        labels = [text.get_text() for text in legend.get_texts()]
        columns = 1 if INCHES[width] < 4 else 2
        entries += -(-len(labels) // columns)
        curves.legend_below(figure, legend.legend_handles, labels, columns, 7)  # type: ignore[arg-type]
    figure.set_size_inches(INCHES[width], 1.5 * down + 0.6 + 0.15 * entries)
    for text in figure.findobj(Text):
        text.set_fontsize(min(text.get_fontsize(), 7))
    for line in (line for ax in shown for line in ax.lines):
        line.set(linewidth=0.7 * line.get_linewidth(), markersize=0.6 * line.get_markersize())
    if title := figure.get_suptitle():
        curves.headed(figure, " ".join(title.split()), 7)


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
