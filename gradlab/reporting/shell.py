"""What every page has in common: head, policy, verdict box, figures, lists.

Text from a file is hostile and escaped without exception. The page's own policy forbids every
request and every script but the one whose hash it names.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

from gradlab.reporting import svg
from gradlab.reporting.numbers import number
from gradlab.reporting.panels import Panel
from gradlab.verdict import Sentence

GENERATOR = '<meta name="generator" content="gradlab">'
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def document(title: str, question: str, facts: Mapping[str, object], body: str) -> str:
    """The whole page as text: `question` and the header line above `body` (HTML)."""
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"{POLICY}; script-src 'sha256-{digest}'"
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
{_facts(facts)}
</header>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def verdict_box(sentences: Sequence[Sentence], shown: int = 1000) -> str:
    """The sentences that head a page; those after the first `shown` are one click away."""
    first, rest = _items(sentences[:shown]), _items(sentences[shown:])
    first = first or "<li>These numbers support no verdict.</li>"
    more = len(sentences) - shown
    folded = f"<details><summary>{more} more</summary><ul>{rest}</ul></details>" if more > 0 else ""
    return (
        f'<section id="verdict" aria-label="Verdict"><h2>Verdict</h2><ul>{first}</ul>{folded}'
        f"</section>"
    )


def _items(sentences: Sequence[Sentence]) -> str:
    return "".join(
        f'<li class="{"decided" if each.decided else "undecided"}">{escape(each.text)}</li>'
        for each in sentences
    )


def section(
    title: str, drawn: Sequence[Panel], lines: Sequence[str], folded: Sequence[str], first: int
) -> str:
    """A heading, figures with ids from `first` on, sentences, and more of them one click away."""
    pictures = "\n".join(_figure(i, p) for i, p in enumerate(drawn, first))
    shown = f'<div class="figures">{pictures}</div>' if drawn else ""
    more = ""
    if folded:
        summary = f"<summary>In words: {len(folded)} sentences</summary>"
        more = f'<details class="words">{summary}{_told(folded)}</details>'
    return f"<section><h2>{escape(title)}</h2>{shown}{_told(lines)}{more}</section>"


def _told(lines: Sequence[str]) -> str:
    said = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="told">{said}</ul>' if said else ""


def figures(drawn: Sequence[Panel]) -> str:
    """The figures by section, in their order."""
    sections = dict.fromkeys(panel.section for panel in drawn)
    return "\n".join(
        f'<section><h2>{escape(section)}</h2><div class="figures">'
        + "\n".join(_figure(i, p) for i, p in enumerate(drawn) if p.section == section)
        + "</div></section>"
        for section in sections
    )


def figure_list(drawn: Sequence[Panel], first: int = 100) -> str:
    """Figures without a section; their ids begin at `first`, away from those of `figures`."""
    return "\n".join(_figure(i, p) for i, p in enumerate(drawn, first))


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


def _facts(facts: Mapping[str, object]) -> str:
    items = "".join(
        f"<div><dt>{name}</dt><dd>{number(value)}</dd></div>"
        for name, value in facts.items()
        if value not in (None, "")
    )
    return f'<dl class="facts">{items}</dl>'


def _figure(number: int, panel: Panel) -> str:
    image = svg.inline(panel.figure, f"f{number}-", panel.caption)
    return f"<figure>{image}<figcaption>{escape(panel.caption)}</figcaption></figure>"


def _value(value: object) -> str:
    if isinstance(value, Mapping) and value:
        return "<br>".join(f"{escape(str(key))}: {_value(each)}" for key, each in value.items())
    if isinstance(value, Mapping | list | tuple):
        return escape(json.dumps(value, ensure_ascii=False, default=str))
    return "–" if value is None else number(value)
