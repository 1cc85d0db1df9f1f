"""The page of two measurements side by side, or of several, each with the first: verdict, what
changed by how much, every number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from gradlab import validation
from gradlab.errors import InputError
from gradlab.figures import drawing, style
from gradlab.figures.plots import lines
from gradlab.reporting import shell
from gradlab.reporting.page import Page, Panel, Section, folded, method, panel
from gradlab.reporting.shell import tables
from gradlab.runs.comparison import Comparison, compared
from gradlab.runs.profile import load
from gradlab.verdicts.comparison import each_with_first, screen
from gradlab.verdicts.phrases import capital

_ERROR = "Error"
_PARTS = "What it is made of"
_NAMES = {
    "mse": "mean squared error",
    "bias2": "squared bias",
    "variance": "variance",
    "cosine": "cosine with the truth",
}
_RATIO = ("ratio", "ratio_low", "ratio_high")
_DIFFERENCE = ("difference", "ci_low", "ci_high")


def _panels(comparison: Comparison) -> list[Panel]:
    """Errors first, then bias, variance and direction."""
    table, names = comparison.table(), comparison.names
    drawn = {
        "mse-ratio": ("mse", _ERROR, "Where the band is off 1, the change is more than chance.",
                      ratio),
        "mse": ("mse", _ERROR, "Its difference.", difference),
        "bias2": ("bias2", _PARTS, "Squared bias.", difference),
        "variance": ("variance", _PARTS, "Variance of one sample.", ratio),
        "cosine": ("cosine", _PARTS, "Cosine with the truth.", difference),
    }  # fmt: skip
    return [
        panel(name, section, caption, draw, table, quantity=quantity, names=names)
        for name, (quantity, section, caption, draw) in drawn.items()
        if (table["quantity"] == quantity).any()
    ]


def of_files(paths: Sequence[str | Path]) -> tuple[Page, pd.DataFrame]:
    """The page of two measurements, or of several, each with the first, and the table behind it."""
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
    table = pd.concat([pair.table().assign(run=pair.names[1]) for pair in pairs])
    if len(others) == 1:
        return _two(pairs[0]), table.drop(columns="run")
    return _several(pairs, refused), table


def _several(pairs: Sequence[Comparison], refused: Mapping[str, str]) -> Page:
    """Each pair in a section of its own: sentences, and every number.

    Args:
        refused: name → why that measurement cannot be compared.
    """
    first, sections = pairs[0].names[0], []
    for pair in pairs:
        against = screen(pair)
        texts = [f"{capital(each.name)}: {each.text}." for each in against.fields]
        lines = (*texts, *(each.said for each in against.rest))
        sections.append(Section(pair.names[1], lines, tables(pair.table()), against.lit))
    if refused:
        lines = tuple(f"{name}: {why}" for name, why in refused.items())
        sections.append(Section("Not compared", lines, opened=True))
    counts = {"compared with it": len(pairs), "not compared": len(refused) or None}
    others = pairs[0].names[1] if len(pairs) == 1 else f"{len(pairs)} others"
    return Page(
        f"{first} and {others}", "Which change did what?", _facts(pairs[0]) | counts,
        each_with_first(pairs), sections=tuple(sections),
    )  # fmt: skip


def _two(pair: Comparison) -> Page:
    A, B = (escape(each) for each in pair.names)
    drawn = tuple(_panels(pair))
    numbers = f"<p>First: {A}, second: {B}.</p>{tables(pair.table())}"
    measured = dict(zip(pair.names, (pair.first.config, pair.second.config), strict=True))
    sections = (
        *folded("Figures", drawn),
        Section("Every number", body=numbers),
        replace(method(None, measured), title="How both were measured"),
    )
    first, second = (config.get("starts") for config in measured.values())
    counts = {
        "second": pair.names[1],
        "gradients": first if first == second else f"{first} and {second}",
        "paired": "no" if pair.unpaired else "yes",
    }
    title, question = " and ".join(pair.names), "What did the change do?"
    return Page(title, question, _facts(pair) | counts, screen(pair), drawn, sections)


def _facts(pair: Comparison) -> dict[str, object]:
    config = pair.first.config
    policy = shell.short(config.get("policy_hash"))
    return {"task": config.get("task"), "policy": policy, "first": pair.names[0]}


def ratio(
    table: pd.DataFrame, ax: Axes | None = None, *, quantity: str = "mse", names: tuple[str, str]
) -> Axes:
    """B over A of every estimator, with its band; 1 is no change."""
    title, larger = _titles(quantity, names, "over")
    return lines(
        table, ax, title, "ratio", quantity=quantity, columns=_RATIO, notes=[f"above 1: {larger}"],
        then=drawing.ratio_axis, empty="not known to be above 0 in both",
    )  # fmt: skip


def difference(
    table: pd.DataFrame,
    ax: Axes | None = None,
    *,
    quantity: str = "bias2",
    names: tuple[str, str],
) -> Axes:
    """B less A of every estimator, with its band; 0 is no change."""
    title, larger = _titles(quantity, names, "less")
    unit = "" if quantity == "cosine" else " [(return / parameter)²]"
    sizes = table[table["quantity"] == quantity]["difference"].abs().to_numpy(float)
    return lines(
        table, ax, title, f"difference{unit}", quantity=quantity, columns=_DIFFERENCE, level=0,
        notes=[f"above 0: {larger}"], then=partial(drawing.bent, sizes=sizes),
        empty="not measured in both",
    )  # fmt: skip


def _titles(quantity: str, names: tuple[str, str], joined: str) -> tuple[str, str]:
    """Of a figure, and what its upper half means."""
    validation.word("quantity", quantity, _NAMES)
    A, B = (style.plain(each) for each in names)
    return f"{_NAMES[quantity].capitalize()}: {B} {joined} {A}", f"{B} is larger; band: 95%"
