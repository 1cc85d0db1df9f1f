"""Every number as HTML: collapsible, sortable tables, those of a profile one per quantity."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

import pandas as pd

from gradlab.statistics.quantities import QUANTITIES
from gradlab.wording import signed

_FIRST = ("gain", "mse", "relative_mse", "bias2", "variance", "cosine")  # in order of use
_HEADINGS = {
    "estimator": "estimator",
    "horizon": "horizon",
    "value": "value",
    "se": "standard error",
    "ci_low": "95 % from",
    "ci_high": "to",
    "n": "samples",
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


def texts(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of words."""
    head = "".join(f'<th scope="col">{escape(each)}</th>' for each in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>" for cells in rows
    )
    return (
        f'<div class="wide"><table class="prose"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


_HIDDEN, _ROUNDING = 5e-5, 1e-12  # distances from 1 that four digits do not show
_WORDS = '<td class="words'


def sortable(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that sorts by a click on a heading; its cells are HTML, as `cell` makes it."""
    rows = list(rows)
    first = rows[0] if rows else ()
    names = "".join(
        f'<th scope="col"{_side(first, k)}><button type="button">{escape(name)}</button></th>'
        for k, name in enumerate(heads)
    )
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{names}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _side(cells: Sequence[str], column: int) -> str:
    """Words stand left, under their heading; numbers right."""
    return (
        ' class="words"' if cells[column : column + 1] and cells[column].startswith(_WORDS) else ""
    )


def number(value: object) -> str:
    """Four significant digits, and what is left of ±1; integers whole; a dash for what is not
    there."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return signed(str(value))
    if isinstance(value, float):
        if math.isnan(value):
            return "–"
        if _ROUNDING < (left := 1 - abs(value)) < _HIDDEN:  # a cosine is never rounded to 1
            near = _power(f"{left:.1g}")
            return f"1 − {near}" if value > 0 else f"−1 + {near}"
        if not math.isfinite(value):
            return signed(f"{value:+}")
        rounded = float(f"{value:.4g}")  # 11,500, not 1.15e+04
        return signed(_power(f"{rounded:,g}" if abs(rounded) >= 1e4 else f"{rounded:g}"))
    return escape(str(value))


def _power(text: str) -> str:
    """2.19e-7, not 2.19e-07."""
    return re.sub(r"e\+?(-?)0*", r"e\1", text)


def folded(
    title: str, rows: pd.DataFrame, headings: Mapping[str, str], code: str = "", about: str = ""
) -> str:
    """<details> with a table that sorts by value, closed.

    Args:
        headings: column of `rows` → what the page calls it.
        code: the quantity's name in files; about: its formula and source.
    """
    columns = zip(*(rows[name].tolist() for name in headings), strict=True)
    shown = sortable(headings.values(), [[cell(value) for value in each] for each in columns])
    named = f" <code>{escape(code)}</code>" if code else ""
    how = f'<p class="formula">{escape(about)}</p>' if about else ""
    return (
        f"<details><summary>{escape(title)}{named} <small>{len(rows)} rows</small></summary>\n"
        f"{how}{shown}</details>"
    )


def cell(value: object, long: bool = False) -> str:
    """A cell of a table: a number with its full value, to sort by; else words, maybe of a line or
    more."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td data-v="{value!r}">{number(value)}</td>'
    listed = isinstance(value, list | dict)
    text = json.dumps(value, ensure_ascii=False) if listed else str(value)
    return f'{_WORDS}{" long" if long else ""}">{escape(text)}</td>'
