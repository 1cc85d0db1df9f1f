"""The page of a test of remedies: which one to take, what it changes, what it costs, and why."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd

from gradlab import figures
from gradlab.figures.style import SIZE
from gradlab.reporting import shell
from gradlab.reporting.kinds import Kind
from gradlab.reporting.numbers import folded as table_of
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
from gradlab.tools.remedies.figures import QUANTITIES
from gradlab.tools.remedies.findings import advice
from gradlab.tools.remedies.result import ABOUT, Remedies, larger_batches, load

_GAIN = "What each remedy changes, beside what it costs"
_HORIZON = "Over the horizon"
_MODEL = "The models themselves"
_HEADINGS = {
    "arm": "remedy",
    "budget": "budget",
    "block": "block",
    "at": "step or horizon",
    "region": "samples",
    "first": "without",
    "second": "with",
    "difference": "difference",
    "ci_low": "95 % from",
    "ci_high": "to",
    "ratio": "ratio",
    "ratio_low": "95 % from",
    "ratio_high": "to",
    "n": "n",
}
_LEVELS = {"model": "model", "value": "value"} | _HEADINGS


def panels(run: Remedies) -> list[Panel]:
    """Gains beside prices, then what they are made of."""
    table, levels = pd.concat([run.table(), larger_batches(run)], ignore_index=True), run.levels()
    return [
        *_gains(table, levels, int(run.config["horizon"])),
        *_horizons(table, levels),
        *_models(table, levels),
    ]


def page(run: Remedies, source: PageSource = NOWHERE, name: str = "") -> Page:
    """What the page of a test of remedies shows; `name` stands for a task that is not known."""
    drawn = tuple(panels(run))
    arms = {arm: ABOUT.get(arm, "") for arm in run.arms}
    numbers = f"""<p>Click a heading to sort. Every remedy against the baseline under both
budgets:</p>
{_tables(run.table(), _HEADINGS)}
<p>Every model by itself:</p>
{_tables(run.levels(), _LEVELS)}"""
    trials = ""
    for notes in run.notes.get("trials", ()):
        rest, truth = dict(notes), notes.get("truth", {})
        trial = f"Trial {int(rest.pop('trial', 0)) + 1}: truth {truth.get('status')}"
        trials += (
            f"<details><summary>{escape(trial)}</summary>"
            f'<div class="wide">{shell.definitions(rest)}</div></details>'
        )
    sections = (
        *folded("Figures", drawn),
        Section("The remedies", body=shell.definitions(arms)),
        Section("Every number", body=numbers),
        method_of(run.config, run.environment, more=trials),
    )
    title = f"Remedies on {run.config.get('task') or name}"
    question = "Which remedy helps, and what does it cost?"
    config = run.config
    settings = config.get("settings", {})
    members = settings.get("members")
    widths = "×".join(str(each) for each in settings.get("hidden", ()))
    units = f"{widths} {settings.get('activation')} units"  # 64×64 silu units
    facts = {
        "task": config.get("task"),
        "policy": shell.short(config.get("policy_hash")),
        "networks": f"{members} member{'s' * (members != 1)} of {units}",
        "rows of data": config.get("rows"),
        "trials": run.trials,
        "starts per trial": config.get("starts"),
        "horizon": config.get("horizon"),
        "batch N′": config.get("batch"),
        "seed": config.get("seed"),
    }
    return Page(title, question, facts, advice(run), drawn, sections, source)


def _gains(table: pd.DataFrame, levels: pd.DataFrame, H: int) -> list[Panel]:
    captions: list[tuple[str, int | None, str]] = [
        ("least_mse", None, "Filled left of 1: worth its time. Only open: an optimiser's gain."),
        ("mse", H, "The same at the longest horizon; a larger batch stands beside the remedies."),
        ("bias2", H, "No number of samples removes this part of the error."),
        ("variance", H, "More samples divide it: four times the batch, a quarter."),
        ("held_out_mse", None, "The price in prediction: right of 1 the model predicts worse."),
    ]
    far = panel(
        "usable", _GAIN, "How far each model may be unrolled; star: least error.",
        figures.remedy_marks, levels, quantity="usable_horizon", unit="steps",
        beside="best_horizon",
    )  # fmt: skip
    effects = [
        panel(quantity, _GAIN, caption, figures.remedy_effects, table, quantity=quantity, at=at)
        for quantity, at, caption in captions
        if (table["quantity"] == quantity).any()
    ]  # fmt: skip
    return [*effects, far]


def _horizons(table: pd.DataFrame, levels: pd.DataFrame) -> list[Panel]:
    relative, caption = bool((levels["quantity"] == "relative_mse").any()), "Lower is better."
    level: dict[str, Any] = {"quantity": "mse"}
    if relative:  # the truth's norm is known
        level = {"quantity": "relative_mse", "one": "zero gradient: worse above"}
        caption = "Above the line a zero gradient is better."
    ratios = {
        "mse": "Where the band is off 1, the remedy changes the error by more than chance.",
        "bias2": "No number of samples removes this part of the error.",
        "variance": "Exploding chains: a remedy that shortens them falls with the horizon.",
    }
    return [
        panel("levels-error", _HORIZON, caption, figures.remedy_levels, levels, **level),
        *(
            panel(f"horizon-{name}", _HORIZON, horizon_rows, figures.remedy_horizons, table,
                  quantity=name)
            for name, horizon_rows in ratios.items()
        ),
    ]  # fmt: skip


def _models(table: pd.DataFrame, levels: pd.DataFrame) -> list[Panel]:
    blocks = "Points on a clip or in contact, often most of the error, stand apart."
    return [
        panel("prediction", _MODEL, "Open loop: the price of a remedy over many steps.",
              figures.remedy_levels, levels, quantity="prediction_error", along="steps predicted",
              one="as wrong as predicting no change"),
        panel("exponents", _MODEL, "Right of the simulator's the model's chains grow too fast.",
              figures.remedy_marks, levels, quantity="lyapunov", unit="λ per step"),
        panel("jacobians", _MODEL, blocks, figures.remedy_jacobians, table, high=1.4 * SIZE[1]),
    ]  # fmt: skip


def _tables(table: pd.DataFrame, headings: Mapping[str, str]) -> str:
    """A table per quantity, without the columns that say nothing there."""
    tables, quantities = [], list(dict.fromkeys(table["quantity"]))
    order = [name for name in QUANTITIES if name in quantities]
    for name in [*order, *(name for name in quantities if name not in QUANTITIES)]:
        rows = table[table["quantity"] == name]
        kept = {
            column: heading
            for column, heading in headings.items()
            if column in rows
            and not rows[column].isin(["", "all"]).all()
            and not rows[column].isna().all()
        }
        tables.append(table_of(QUANTITIES.get(str(name), str(name)), rows, kept, str(name)))
    return "\n".join(tables)


KIND = Kind(load, page, advice)
