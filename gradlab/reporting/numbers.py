"""Every number as HTML: collapsible, sortable tables, those of a profile one per quantity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

import pandas as pd

from gradlab.statistics.quantities import QUANTITIES

_FIRST = ("gain", "mse", "relative_mse", "bias2", "variance", "cosine")  # in order of use
_HEADINGS = {
    "estimator": "estimator",
    "horizon": "horizon",
    "value": "value",
    "se": "standard error",
    "ci_low": "95 % from",
    "ci_high": "to",
    "n": "n",
    "method": "interval by",
}


def tables(table: pd.DataFrame) -> str:
    """<details> per quantity, the known ones first, closed, each with its formula and source."""
    measured = [str(name) for name in dict.fromkeys(table["quantity"])]
    order = [name for name in (*_FIRST, *QUANTITIES) if name in measured]
    order += [name for name in measured if name not in QUANTITIES]
    order = list(dict.fromkeys(order))
    return "\n".join(quantity(name, table[table["quantity"] == name], _HEADINGS) for name in order)


def quantity(name: str, rows: pd.DataFrame, headings: Mapping[str, str]) -> str:
    """The rows of one quantity under its title, formula and source."""
    row = QUANTITIES.get(name)
    if row is None:
        return folded(name, rows, headings, name)
    unit = f" [{row.unit}]" if row.unit else ""
    about = f"{row.formula}{unit}; {row.source}"
    return folded(row.title, rows, headings, name, about)


def by_section(table: pd.DataFrame, titles: Mapping[str, str], headings: Mapping[str, str]) -> str:
    """A folded table per section that has rows, without the columns that say nothing there."""
    parts = []
    for section, title in titles.items():
        rows = table[table["section"] == section]
        if not rows.empty:
            shown = {
                name: heading for name, heading in headings.items()
                if not (rows[name].isna() | (rows[name] == "")).all()
            }  # fmt: skip
            parts.append(folded(title, rows, shown))
    return "\n".join(parts)


def texts(heads: Sequence[str], rows: Sequence[Sequence[str]], style: str = "prose") -> str:
    """A table of texts.

    Args:
        style: "sortable" by a click on a heading, "prose" for words, or "".
    """
    names = [escape(each) for each in heads]
    if style == "sortable":
        names = [f'<button type="button">{each}</button>' for each in names]
    head = "".join(f'<th scope="col">{each}</th>' for each in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells in rows
    )
    kind = f' class="{style}"' if style else ""
    return (
        f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def number(value: object) -> str:
    """Four significant digits; integers whole; a dash for what is not there."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return (
            f"{value:.4g}" if math.isfinite(value) else ("–" if math.isnan(value) else f"{value:+}")
        )
    return escape(str(value))


def folded(
    title: str, rows: pd.DataFrame, headings: Mapping[str, str], code: str = "", about: str = ""
) -> str:
    """<details> with a table that sorts by value, closed.

    Args:
        headings: column of `rows` → what the page calls it.
        code: the quantity's name in files; about: its formula and source.
    """
    head = "".join(
        f'<th scope="col"><button type="button">{heading}</button></th>'
        for heading in headings.values()
    )
    body = "\n".join(
        f"<tr>{''.join(_cell(value) for value in values)}</tr>"
        for values in zip(*(rows[name].tolist() for name in headings), strict=True)
    )
    named = f" <code>{escape(code)}</code>" if code else ""
    how = f'<p class="formula">{escape(about)}</p>' if about else ""
    return (
        f"<details><summary>{escape(title)}{named} <small>{len(rows)} rows</small></summary>\n"
        f'{how}<div class="wide"><table class="sortable"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div></details>"
    )


def _cell(value: object) -> str:
    if isinstance(value, int | float):
        return f'<td data-v="{value!r}">{number(value)}</td>'
    return f"<td>{escape(str(value))}</td>"
