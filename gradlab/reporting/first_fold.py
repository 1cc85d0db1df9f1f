"""The first screen as HTML: one recommendation, a light with a word, one figure, three numbers.

Each number opens to its formula, the run's file and the command that makes it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from gradlab.reporting.glossary import marked
from gradlab.verdicts.screen import LIGHTS, Fact, Screen, unsaid


@dataclass(frozen=True)
class PageSource:
    """Where a page's numbers come from; empty where nobody knows."""

    file: str = ""
    command: str = ""


NOWHERE = PageSource()


def screen(first: Screen, figure: str, source: PageSource) -> str:
    """<section> with everything above the fold; `figure` is HTML, or empty."""
    numbers = "".join(_fact(each, source) for each in first.numbers)
    listed = f'<div class="numbers">{numbers}</div>' if numbers else ""
    notice = f'<p class="notice" role="status">{escape(first.notice)}</p>' if first.notice else ""
    return (
        f'<section id="verdict" class="light-{first.light}" aria-label="Recommendation">'
        f"{notice}"
        f'<p class="headline">{marked(first.headline)}</p>'
        f'<p class="light"><span class="dot" aria-hidden="true"></span>'
        f"<b>{escape(first.word or LIGHTS[first.light])}</b> · {marked(first.sure)}</p>"
        f'<div class="first">{figure}{listed}</div></section>'
    )


def sentences(first: Screen) -> str:
    """Every sentence of the verdict that is not above the fold, one click away."""
    texts = unsaid([each.text for each in first.rest], f"{first.notice} {first.headline}")
    items = [
        f'<li class="{"decided" if each.decided else "undecided"}">{marked(text)}</li>'
        for each, text in zip(first.rest, texts, strict=True)
        if text
    ]
    if not items:
        return ""
    count = "1 sentence" if len(items) == 1 else f"{len(items)} sentences"
    return (
        f'<details class="section" id="why"><summary><h2>Why</h2> <small>{count}</small></summary>'
        f'<ul class="inside">{"".join(items)}</ul></details>'
    )


def _fact(fact: Fact, source: PageSource) -> str:
    lines = [f"<p>{escape(fact.how)}</p>"] if fact.how else []
    lines += [f"<p>File: <code>{escape(source.file)}</code></p>"] if source.file else []
    lines += [f"<p>Again: <code>{escape(source.command)}</code></p>"] if source.command else []
    return (
        f'<details class="number"><summary><span class="value">{escape(fact.text)}</span> '
        f"<span>{marked(fact.label)}</span></summary>{''.join(lines)}</details>"
    )
