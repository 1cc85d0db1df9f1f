"""The page of two measurements side by side, or of several, each with the first: verdict, what
changed by how much, every number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path

import pandas as pd

from gradlab.errors import InputError
from gradlab.figures import comparison as figures
from gradlab.reporting import shell
from gradlab.reporting.numbers import quantity
from gradlab.reporting.page import NOWHERE, Page, PageSource, Section, folded
from gradlab.reporting.panels import Panel, panel
from gradlab.runs.comparison import Comparison, compared
from gradlab.runs.profile import load
from gradlab.verdicts.comparison import each_with_first, screen
from gradlab.verdicts.screen import unsaid

_ERROR = "Error"
_PARTS = "What it is made of"
_HEADINGS = {
    "estimator": "estimator",
    "horizon": "horizon",
    "first": "first",
    "second": "second",
    "difference": "difference",
    "ci_low": "95 % from",
    "ci_high": "to",
    "ratio": "ratio",
    "ratio_low": "95 % from",
    "ratio_high": "to",
    "n": "n",
}


def _panels(comparison: Comparison) -> list[Panel]:
    """Errors first, then bias, variance and direction."""
    table, names = comparison.table(), comparison.names
    drawn = {
        "mse-ratio": ("mse", _ERROR, "Where the band is off 1, the change is more than chance.",
                      figures.ratio),
        "mse": ("mse", _ERROR, "The same as a difference.", figures.difference),
        "bias2": ("bias2", _PARTS, "Squared bias: what no number of samples removes.",
                  figures.difference),
        "variance": ("variance", _PARTS, "Variance of one sample; a batch of N′ divides it.",
                     figures.ratio),
        "cosine": ("cosine", _PARTS, "Direction: cosine of the mean gradient with the truth.",
                   figures.difference),
    }  # fmt: skip
    return [
        panel(name, section, caption, partial(draw, table, quantity=quantity, names=names))
        for name, (quantity, section, caption, draw) in drawn.items()
        if (table["quantity"] == quantity).any()
    ]


def of_files(paths: Sequence[str | Path]) -> tuple[Page, pd.DataFrame]:
    """The page of two measurements, or of several, each with the first, and the table behind it.

    Raises:
        InputError: fewer than two measurements, or none that can be compared with the first.
    """
    if len(paths) < 2:
        raise InputError(f"compare got {len(paths)} measurements, expected two or more")
    stems = [Path(path).stem for path in paths]  # without folders where these are distinct
    first, *others = stems if len(set(stems)) == len(stems) else [str(Path(p)) for p in paths]
    profile, pairs, refused = load(paths[0]), [], {}
    for name, path in zip(others, paths[1:], strict=True):
        try:
            pairs.append(compared(profile, load(path), (first, name)))
        except InputError as error:
            if len(others) == 1:
                raise
            refused[name] = str(error)
    if not pairs:
        raise InputError(f"no run can be compared with {first}: {next(iter(refused.values()))}")
    if len(others) == 1:
        return _page(pairs[0], f"{first} and {others[0]}"), pairs[0].table()
    table = pd.concat([pair.table().assign(run=pair.names[1]) for pair in pairs])
    return _several(pairs, refused), table


def _several(pairs: Sequence[Comparison], refused: Mapping[str, str]) -> Page:
    """What the page of several measurements shows, each compared with the first.

    Args:
        refused: name → why that measurement cannot be compared.
    """
    first = pairs[0].names[0]
    sections = []
    for pair in pairs:  # sentences, and every number folded
        against = screen(pair)
        texts = [against.headline, *unsaid([each.text for each in against.rest], against.headline)]
        lines = tuple(text for text in texts if text)
        sections.append(Section(pair.names[1], lines, _tables(pair.table()), against.sure))
    if refused:
        lines = tuple(f"{name}: {why}" for name, why in refused.items())
        sections.append(Section("Not compared", lines, opened=True))
    facts = {
        "task": pairs[0].first.config.get("task"),
        "policy": shell.short(pairs[0].first.config.get("policy_hash")),
        "first": first,
        "compared with it": len(pairs),
        "not compared": len(refused) or None,
    }
    question = "Which change did what?"
    others = pairs[0].names[1] if len(pairs) == 1 else f"{len(pairs)} others"
    return Page(f"{first} and {others}", question, facts, each_with_first(pairs), (),
                tuple(sections))  # fmt: skip


def _page(comparison: Comparison, title: str, source: PageSource = NOWHERE) -> Page:
    """What the page of two measurements shows."""
    A, B = (escape(each) for each in comparison.names)
    drawn = tuple(_panels(comparison))
    numbers = (
        f"<p>Click a heading to sort. first: {A}, second: {B}; difference: second less first.</p>"
        + _tables(comparison.table())
    )
    measured = comparison.first, comparison.second
    columns = "".join(
        f"<div><h3>{escape(name)}</h3>{shell.reproduce(profile.config.get('command'))}"
        f"{shell.definitions({k: v for k, v in profile.config.items() if k != 'command'})}</div>"
        for name, profile in zip(comparison.names, measured, strict=True)
    )
    method = f'<div class="columns">{columns}</div>'
    sections = (
        *folded("Figures", drawn),
        Section("Every number", body=numbers),
        Section("How both were measured", body=method, name="method"),
    )
    first, second = (each.config.get("starts") for each in measured)
    facts = {
        "task": comparison.first.config.get("task"),
        "policy": shell.short(comparison.first.config.get("policy_hash")),
        "first": comparison.names[0],
        "second": comparison.names[1],
        "gradients": first if first == second else f"{first} and {second}",
        "paired": "no" if comparison.unpaired else "yes",
    }
    question = "What did the change do?"
    return Page(title, question, facts, screen(comparison), drawn, sections, source)


def _tables(table: pd.DataFrame) -> str:
    return "\n".join(
        quantity(str(name), rows, _HEADINGS) for name, rows in table.groupby("quantity", sort=False)
    )
