"""What every page has in common: head, policy, figures, lists.

Text from a file is hostile and escaped without exception. The page's own policy forbids every
request and every script but the one whose hash it names.

A figure is inline SVG, rewritten inside its tags only, so that no text is ever changed:
coordinates to two decimals, ids with a prefix, the palette to CSS variables, no foreign addresses.

Every number as HTML: collapsible, sortable tables, those of a profile one per quantity.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from itertools import zip_longest

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from gradlab.figures.style import COLOURS
from gradlab.statistics.quantities import QUANTITIES
from gradlab.wording import rounded, signed

_FIRST = ("gain", "mse", "relative_mse", "bias2", "variance", "cosine")  # in order of use
_HEADINGS = {  # of columns whose own names do not say it
    "ci_low": "95 % from", "ci_high": "to", "ratio_low": "95 % from", "ratio_high": "to",
    "se": "standard error", "method": "interval by", "at": "step or horizon",
    "region": "samples", "x": "distance or place", "stratum": "where", "source": "derivatives by",
    "row": "of output", "column": "by input", "judged": "share judged", "p95": "95% are below",
    "flagged": "share wrong", "flipped": "share of wrong signs", "code": "finding",
}  # fmt: skip
_NOTHING = ("", "all")  # cells that say nothing


def tables(table: pd.DataFrame, by: str = "quantity", titles: Mapping[str, str] = {}) -> str:
    """<details> per value of a column, those with titles first, closed; quantities that are known
    each with formula and source."""
    groups = {str(name): rows.drop(columns=by) for name, rows in table.groupby(by, sort=False)}
    order = dict.fromkeys([*(titles or [*_FIRST, *QUANTITIES]), *groups])
    parts = []
    for name in order:
        if name in groups:
            row = None if titles else QUANTITIES.get(name)
            title = titles.get(name, name) if row is None else row.title
            unit = f" [{row.unit}]" if row and row.unit else ""
            about = f"{row.formula}{unit}; {row.source}" if row else ""
            parts.append(folded(title, groups[name], name if title != name else "", about))
    return "\n".join(parts)


_HIDDEN, _ROUNDING = 5e-5, 1e-12  # distances from 1 that four digits do not show
_WORDS = '<td class="words'


def sortable(heads: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that sorts by a click on a heading; its cells are HTML, as `cell` makes it."""
    rows = list(rows)
    # Words stand left, under their heading; numbers right.
    sides = [' class="words"' * each.startswith(_WORDS) for each in (rows[0] if rows else ())]
    names = "".join(
        f'<th scope="col"{side}><button type="button">{escape(name)}</button></th>'
        for name, side in zip_longest(heads, sides, fillvalue="")
    )
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return (
        f'<div class="wide"><table class="sortable"><thead><tr>{names}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
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
            near = rounded(left, 1)
            return f"1 − {near}" if value > 0 else f"−1 + {near}"
        if not math.isfinite(value):
            return "∞" if value > 0 else "−∞"
        return signed(rounded(value, 4))
    return escape(str(value))


def folded(title: str, rows: pd.DataFrame, code: str = "", about: str = "") -> str:
    """<details> with a table that sorts by value, closed, without columns that say nothing.

    Args:
        code: the quantity's name in files; about: its formula and source.
    """
    names = [name for name in rows if not (rows[name].isna() | rows[name].isin(_NOTHING)).all()]
    columns = zip(*(rows[name].tolist() for name in names), strict=True)
    heads = (_HEADINGS.get(str(name), str(name).replace("_", " ")) for name in names)
    shown = sortable(heads, [[cell(value) for value in each] for each in columns])
    named = f" <code>{escape(code)}</code>" if code else ""
    how = f'<p class="formula">{escape(about)}</p>' if about else ""
    return (
        f"<details><summary>{escape(title)}{named} <small>{len(rows)} rows</small></summary>\n"
        f"{how}{shown}</details>"
    )


def cell(value: object, long: bool = False) -> str:
    """A cell of a table: a number with its full value, to sort by; else words, maybe of a line or
    more."""
    if isinstance(value, bool):
        return f'{_WORDS}">{number(value)}</td>'
    if isinstance(value, int | float):
        return f'<td data-v="{value!r}">{number(value)}</td>'
    listed = isinstance(value, list | dict)
    text = json.dumps(value, ensure_ascii=False) if listed else str(value)
    return f'{_WORDS}{" long" if long else ""}">{escape(text)}</td>'


_TAG = re.compile(r"<[^<>]*>")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r'(\bid="|href="#|url\(#)')
_FONT = re.compile(r"font(-family)?:\s*([^;\"]*?)\s*'DejaVu Sans'[^;\"]*")
_ABOUT = re.compile(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", re.DOTALL)
_ADDRESS = re.compile(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"')


def inline(figure: Figure, prefix: str, label: str) -> str:
    """`figure` as an <svg> element; ids begin with `prefix`, screen readers say `label`."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = _ABOUT.sub("", buffer.getvalue())
    text = text[text.index("<svg") :]
    body = _TAG.sub(lambda tag: _rewrite(tag.group(), prefix), text)
    head = f'<svg role="img" aria-label="{escape(label)}"'
    body = body.replace("<svg", head, 1).strip()
    return body.removesuffix("</svg>") + "".join(_values(figure)) + "</svg>"


_POINTED = 60  # points of a line up to which each has its value under the pointer


def _values(figure: Figure) -> Iterator[str]:
    """What is drawn where, for the pointer: the line's name, its real x, its value."""
    points, high = 72 / figure.dpi, 72 * figure.get_figheight()
    for axes in figure.axes:
        box = axes.get_window_extent()
        for line in axes.lines:
            name, data = str(line.get_label()), np.asarray(line.get_xydata(), dtype=float)
            if name.startswith("_") or not 2 < len(data) <= _POINTED:
                continue
            places = axes.transData.transform(data)
            for (x, y), (across, up) in zip(data.tolist(), places.tolist(), strict=True):
                if math.isfinite(y) and box.contains(across, up):
                    told = f"{name}, {number(float(x))}: {number(float(y))}"
                    yield (
                        f'<circle cx="{across * points:.1f}" cy="{high - up * points:.1f}" r="4" '
                        f'fill="transparent"><title>{escape(told)}</title></circle>'
                    )


def _rewrite(tag: str, prefix: str) -> str:
    tag = tag.replace("xlink:href", "href")
    if tag.startswith("<svg"):
        tag = _ADDRESS.sub("", tag)
    if tag.startswith("<!--"):
        return ""
    tag = _REFERENCE.sub(lambda found: found.group() + prefix, tag)
    tag = _NUMBER.sub(lambda found: f"{float(found.group()):.2f}".rstrip("0").rstrip("."), tag)
    tag = _FONT.sub(lambda found: f"font{found.group(1) or ''}: {found.group(2)} sans-serif", tag)
    for name, colour in COLOURS.items():
        tag = tag.replace(colour, f"var(--{name})")
    return tag


GENERATOR = '<meta name="generator" content="gradlab">'
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, question: str, body: str) -> str:
    """The whole page as text: `question` and the title above `body` (HTML)."""
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"{_POLICY}; script-src 'sha256-{digest}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{GENERATOR}
<link rel="icon" href="data:,">
<title>{escape(title)} · gradlab</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<p class="kind">{escape(question)}</p>
<h1>{escape(title)}</h1>
</header>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def listed(lines: Sequence[str]) -> str:
    """Sentences as a list; empty without any."""
    items = "".join(f"<li>{with_commands(line)}</li>" for line in lines)
    return f'<ul class="sentences">{items}</ul>' if items else ""


def facts(values: Mapping[str, object]) -> str:
    """Names and values in one line; those that are None or "" are left out."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{number(value)}</dd></div>"
        for name, value in values.items()
        if value not in (None, "")
    )
    return f'<dl class="facts">{items}</dl>'


def definitions(values: Mapping[str, object]) -> str:
    """Names and values as a list."""
    items = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{_value(value)}</dd>"
        for key, value in values.items()
    )
    return f'<dl class="list">{items}</dl>'


def reproduce(command: object) -> str:
    """The command that makes the run again, where it is known."""
    return f'<h3>Reproduce</h3><pre id="command">{escape(str(command))}</pre>' if command else ""


def short(digest: object) -> str | None:
    """The first digits of a hash."""
    return None if digest is None else str(digest)[:12]


def seconds(value: object) -> str | None:
    """A wall time as text."""
    try:
        return None if value is None else f"{float(str(value)):.0f} s"
    except ValueError:
        return str(value)


def _asset(name: str) -> str:
    return resources.files("gradlab.reporting").joinpath(name).read_text("utf-8")


def _value(value: object) -> str:
    if isinstance(value, Mapping) and value:
        return "<br>".join(f"{escape(str(key))}: {_value(each)}" for key, each in value.items())
    if isinstance(value, Mapping | list | tuple):
        return escape(json.dumps(value, ensure_ascii=False, default=str))
    return "–" if value is None else number(value)


# What the words of a page mean, each in at most 15 words, shown where a word stands first.
_TERMS = {
    "data gradient": "The critic alone, no model step: its gradient in the first action (h = 0).",
    "model gradient": "Backpropagation through steps of a model, then the critic.",
    "mixed gradient": "States from the simulator, derivatives from the model.",
    "true dynamics": "States and derivatives from the simulator: what no learned model can beat.",
    "squared bias": "The part of the error that no batch size removes.",
    "variance": "The part of the error that a larger batch divides.",
    "gain": "What one small step adds to the return, in % of the best step.",
    "cosine": "1: the true direction; 0: a step gains nothing; below 0: it harms.",
    "horizon": "Model steps before the critic takes over.",
    "usable horizon": "Where direction and error are good; it need not begin at h = 1.",
    "Jacobian": "Derivatives of the next state and the reward in state and action.",
    "Lyapunov exponent": "Growth of a small disturbance per step; above 0 it grows.",
    "saturated": "At its limit: no gradient passes.",
    "median": "Half of the seeds lie above, half below.",
    "replay": "The transitions that training has stored and draws its batches from.",
    "score": "Likelihood-ratio gradient: unbiased without any model, and noisy.",
    "critic": "The network that values states and actions.",
    "truth": "The reference of every bias, from the simulator, with its own error.",
    "MSE": "Mean squared error of one batch's gradient: squared bias + variance / batch.",
    "shown": "Its 95% interval excludes the contrary.",
}
_ANY = re.compile(r"(?<![\w-])(" + "|".join(sorted(map(re.escape, _TERMS), key=len, reverse=True))
                  + r")(s?)(?![\w-])")  # fmt: skip


def with_commands(text: str, words: Callable[[str], str] = escape) -> str:
    """`text` as HTML, by `words`; what stands between backticks is a command."""
    text = signed(text)
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return words(text)
    return "".join(
        f"<code>{escape(part)}</code>" if k % 2 else words(part) for k, part in enumerate(parts)
    )


def marked(text: str) -> str:
    """`text` as HTML, the first of each term with its meaning."""
    met: set[str] = set()

    def mark(found: re.Match[str]) -> str:
        term = found.group(1)
        if term in met:
            return found.group()
        met.add(term)
        return f'<abbr title="{escape(_TERMS[term])}" tabindex="0">{found.group()}</abbr>'

    return with_commands(text, lambda part: _ANY.sub(mark, escape(part)))
