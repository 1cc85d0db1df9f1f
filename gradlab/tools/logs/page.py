"""The page of logs and a model: what the data support, how noisy they are."""

from __future__ import annotations

from math import inf

import pandas as pd

from gradlab.figures.plots import Series, bars, lines, rooted, rows, scaled
from gradlab.figures.style import BLUE, MUTED, PURPLE, VERMILION, Look
from gradlab.reporting.long_page import Plot, drawn, each, long_page
from gradlab.reporting.output import Kind
from gradlab.reporting.page import NOWHERE, Page, PageSource
from gradlab.tools.logs.findings import SUPPORTED, TOLERANCE, LogsRun, advice

_SCORES = {
    "same": Look("score of the same return", BLUE, "-", "o"),
    "whole": Look("score of the whole return", VERMILION, (0, (5, 1.6)), "s"),
}
_GRADIENTS = {
    "model": Look("model", BLUE, "-", "o"),
    "score": Look("score", VERMILION, (0, (5, 1.6)), "s"),
}
_CRITICS = Look("between critics", PURPLE, "-", "D")
_ERROR = Look("error of derivatives", BLUE, "-", "o")
_FLOOR = Look("noise among what neighbours show", MUTED, "-", "s")
_MOST = 10.0  # times the score, beyond which a difference is drawn there
_SUPPORT = "What the data support"
_NOISE = "How much the data can tell"
_MODEL = "The model by itself"
_SECTIONS = {
    "agreement": "Model against score",
    "gradient": "Gradients",
    "policy": "The policy's noise",
    "critic": "Critics",
    "direction": "Derivatives against neighbours",
}


def _between(table: pd.DataFrame) -> Series:
    """How far critics make the model's mean gradient differ, as a share of its norm."""
    between = rows(table, "gradient", "variance_critics", block="model")
    norms = rows(table, "gradient", "mean_norm", block="model").set_index("step")["value"]
    norm = between["step"].map(norms.where(norms > 0))
    return {_CRITICS: rooted(scaled(between, 1 / norm**2))}


PLOTS = (
    Plot("agreement", _SUPPORT, "Supported below the line.", lines,
         "Does the model's gradient agree with the score?", "|E model − E score| / |E score|",
         each(_SCORES, "agreement", "relative_bias2", rooted),
         {"level": TOLERANCE, "log": True, "decades": 6, "percent": True,
          "limits": (-inf, _MOST)}),
    Plot("referee", _NOISE, "A score above the line can judge.", lines,
         "How well the mean of these data is known", "cosine",
         each(_GRADIENTS, "gradient", "cosine_self"), {"level": SUPPORTED}),
    Plot("noise", _NOISE, "A straight rise is an explosion.", lines, "How noisy each gradient is",
         "variance [(return / parameter)²]", each(_GRADIENTS, "gradient", "variance"),
         {"log": True, "decades": 6}),
    Plot("critics", _NOISE, "The same data, other critics.", lines, "Where the critics disagree",
         "share of the gradient's norm", _between, {"percent": True}),
    Plot("direction", _MODEL, "Where to refit.", bars,
         "The model's derivatives against neighbours", "share",
         lambda table: {_ERROR: rooted(rows(table, "direction", "error")),
                        _FLOOR: rows(table, "direction", "noise")},
         {"along": "output", "level": 1.0, "percent": True, "least": 0.0}),
)  # fmt: skip


def page(run: LogsRun, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of logs shows; `name` is its title where no task is known."""
    facts: dict[str, object] = dict.fromkeys(("critics", "trajectories", "transitions", "discount"))
    facts["model"] = run.config.get("model_file") or run.config.get("model") or "none"
    question = "What do logs say of this policy gradient?"
    panels = drawn(PLOTS, run.table())
    return long_page(run, question, advice(run), panels, _SECTIONS, facts, source, name)


KIND = Kind(page, advice)
