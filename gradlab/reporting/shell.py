"""What every page has in common: head, policy, figures, lists.

Text from a file is hostile and escaped without exception. The page's own policy forbids every
request and every script but the one whose hash it names.

A figure is inline SVG, rewritten inside its tags only, so that no text is ever changed:
coordinates to two decimals, ids with a prefix, the palette to CSS variables, no foreign addresses.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources

import matplotlib
from matplotlib.figure import Figure

from gradlab.figures.style import COLOURS
from gradlab.reporting.numbers import number
from gradlab.wording import signed

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
    "usable horizon": "Longest horizon whose direction is reliable at every shorter one, too.",
    "usable horizons": "Where direction and error are good; they need not begin at h = 1.",
    "Jacobian": "Derivatives of the next state and the reward in state and action.",
    "Jacobians": "Derivatives of the next state and the reward in state and action.",
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
                  + r")(?![\w-])")  # fmt: skip


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
        term = found.group()
        if term in met:
            return term
        met.add(term)
        return f'<abbr title="{escape(_TERMS[term])}" tabindex="0">{term}</abbr>'

    return with_commands(text, lambda part: _ANY.sub(mark, escape(part)))
