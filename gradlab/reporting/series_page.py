"""The page of several checkpoints of one training: when data, when model, what the rule says."""

from __future__ import annotations

from functools import partial
from html import escape

import pandas as pd

from gradlab import figures
from gradlab.choice.series import Series
from gradlab.reporting import shell
from gradlab.reporting.first_fold import NOWHERE, Source
from gradlab.reporting.numbers import number
from gradlab.reporting.page import Page, Section, folded
from gradlab.reporting.panels import Panel, panel
from gradlab.verdicts.screen import Screen

SECTION = "Data or model through training"
HEADINGS = ("iteration", "estimator", "horizon", "quantity", "value", "95 % from", "to")


def panels(series: Series, table: pd.DataFrame) -> list[Panel]:
    """Bias and error of J_0 and J_H with their crossing, then weights beside the rule's.

    Args:
        table: that of `series`, whose weights take seconds.
    """
    rule = f"The rule is that of MPG (eq. 10) with T = {series.ramp} iterations."
    errors = figures.errors_through_training
    drawn = {
        "bias2-through-training": ("What no batch removes.", partial(errors, table)),
        "mse-through-training": ("At the batch size N′ of the measurements.",
                                 partial(errors, table, quantity="mse")),
        "weights-through-training": (rule, partial(figures.weights_through_training, table)),
    }  # fmt: skip
    return [panel(name, SECTION, caption, draw) for name, (caption, draw) in drawn.items()]


def page(
    series: Series, table: pd.DataFrame, first: Screen, title: str, source: Source = NOWHERE
) -> Page:
    """What the page of several checkpoints shows."""
    drawn = tuple(panels(series, table))
    sections = (*folded(SECTION, drawn), _numbers(table), _method(series))
    return Page(title, "When data, when model?", _facts(series), first, drawn, sections, source)


def _facts(series: Series) -> dict[str, object]:
    configs = [each.config for each in series.profiles.values()]
    starts = sorted({int(each["starts"]) for each in configs})
    return {
        "task": configs[0].get("task"),
        "checkpoints": len(configs),
        "gradients each": "–".join(str(each) for each in dict.fromkeys((starts[0], starts[-1]))),
        "batch N′": configs[0].get("batch"),
        "rule's T": series.ramp,
    }


def _numbers(table: pd.DataFrame) -> Section:
    """Every number that was measured; the rule's curve is left to its figure."""
    rows = table[table["quantity"] != "weight_rule"]
    head = "".join(
        f'<th scope="col"><button type="button">{heading}</button></th>' for heading in HEADINGS
    )
    body = "\n".join(_row(values) for values in rows.itertuples(index=False))
    shown = (
        '<p>Click a heading to sort.</p><div class="wide"><table class="sortable">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
    return Section("Every number", body=shown)


def _row(values: tuple[object, ...]) -> str:
    texts = "".join(f"<td>{escape(str(each))}</td>" for each in values[:4])
    numbers = "".join(f'<td data-v="{each!r}">{number(each)}</td>' for each in values[4:])
    return f"<tr>{texts}{numbers}</tr>"


def _method(series: Series) -> Section:
    columns = "".join(
        f"<div><h3>Iteration {k}</h3>{shell.reproduce(profile.config.get('command'))}</div>"
        for k, profile in series.profiles.items()
    )
    body = f'<div class="columns">{columns}</div>'
    return Section("How they were measured", body=body, name="method")
