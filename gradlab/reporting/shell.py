"""What every page has in common: head, policy, figures, lists.

Text from a file is hostile and escaped without exception. The page's own policy forbids every
request and every script but the one whose hash it names.

A figure as inline SVG: text stays text, colours follow the page, names do not clash.

Matplotlib's output is rewritten inside its tags only, so that no text is ever changed:
coordinates to two decimals, ids with a prefix, the palette to CSS variables, no foreign addresses.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

import matplotlib
from matplotlib.figure import Figure

from gradlab.figures.style import COLOURS
from gradlab.reporting.glossary import marked, with_commands
from gradlab.reporting.numbers import number
from gradlab.reporting.panels import Panel

_TAG = re.compile(r"<[^<>]*>")
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r'(\bid="|href="#|url\(#)')
_FONT = re.compile(r"font(-family)?:\s*([^;\"]*?)\s*'DejaVu Sans'[^;\"]*")
_ABOUT = re.compile(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", re.DOTALL)
_ADDRESS = re.compile(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"')


def _inline(figure: Figure, prefix: str, label: str) -> str:
    """`figure` as an <svg> element; ids begin with `prefix`, screen readers say `label`."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = _ABOUT.sub("", buffer.getvalue())
    text = text[text.index("<svg") :]
    body = _TAG.sub(lambda tag: _rewrite(tag.group(), prefix), text)
    head = f'<svg role="img" aria-label="{escape(label)}"'
    return body.replace("<svg", head, 1).strip()


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


def document(title: str, question: str, body: str, live: str = "") -> str:
    """The whole page as text: `question` and the title above `body` (HTML).

    Args:
        live: a line about a run in progress, above all else; the page then fetches its newer self
            from where it was served (`page.js`).
    """
    style, script = _asset("page.css"), _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"{_POLICY}; script-src 'sha256-{digest}'"
    policy += "; connect-src 'self'" if live else ""
    line = f'<p id="live">{escape(live)}</p>\n' if live else ""
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
{line}<header>
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


def alarms(about: str, raised: Sequence[tuple[str, str, str, Sequence[str], str]]) -> str:
    """Alarms with what is about all of them.

    Args:
        raised: kind, whose it is, what is counted, where it was raised, its last message.
    """
    items = []
    for kind, whose, across, at, message in raised:
        last = f" (reported {len(at)} times, last at {across} {at[-1]})" if len(at) > 1 else ""
        items.append(
            f"<dt>{across} {at[0]}</dt><dd><strong>{escape(kind)}</strong>{escape(whose)}{last}: "
            f"{with_commands(message)}</dd>"
        )
    return f'<p>{about}</p><dl class="list">{"".join(items)}</dl>'


def figure(number: int, panel: Panel) -> str:
    """The figure with its caption; ids in it begin with its number."""
    image = _inline(panel.figure, f"f{number}-", panel.caption)
    return f"<figure>{image}<figcaption>{marked(panel.caption)}</figcaption></figure>"


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
