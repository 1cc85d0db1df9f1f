"""A figure as inline SVG: text stays text, colours follow the page, names do not clash.

Matplotlib's output is rewritten inside its tags only, so that no text is ever changed:
coordinates to two decimals, ids with a prefix, the palette to CSS variables, no foreign addresses.
"""

from __future__ import annotations

import io
import re
from html import escape

import matplotlib
from matplotlib.figure import Figure

from gradlab.figures.style import COLOURS

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
