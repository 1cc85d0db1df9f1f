"""The page of logs and a model, and its figures: what the data support, how noisy they are.

Each figure takes the long table of a run of logs (see `gradlab.tools.logs.findings`).
"""

from __future__ import annotations

from math import inf

import pandas as pd
from matplotlib.axes import Axes

from gradlab import figures
from gradlab.figures.plots import lines, marks, rooted, rows, scaled
from gradlab.figures.style import BLUE, MUTED, PURPLE, VERMILION, Look
from gradlab.reporting.output import Kind
from gradlab.reporting.page import (
    NOWHERE,
    Page,
    PageSource,
    Panel,
    Section,
    facts_of,
    folded,
    method_of,
    panel,
)
from gradlab.reporting.shell import tables
from gradlab.tools.logs.findings import SUPPORTED, TOLERANCE, LogsRun, advice

_SAME = Look("score of the same return", BLUE, "-", "o")
_WHOLE = Look("score of the whole return", VERMILION, (0, (5, 1.6)), "s")
_GRADIENTS = {
    "model": Look("model", BLUE, "-", "o"),
    "score": Look("score", VERMILION, (0, (5, 1.6)), "s"),
    "score without baseline": Look("score without baseline", MUTED, (0, (1.2, 1.4)), "^"),
}
_CRITICS = Look("between critics", PURPLE, "-", "D")
_ERROR = Look("error of derivatives", BLUE, "-", "o")
_FLOOR = Look("noise among what neighbours show", MUTED, "-", "s")
_AHEAD = Look("predicted state", BLUE, "-", "o")
_MOST = 10.0  # times the score, beyond which a difference is drawn there


def logged_agreement(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative difference of the model's mean gradient from the score's over the horizon."""
    shown = {
        look: rooted(rows(table, "agreement", "relative_bias2", block=block))
        for look, block in ((_SAME, "same"), (_WHOLE, "whole"))
    }
    return lines(shown, ax, "Does the model's gradient agree with the score?",
                 "|E model − E score| / |E score|", x="step", level=TOLERANCE, log=True, decades=6,
                 percent=True, limits=(-inf, _MOST))  # fmt: skip


def logged_noise(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Variance of one trajectory's gradient, of model and score."""
    shown = {look: rows(table, "gradient", "variance", block=x) for x, look in _GRADIENTS.items()}
    return lines(shown, ax, "How noisy each gradient is", "variance [(return / parameter)²]",
                 x="step", log=True, decades=6)  # fmt: skip


def logged_referee(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Cosine of the mean of all these trajectories with what it estimates."""
    shown = {
        look: rows(table, "gradient", "cosine_self", block=x)
        for x, look in _GRADIENTS.items()
        if x in ("model", "score")
    }
    return lines(shown, ax, "How well the mean of these data is known", "cosine", x="step",
                 level=SUPPORTED)  # fmt: skip


def logged_critics(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """How far critics make the model's mean gradient differ, over the horizon."""
    between = rows(table, "gradient", "variance_critics", block="model")
    norms = rows(table, "gradient", "mean_norm", block="model").set_index("step")["value"]
    norm = between["step"].map(norms.where(norms > 0))
    shown = rooted(scaled(between, 1 / norm**2))
    return lines({_CRITICS: shown}, ax, "Where the critics disagree",
                 "share of the gradient's norm", x="step", percent=True)  # fmt: skip


def logged_direction(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Relative error of directional derivatives per output, and the share of noise."""
    error, floor = (rows(table, "direction", quantity) for quantity in ("error", "noise"))
    return marks(ax, "The model's derivatives against neighbours",
                 {_ERROR: rooted(error), _FLOOR: floor}, "share", along="output", level=1.0,
                 percent=True, least=0.0)  # fmt: skip


def logged_prediction(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Error of the model's path under the recorded actions over the steps."""
    return lines({_AHEAD: rows(table, "prediction", "error")}, ax, "How far the model predicts",
                 "error / change", x="step", along="steps", level=1.0, percent=True,
                 limits=(-inf, 3.0))  # fmt: skip


_SUPPORT = "What the data support"
_NOISE = "How much the data can tell"
_MODEL = "The model by itself"
_SECTIONS = {
    "agreement": "Model against score",
    "gradient": "Gradients",
    "policy": "The policy's noise",
    "critic": "Critics",
    "direction": "Derivatives against neighbours",
    "prediction": "Prediction errors",
}
_FACTS = ("critics", "trajectories", "transitions", "discount")
# Panel: section, caption, section and quantity without which it is left out.
_PANELS = (
    ("agreement", _SUPPORT, "Supported below the line.", "agreement", ""),
    ("referee", _NOISE, "A score above the line can judge.", "gradient", ""),
    ("noise", _NOISE, "A straight rise is an explosion.", "gradient", ""),
    ("critics", _NOISE, "The same data, other critics.", "gradient", "variance_critics"),
    ("direction", _MODEL, "Where to refit.", "direction", ""),
    ("prediction", _MODEL, "At 100% it knows nothing.", "prediction", ""),
)


def panels(run: LogsRun) -> list[Panel]:
    """The figures that have numbers."""
    table = run.table()
    return [
        panel(name, section, caption, getattr(figures, f"logged_{name}"), table)
        for name, section, caption, needed, quantity in _PANELS
        if not run.rows(needed, **({"quantity": quantity} if quantity else {})).empty
    ]


def page(run: LogsRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of logs shows; `name` is its title where no task is known."""
    drawn, config = tuple(panels(run)), run.config
    table = run.table()
    shown = table[table["section"].isin(_SECTIONS)]
    sections = (
        *folded("Figures", drawn),
        Section("Numbers", body=tables(shown, "section", _SECTIONS)),
        method_of(config, run.environment, {"Trajectories left out": run.notes}),
    )
    model = config.get("model_file") or config.get("model") or "none"
    facts = facts_of(run, *_FACTS) | {"model": model}
    title = str(config.get("task") or name)
    question = "What do logs say of this policy gradient?"
    return Page(title, question, facts, advice(run), drawn, sections, source)


KIND = Kind(page, advice)
