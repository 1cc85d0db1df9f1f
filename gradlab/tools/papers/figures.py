"""One figure or table of the papers from runs: a panel of their page by its name or one of its own,
and the papers' tables with the printed numbers beside.

table-returns    last returns, iterations to each goal       MPG, Table I
table-times      seconds of 1,000 transitions by part        MAAC, Table 1
table-planning   returns with and without a plan             MAAC, Table 2
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab import validation
from gradlab.errors import InputError
from gradlab.figures import style
from gradlab.figures.style import INCHES, column
from gradlab.reporting import output
from gradlab.reporting.page import Panel
from gradlab.runs.run import load as load_run
from gradlab.runs.training.results import (
    GOALS,
    KIND,
    Floats,
    Training,
    first_reached,
    load,
    loaded,
    table,
)
from gradlab.statistics.over_groups import student_mean
from gradlab.storage import journal
from gradlab.tools.papers import curves
from gradlab.tools.papers.published import RETURNS, printed

_SPEEDS, _FIT = "convergence", "fit"
_EPOCH = 1000  # transitions of one row of seconds
_LOGS_PLANS = "`gradlab train --plan-horizon H`"
_FORMATS = (".png", ".pdf", ".svg")


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
            cells = printed(RETURNS, runs[name].task, runs[name].name)
            if (cell := cells.get(f"paper: to {goal:g}", "–")).isdigit():
                highest = max(highest, float(cell))
                ax.plot(x, float(cell), "x", color=style.INK, markersize=7, zorder=3)
            if np.isfinite(middle := float(np.median(np.where(met, first, np.inf)))):
                ax.hlines(middle, x - 0.3 / len(runs), x + 0.3 / len(runs), color=look.colour)
    ax.axhline(1.03 * longest, color=style.MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
    if highest:
        ax.plot([], [], "x", color=style.INK, markersize=7, linestyle="", label="the paper's mean")
    style.dress(ax, "Iterations to each goal", "iterations", ["open, above the dashed line: never"])
    ax.yaxis.set_major_formatter(style.THOUSANDS)
    ax.set_xlabel("mean return of the evaluation episodes", color=style.INK)
    ax.set_xticks(range(len(goals)), [style.tick(goal) for goal in goals])
    ax.set_ylim(-0.02 * longest, max(1.1 * longest, 1.05 * highest))
    return ax


def chosen(name: str, paths: Sequence[Path]) -> Panel:
    """The figure called `name`."""
    files = _files(paths)
    kinds = {journal.kind(file) for file in files}
    kind = kinds.pop() if len(kinds) == 1 else ""
    own = _OWN.get(kind, {})
    runs = _loaded(kind, files) if own else {}
    shown = {key: known for key, each in own.items() if (known := each.shown(runs))}
    if name in shown:
        caption = "A point is a seed, a line their median." if name == _SPEEDS else ""
        size = style.SIZE if name == _SPEEDS else None
        row, drawn = own[name], shown[name]
        found = Panel(
            name, "", caption, lambda figure: row.draw(figure, drawn), row.table(runs), size
        )
        return found
    every: dict[str, Panel] = {}
    if kind != _FIT:
        page = output.page_of(paths[0]) if len(paths) == 1 else output.compared(paths)[0]
        every = {each.name: each for each in page.panels}
    if name not in every:
        names = ", ".join([*every, *shown]) or "no figure"
        raise InputError(f"name is {name!r}, but these runs have {names}: see docs/papers.md")
    return every[name]


def training_runs(paths: Sequence[Path]) -> dict[str, Training]:
    """Runs by name, those of a sweep for its folder."""
    files = _files(paths)
    return loaded(files) if len(files) > 1 else {(run := load(files[0])).name: run}


def _files(paths: Sequence[Path]) -> list[Path]:
    if not paths:
        raise InputError("runs are missing: name at least one RUN.h5")
    return [file for path in paths for file in output.files(path)]


class _OwnFigure(NamedTuple):
    """A figure that no page has.

    Attributes:
        shown: what of the runs is drawn, nothing where one lacks it.
        draw: of a figure and what is shown; table: of all runs.
    """

    shown: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    draw: Callable[[Figure, Any], object]
    table: Callable[[Any], pd.DataFrame]


def _all(has: Callable[[Any], Any]) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """The runs, where every one has it."""
    return lambda runs: runs if all(has(run) for run in runs.values()) else {}


def _rows_of(group: str) -> Callable[[Mapping[str, Any]], pd.DataFrame]:
    """One group of every run, as a table."""
    return lambda runs: pd.concat([run.table(group).assign(run=x) for x, run in runs.items()])


_counted = _all(lambda run: "transitions" in run.evaluations)
_measured = _all(lambda run: len(run.gradients.get("iteration", ())))
_parted = _all(lambda run: np.isfinite(run.gradients.get("bias2_states", np.nan)).any())
_learned = curves.learning_curves, _rows_of("evaluations")
_OWN: Mapping[str, Mapping[str, _OwnFigure]] = {
    _FIT: {"fit-errors": _OwnFigure(
        _all(lambda fit: "jacobian_error" in fit.record.groups["curves"]),
        curves.fit_errors, _rows_of("curves"),
    )},
    output.PROFILE: {"loss-surface": _OwnFigure(
        _all(lambda run: run.surface is not None), curves.loss_surface, _rows_of("surface"),
    )},
    KIND: {
        _SPEEDS: _OwnFigure(_all(lambda run: run.task in GOALS),
            lambda figure, runs: convergence(runs, figure.add_subplot()), table),
        "gradient-horizons": _OwnFigure(
            _measured, curves.gradient_horizons, _rows_of("gradients")
        ),
        "error-horizon": _OwnFigure(
            lambda runs: _measured(runs) and _parted(runs),
            curves.error_by_horizon, _rows_of("gradients"),
        ),
        "learning-curves": _OwnFigure(
            lambda runs: {run.task: runs for run in _counted(runs).values()}, *_learned
        ),
        "return-horizons": _OwnFigure(lambda runs: curves.by_horizon(_counted(runs)), *_learned),
        "loss-settings": _OwnFigure(lambda runs: curves.by_loss(_counted(runs)), *_learned),
        "model-errors": _OwnFigure(
            _all(lambda run: "gradient_explained" in run.model),
            curves.model_errors, _rows_of("model"),
        ),
    },
}  # fmt: skip


def _loaded(kind: str, files: Sequence[Path]) -> Mapping[str, Any]:
    """The runs of one kind by name."""
    if kind == KIND:
        return training_runs(files)
    return {path.stem: load_run(path) for path in files}


def sized(figure: Figure, width: str | None) -> None:
    """At the width of a paper's column; several axes keep their proportions."""
    if width is None:
        return
    validation.word("width", width, tuple(INCHES))
    if len(figure.axes) == 1:
        column(figure.axes[0], width)  # type: ignore[arg-type]
    else:
        wide, high = figure.get_size_inches()
        figure.set_size_inches(INCHES[width], high * INCHES[width] / wide)


def save(panel: Panel, target: Path) -> pd.DataFrame:
    """Writes the figure, and beside it (.csv) the table that it is drawn from; returns the table.

    Raises:
        InputError: a name with another ending, or a folder that cannot be written.
    """
    if target.suffix not in _FORMATS:
        raise InputError(f"output is {target}, expected one of {', '.join(_FORMATS)}")
    with (
        _folder_of(target),
        matplotlib.rc_context({"pdf.fonttype": 42, "svg.fonttype": "none"}),
    ):
        panel.figure.savefig(target, dpi=200, facecolor="white")
        panel.table.to_csv(target.with_suffix(".csv"), index=False)
    return panel.table


@contextmanager
def _folder_of(target: Path) -> Iterator[None]:
    """Makes it, and refuses what cannot be written into it."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise InputError(f"output is {target}, which cannot be written ({error})") from error


def returns(runs: Mapping[str, Training]) -> pd.DataFrame:
    """Ours beside the paper's, a row for every run.

    Returns:
        row, iterations, seeds, hours; last return, its median (a seed without one, as after a
        division by 0, is the worst), its mean with Student's 95% interval as the paper has it, and
        every seed's; the median iteration to each goal, and how many seeds reach it; the paper's
        cells as "paper: …".
    """
    rows = []
    for name, run in runs.items():
        last = np.sort(np.nan_to_num(run.returns[-1], nan=-np.inf))[::-1]
        found: dict[str, object] = {
            "row": name, "iterations": int(run.iteration[-1]), "seeds": len(run.seeds),
            "hours": round(float(run.seconds[-1]) / 3600, 2),
            "median return": _return(float(np.median(last))),
            "mean ± 95%": _mean(last),
            "every seed": ", ".join(map(_return, last)),
        }  # fmt: skip
        for goal in GOALS.get(run.task, ()):
            found[f"to {goal:g}"] = reached(run, goal)
        rows.append(found | printed(RETURNS, run.task, run.name))
    return pd.DataFrame(rows).fillna("–")


def _return(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else "lost"


def _mean(values: Floats) -> str:
    """– where a seed is lost or alone."""
    if len(values) < 2 or not np.isfinite(values).all():
        return "–"
    mean = student_mean(values)
    half = mean.high - mean.value
    return f"{mean.value:.3g} ± {half:.{2 if half < 100 else 3}g}"


def reached(run: Training, goal: float) -> str:
    """Median iteration to the goal over all seeds, those that never reach it the slowest, and how
    many do; – for a median among these."""
    first = first_reached(run, goal)
    met = np.isfinite(first)
    middle = np.median(np.where(met, first, np.inf))
    shown = f"{middle:.0f}" if np.isfinite(middle) else "–"
    return f"{shown} ({met.sum()} of {len(first)})" if met.any() else "–"


def times(runs: Mapping[str, Training]) -> pd.DataFrame:
    """Seconds of one seed and 1,000 transitions where it ran: whole, fits of the model, roll-outs
    that fill a replay, updates of critic and policy, and the rest (environments, evaluations)."""
    rows = []
    for name, run in runs.items():
        transitions, updates = run.evaluations.get("transitions"), run.updates
        if transitions is None or "critic_seconds" not in updates:
            raise InputError(f"table-times needs the seconds of every part, which {name} has not")
        made = np.diff(updates["iteration"], prepend=0)
        delay = int(run.config["algorithm"]["delay"])
        parts = {
            "fits": float(np.sum(run.model.get("seconds", 0.0))),
            "roll-outs": float(np.sum(run.rollouts.get("seconds", 0.0))),
            "critic": float(made @ np.nan_to_num(updates["critic_seconds"])),
            "policy": float(made @ np.nan_to_num(updates["policy_seconds"])) / delay,
        }
        whole = float(run.seconds[-1])
        of = _EPOCH / float(transitions[-1]) / len(run.seeds)
        cells = {"whole": whole} | parts | {"rest": max(whole - sum(parts.values()), 0.0)}
        shown = {f"{part} [s]": f"{of * value:.3g}" for part, value in cells.items()}
        rows.append(
            {"row": name, "task": run.task} | shown | printed("table-times", run.task, run.name)
        )
    return pd.DataFrame(rows).fillna("–")


def planning(runs: Mapping[str, Training]) -> pd.DataFrame:
    """Last returns with and without a plan from the same starts, mean and standard deviation of
    the seeds, and the gain with its standard error."""
    rows = []
    for name, run in runs.items():
        columns = run.evaluations
        if not np.isfinite(columns.get("planned_return_mean", np.array([np.nan]))[-1]).any():
            raise InputError(f"table-planning needs {_LOGS_PLANS}, which {name} has not")
        planned, gain = columns["planned_return_mean"][-1], columns["planned_gain_mean"][-1]
        own = columns["planned_gain_se"][-1]
        error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else float(own[0])
        found = {
            "row": name, "task": run.task, "seeds": len(run.seeds),
            "with plan": _spread(planned), "without": _spread(planned - gain),
            "gain": f"{gain.mean():.3g} ± {error:.2g}",
        }  # fmt: skip
        rows.append(found | printed("table-planning", run.task, run.name))
    return pd.DataFrame(rows).fillna("–")


TABLES: Mapping[str, Callable[[Mapping[str, Training]], pd.DataFrame]] = {
    RETURNS: returns, "table-times": times, "table-planning": planning,
}  # fmt: skip


def _spread(values: Floats) -> str:
    return (
        f"{values.mean():.3g} ± {values.std(ddof=1):.2g}" if len(values) > 1 else f"{values[0]:.3g}"
    )


def write(table: pd.DataFrame, target: Path) -> list[str]:
    """As Markdown and CSV beside each other; the names of the files."""
    texts = {".md": markdown(table), ".csv": table.to_csv(index=False)}
    with _folder_of(target):
        for suffix, text in texts.items():
            target.with_suffix(suffix).write_text(text, encoding="utf-8")
    return [str(target.with_suffix(suffix)) for suffix in texts]


def markdown(table: pd.DataFrame) -> str:
    """As a table of Markdown."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).values.tolist()]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines) + "\n"
