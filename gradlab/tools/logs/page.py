"""The page of logs and a model, and its figures: what the data support, how noisy they are.

Each figure takes the long table of a run of logs (see `gradlab.tools.logs.findings`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from gradlab import figures
from gradlab.figures import drawing, style
from gradlab.figures.drawing import Curve
from gradlab.figures.style import INK, MUTED, PAPER, Look
from gradlab.reporting import shell
from gradlab.reporting.output import Kind
from gradlab.reporting.page import (
    NOWHERE,
    Page,
    PageSource,
    Panel,
    Section,
    folded,
    method_of,
    panel,
)
from gradlab.reporting.shell import by_section
from gradlab.tools.logs.findings import LogsRun, advice

_TOLERANCE = 0.5  # of the score: what is called agreement
_SAME = Look("score of the same return", style.BLUE, "-", "o")
_WHOLE = Look("score of the whole recorded return", style.VERMILION, (0, (5, 1.6)), "s")
_MODEL_LOOK = Look("model (recorded states, model Jacobians)", style.BLUE, "-", "o")
_SCORE = Look("score, baseline fitted on other trajectories", style.VERMILION, (0, (5, 1.6)), "s")
_PLAIN = Look("score without baseline", MUTED, (0, (1.2, 1.4)), "^")
_CRITICS = Look("standard deviation between critics / norm", style.PURPLE, "-", "D")
_ERROR = Look("error of derivatives", style.BLUE, "-", "o")
_NOISE_LOOK = Look("noise among what neighbours show", MUTED, "-", "s")
_AHEAD = Look("predicted state", style.BLUE, "-", "o")


def logged_agreement(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative difference of the model's mean gradient from the score's over the horizon."""
    ax = style.new_axes() if ax is None else ax
    drawn = {
        look: _root(line)
        for block, look in (("same", _SAME), ("whole", _WHOLE))
        if (line := _curve(table, "agreement", block, "relative_bias2")) is not None
    }
    notes = []
    if drawn:
        ax.axhline(_TOLERANCE, color=MUTED, lw=1.0)
        notes.append("agreement: the upper end stays below the line at 50 %")
        floor = max(drawing.log_floor(list(drawn.values())), 1e-3)
        for look, line in drawn.items():
            drawing.draw(ax, line, look, floor)
        ax.set_yscale("log")
        ax.set_ylim(floor, max(2.0, min(10.0, ax.get_ylim()[1])))
        if drawing.has_bounds(list(drawn.values())):
            notes.append("open marker with arrow: at most (95 %)")
    else:
        drawing.nothing(ax, "nothing to hold the model's gradient against")
    title = "Does the model's gradient agree with the score?"
    style.dress(ax, title, "|E model − E score| / |E score|", notes)
    return drawing.percent_axis(ax) if ax.lines else ax


def logged_noise(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Variance of one trajectory's gradient, of model and score."""
    ax = style.new_axes() if ax is None else ax
    drawn = [
        (look, line)
        for block, look in (
            ("score without baseline", _PLAIN),
            ("score", _SCORE),
            ("model", _MODEL_LOOK),
        )
        if (line := _curve(table, "gradient", block, "variance")) is not None
    ]
    if drawn:
        floor = drawing.log_floor([line for _, line in drawn])
        for look, line in drawn:
            drawing.draw(ax, line, look, floor)
        ax.set_yscale("log")
    else:
        drawing.nothing(ax, "no gradients")
    unit = "variance [(return / parameter)²]"
    return style.dress(ax, "How noisy each gradient is", unit)


def logged_referee(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Cosine of the mean of all these trajectories with what it estimates."""
    ax = style.new_axes() if ax is None else ax
    drawn = 0
    for block, look in (("score", _SCORE), ("model", _MODEL_LOOK)):
        line = _curve(table, "gradient", block, "cosine_self")
        if line is not None:
            drawing.draw(ax, line, look)
            drawn += 1
    if drawn:
        ax.axhline(0.9, color=MUTED, lw=1.0)
        ax.set_ylim(0, 1.03)
    else:
        drawing.nothing(ax, "no gradients")
    notes = ["noise alone; above 0.9 a score can referee"] if drawn else []
    return style.dress(ax, "How well the mean of these data is known", "cosine", notes)


def logged_critics(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How far critics make the model's mean gradient differ, over the horizon."""
    ax = style.new_axes() if ax is None else ax
    between = _curve(table, "gradient", "model", "variance_critics")
    norm = _curve(table, "gradient", "model", "mean_norm")
    if between is None or norm is None:
        drawing.nothing(ax, "fewer than two critics")
    else:
        norms = dict(zip(norm.horizon.tolist(), norm.value.tolist(), strict=True))
        size = np.array([norms.get(h, np.nan) for h in between.horizon.tolist()]) ** 2
        size = np.where(size > 0, size, np.nan)
        scaled = Curve(
            between.horizon, between.value / size, between.low / size, between.high / size
        )
        drawing.draw(ax, _root(scaled), _CRITICS)
        ax.set_ylim(bottom=0)
    style.dress(ax, "Where the critics disagree", "share of the gradient's norm")
    return drawing.percent_axis(ax) if ax.lines else ax


def logged_direction(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative error of directional derivatives per output, and the share of noise."""
    ax = style.new_axes() if ax is None else ax
    rows = table[(table["section"] == "direction") & (table["output"] != "")]
    names = [str(each) for each in dict.fromkeys(rows["output"])]
    if not names:
        drawing.nothing(ax, "too few trajectories for neighbourhoods")
    for offset, (quantity, look) in enumerate((("error", _ERROR), ("noise", _NOISE_LOOK))):
        chosen = rows[rows["quantity"] == quantity]
        for _, row in chosen.iterrows():
            ends = np.clip(row[["value", "ci_low", "ci_high"]].to_numpy(float), 0.0, 9.0)
            value, low, high = np.sqrt(ends) if quantity == "error" else ends
            y = names.index(str(row["output"])) + (0.14 if offset else -0.14)
            label = look.label if row["output"] == names[0] else None
            ax.plot([low, high], [y, y], color=look.colour, lw=2.2, solid_capstyle="butt")
            fill = look.colour if row["ci_low"] > 0 else PAPER
            ax.plot(
                value, y, look.marker, color=look.colour, markerfacecolor=fill, ms=6, label=label
            )
    style.dress(
        ax,
        "The model's derivatives against neighbours",
        "",
        ["95 % intervals; an open marker is not known to be above 0"] if names else [],
    )
    if names:
        ax.set_yticks(range(len(names)), [style.plain(name) for name in names])
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        ax.set_xlim(left=0)
        ax.axvline(1.0, color=MUTED, lw=0.9)
        ax.grid(False, axis="y")
        ax.set_xlabel("share: of the derivative; of the variance among neighbours", color=INK)
    return ax


def logged_prediction(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Error of the model's path under the recorded actions over the steps."""
    ax = style.new_axes() if ax is None else ax
    line = _curve(table, "prediction", "", "error")
    if line is None:
        drawing.nothing(ax, "no model was given")
        return style.dress(ax, "How far the model predicts", "")
    drawing.draw(ax, line, _AHEAD)
    ax.axhline(1.0, color=MUTED, lw=1.0)
    ax.set_ylim(0, max(1.1, min(3.0, float(np.nanmax(line.high)))))
    notes = ["100 %: the error of predicting no change; process noise included"]
    style.dress(ax, "How far the model predicts", "error / change", notes)
    ax.set_xlabel("steps under the recorded actions", color=INK)
    return drawing.percent_axis(ax) if ax.lines else ax


def _curve(table: pd.DataFrame, section: str, block: str, quantity: str) -> Curve | None:
    """Rows of one block by step, or None where there are none."""
    chosen = (table["section"] == section) & (table["quantity"] == quantity)
    line = drawing.curve_of(table[chosen & (table["block"] == block)], "step")
    return line if np.isfinite(line.value).any() else None


def _root(line: Curve) -> Curve:
    """Of a square; what is estimated at or below 0 stays there, as "at most" its upper end."""
    value = np.where(line.value > 0, np.sqrt(np.abs(line.value)), line.value)
    low, high = (np.sqrt(np.maximum(each, 0.0)) for each in (line.low, line.high))
    return Curve(line.horizon, value, low, high)


_SUPPORT = "What the data support"
_NOISE = "How much the data can tell"
_MODEL = "The model by itself, on these data"
_NUMBERS = "Numbers"
_SECTIONS = {
    "agreement": "The model's gradient against scores",
    "gradient": "Every gradient by itself",
    "policy": "The policy's own noise in the recorded actions",
    "critic": "Critics",
    "direction": "Derivatives against neighbours",
    "prediction": "Prediction errors",
}
_HEADINGS = {
    "block": "gradient",
    "output": "coordinate",
    "step": "horizon or step",
    "quantity": "quantity",
    "value": "value",
    "ci_low": "95 % from",
    "ci_high": "to",
    "n": "n",
    "method": "interval by",
}
_WORDS = """<p>Without a simulator there is no truth, and no bias of the whole gradient. The mean
of a <em>score</em> (likelihood ratio) is the gradient of the recorded return, whatever model and
critic are worth; its noise is large. The <em>model's</em> gradient takes the model's Jacobians at
the recorded states: what it differs by from the score of the same return is their doing. These
data cannot tell what the model would do along its own predictions, nor what the policy would earn
after a step.</p>"""


def panels(run: LogsRun) -> list[Panel]:
    """The figures, those without numbers left out."""
    table, drawn = run.table(), []
    if run.config["stochastic"] and run.config["model"] is not None:
        caption = "Up to where the upper end stays below the line, the data support the model."
        drawn.append(panel("agreement", _SUPPORT, caption, figures.logged_agreement, table))
    if run.config["stochastic"] or run.config["model"] is not None:
        referee = "Below the line the mean of these trajectories is too noisy to judge by."
        noise = "The score's price for being unbiased; a straight rise is an explosion."
        drawn += [
            panel("referee", _NOISE, referee, figures.logged_referee, table),
            panel("noise", _NOISE, noise, figures.logged_noise, table),
        ]
    if run.config["model"] is None:
        return drawn
    if int(run.config["critics"]) > 1:
        critics = "The same data with another critic."
        drawn.append(panel("critics", _NOISE, critics, figures.logged_critics, table))
    direction = "Of the model's slopes, per output; grey: how much of the evidence is noise."
    ahead = "States that differ have other Jacobians: beyond 100 % predictions say nothing."
    return [
        *drawn,
        panel("direction", _MODEL, direction, figures.logged_direction, table),
        panel("prediction", _MODEL, ahead, figures.logged_prediction, table),
    ]


def page(run: LogsRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of logs shows; `name` is its title where no task is known."""
    drawn = tuple(panels(run))
    numbers = "<p>Click a heading to sort.</p>" + by_section(run.table(), _SECTIONS, _HEADINGS)
    sections = (
        *folded(_NUMBERS, drawn),
        Section("How to read it", body=_WORDS),
        Section(
            _NUMBERS,
            body=numbers,
        ),
        method_of(run.config, run.environment, {"What was left out": run.notes}),
    )
    title = str(run.config.get("task") or name)
    question = "What do logs say of this policy gradient?"
    config, environment = run.config, run.environment
    facts = {
        "task": config.get("task"),
        "policy": shell.short(config.get("policy_hash")),
        "model": config.get("model_file") or config.get("model") or "none",
        "critics": config.get("critics"),
        "trajectories": config.get("trajectories"),
        "transitions": config.get("transitions"),
        "discount": config.get("discount"),
        "seed": config.get("seed"),
        "precision": environment.get("precision"),
        "wall time": shell.seconds(environment.get("wall_seconds")),
    }
    return Page(title, question, facts, advice(run), drawn, sections, source)


KIND = Kind(page, advice)
