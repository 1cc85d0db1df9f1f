"""One page for every kind of run: what it holds, and the one function that makes HTML of it.

    header     the question and the title
    advice     the fields of the recommendation, its light, one figure: above the fold
    facts      samples, law, step, truth, precision: once, in one line
    opened     sections in sight: bias, variance and error by horizon
    findings   a row each: ✓ pass, ✗ fail, ◐ undecided, – skipped
    sections   everything else in order of use, folded; an empty one is a line that names the way
               to fill it

Text of a run is hostile and escaped without exception; a section's `body` is HTML already.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gradlab.figures.style import SIZE
from gradlab.findings import Finding, in_order
from gradlab.reporting import shell
from gradlab.verdicts.recommendation import Recommendation
from gradlab.wording import signed

_SHOWN = (5.25, 4.0)  # inches of a figure: small, so that its words stay readable on a phone


@dataclass(frozen=True)
class PageSource:
    """Where a page's numbers come from; empty where nobody knows."""

    file: str = ""
    command: str = ""


NOWHERE = PageSource()


@dataclass(frozen=True)
class Section:
    """One heading below the first screen. Panels belong to the section that they name.

    Attributes:
        lines: sentences below its figures.
        body: HTML below them.
        note: beside the heading, in sight while the section is folded.
        name: its id; missing: in place of all, where there is nothing to show.
        opened: shown unfolded, before the findings.
    """

    title: str
    lines: tuple[str, ...] = ()
    body: str = ""
    note: str = ""
    name: str = ""
    missing: str = ""
    opened: bool = False


@dataclass(frozen=True)
class Panel:
    """One figure, drawn when it is first asked for: file name, section, caption.

    Attributes:
        fill: draws it on an empty figure; table: what it is drawn from, written beside its file.
        size: in inches; None: matplotlib's own.
    """

    name: str
    section: str
    caption: str
    fill: Callable[[Figure], object]
    table: pd.DataFrame
    size: tuple[float, float] | None = None

    @cached_property
    def figure(self) -> Figure:
        empty = Figure(figsize=self.size, layout="constrained")
        self.fill(empty)
        return empty


def panel(
    name: str, section: str, caption: str, draw: Callable[..., Axes], table: pd.DataFrame, /,
    high: float = SIZE[1], **settings: Any,
) -> Panel:  # fmt: skip
    """The panel of what `draw(table, ax=…, **settings)` draws, so many inches `high`."""

    def fill(figure: Figure) -> None:
        draw(table, ax=figure.add_subplot(), **settings)

    return Panel(name, section, caption, fill, table, (SIZE[0], high))


@dataclass(frozen=True, eq=False)
class Page:
    """What a page shows, whatever the kind of run.

    Attributes:
        facts: name → value, in one line; None and "" are left out.
        panels: every figure, in order of use.
        findings: of checks, beside the sentences of the recommendation.
        source: the run's file and the command that makes it again, beside every number.
        apart: its figures are files of their own, too, which takes half of the time;
            pdf: these also as PDF.
    """

    title: str
    question: str
    facts: Mapping[str, object]
    advice: Recommendation
    panels: tuple[Panel, ...] = ()
    sections: tuple[Section, ...] = ()
    source: PageSource = NOWHERE
    findings: tuple[Finding, ...] = ()
    apart: bool = True
    pdf: bool = False


def lay_out(page: Page) -> Panel | None:
    """Lays every figure out, once: it takes as long as the drawing, which comes up to three times.

    Returns:
        The panel beside the recommendation.
    """
    first = None
    if page.advice.figure is not None and page.panels:
        # The one that is named, else, where the run has no numbers for it, the first.
        named = (each for each in page.panels if each.name == page.advice.figure)
        first = next(named, page.panels[0])
    for panel in page.panels:
        wide, high = panel.figure.get_size_inches()
        if wide == SIZE[0]:
            panel.figure.set_size_inches(_SHOWN[0], _SHOWN[1] if high == SIZE[1] else high)
        engine = panel.figure.get_layout_engine()
        if engine is not None:
            engine.execute(panel.figure)
        # "none" leaves an engine, for which every save draws twice.
        panel.figure.set_layout_engine(None)
    return first


def render(page: Page) -> str:
    """The whole page as text."""
    first = lay_out(page)
    numbered = [(k, each) for k, each in enumerate(page.panels) if each is not first]
    figure = "" if first is None else _figure(page.panels.index(first), first)
    facts = {**page.facts, "file": page.source.file}
    parts = [_advice(page.advice, figure, page.source), shell.facts(facts)]
    first_shown = [each for each in page.sections if each.opened]
    parts += [*(_section(each, numbered) for each in first_shown), _findings(page)]
    named = {each.title for each in page.sections}
    rest = [each for each in folded("Figures", page.panels) if each.title not in named]
    later = [each for each in page.sections if not each.opened]
    parts += [_section(each, numbered) for each in (*later, *rest)]
    return shell.document(page.title, page.question, "\n".join(parts))


def facts_of(run: Any, *names: str) -> dict[str, object]:
    """Settings of a run by their names, and what every run has, for the line of facts."""
    config, environment = run.config, run.environment
    return {name: config.get(name) for name in ("task", *names)} | {
        "policy": config.get("policy") or shell.short(config.get("policy_hash")),
        "seed": config.get("seed"),
        "precision": environment.get("precision"),
        "wall time": shell.seconds(environment.get("wall_seconds")),
    }


def folded(title: str, panels: Iterable[Panel]) -> tuple[Section, ...]:
    """A section for every one that the panels name, in their order; `title` for those of none."""
    return tuple(Section(name or title) for name in dict.fromkeys(each.section for each in panels))


def method(command: object, columns: Mapping[str, Mapping[str, object]], more: str = "") -> Section:
    """How the run was made: the command, and lists of names and values side by side."""
    lists = "".join(
        f"<div><h3>{escape(title)}</h3>{shell.definitions(values)}</div>"
        for title, values in columns.items()
        if values
    )
    body = f'{shell.reproduce(command)}<div class="columns">{lists}</div>{more}'
    return Section("How this was computed", body=body, name="method")


def method_of(
    config: Mapping[str, object],
    environment: Mapping[str, object],
    notes: Mapping[str, Mapping[str, object]] | None = None,
    more: str = "",
) -> Section:
    """The same of a run whose configuration has its command; `notes` stand between both."""
    settings = {key: value for key, value in config.items() if key != "command"}
    columns = {"Samples and settings": settings, **(notes or {})}
    return method(config.get("command"), columns | {"Versions and machine": environment}, more)


def side_by_side(title: str, columns: Mapping[str, Mapping[str, object]]) -> Section:
    """In which settings several runs differ, and then what they share."""
    every = [dict(_leaves(each)) for each in columns.values()]  # critic.hidden → 2×256
    rows = {key: [each.get(key, "–") for each in every] for key in {k: 0 for e in every for k in e}}
    differ = [(key, *values) for key, values in rows.items() if len(set(values)) > 1]
    common = {key: values[0] for key, values in rows.items() if len(set(values)) == 1}
    shared = f"<details><summary>{len(common)} settings are the same</summary>"
    cells = [[shell.cell(each) for each in row] for row in differ]
    text = f"{shell.sortable(('setting', *columns), cells)}{shared}{shell.definitions(common)}"
    note = f"{len(differ)} settings differ"
    return Section(title, body=f"{text}</details>", note=note, name="method")


def _leaves(value: Mapping[str, object], path: str = "") -> Iterator[tuple[str, str]]:
    for key, each in value.items():
        if isinstance(each, Mapping) and each:
            yield from _leaves(each, f"{path}{key}.")
        else:
            yield f"{path}{key}", str(each)


def _section(section: Section, panels: Sequence[tuple[int, Panel]]) -> str:
    mine = [(k, each) for k, each in panels if each.section == section.title]
    if not mine and not section.lines and not section.body:
        if not section.missing:  # nobody says how to fill it
            return ""
        line = shell.with_commands(section.missing)
        return f'<p class="absent"{_id(section)}><b>{escape(section.title)}</b> {line}</p>'
    pictures = "\n".join(_figure(k, each) for k, each in mine)
    figures = f'<div class="figures">{pictures}</div>' if mine else ""
    note = f" <small>{escape(section.note)}</small>" if section.note else ""
    return (
        f'<details class="section"{_id(section)}{" open" if section.opened else ""}>'
        f"<summary><h2>{escape(section.title)}</h2>{note}</summary>"
        f'<div class="inside">{figures}{shell.listed(section.lines)}{section.body}</div></details>'
    )


def _id(section: Section) -> str:
    return f' id="{escape(section.name)}"' if section.name else ""


def _advice(shown: Recommendation, figure: str, source: PageSource) -> str:
    """<section> with everything above the fold; `figure` is HTML, or empty. How a field was
    measured, from which file, is one click away."""
    notice = f'<p class="notice" role="status">{escape(shown.notice)}</p>' if shown.notice else ""
    rows = ""
    for field in shown.fields:
        text = shell.marked(signed(field.text))
        if field.how:
            lines = [field.how, f"File: {source.file}" * bool(source.file)]
            more = "".join(f"<p>{escape(each)}</p>" for each in lines if each)
            text = f'<details class="how"><summary>{text}</summary>{more}</details>'
        rows += f"<dt>{escape(field.name)}</dt><dd>{text}</dd>"
    return (
        f'<section id="verdict" class="light-{shown.light}" aria-label="Recommendation">'
        f'{notice}<p class="light"><span class="dot" aria-hidden="true"></span>'
        f"<b>{escape(shown.lit)}</b></p>"
        f'<div class="first"><dl class="fields">{rows}</dl>{figure}</div></section>'
    )


def _findings(page: Page) -> str:
    """Every finding as a row: what failed or is undecided in sight, what passed one click away."""
    shown = page.advice
    said = " ".join([shown.notice, *(each.text for each in shown.fields)])
    # What the fields say already is not said again.
    new = (each for each in dict.fromkeys(shown.rest) if each.sentence not in said)
    rows = in_order((*page.findings, *new))
    if not rows:
        return ""
    passed = tuple(each for each in rows if each.decision == "pass")
    rest = rows[: len(rows) - len(passed)]
    body = _rows(rest) if rest else ""
    if passed:
        opened = "" if rest else " open"
        body += f"<details{opened}><summary>{len(passed)} passed</summary>{_rows(passed)}</details>"
    counts = Counter(each.decision for each in rest)
    parts = [f"{count} {'failed' if each == 'fail' else each}" for each, count in counts.items()]
    note = ", ".join(parts) or "all passed"
    return (
        f'<details class="section" id="findings"{" open" if counts["fail"] else ""}><summary>'
        f"<h2>Findings</h2> <small>{note} of {len(rows)}</small></summary>"
        f'<div class="inside">{body}</div></details>'
    )


def _rows(findings: Sequence[Finding]) -> str:
    lines = "".join(
        f'<tr class="{each.decision}"><td>{each.mark}</td>'
        f"<td>{escape(each.title)}</td><td>{shell.marked(signed(each.beside))}</td>"
        f"<td>{escape(signed(each.measured))}</td><td>{escape(signed(each.limit))}</td></tr>"
        for each in findings
    )
    heads = "<th></th><th></th><th></th><th>value</th><th>limit</th>"
    return (
        f'<div class="wide tall"><table class="prose"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _figure(number: int, panel: Panel) -> str:
    """The figure with its caption; ids in it begin with its number."""
    image = shell.inline(panel.figure, f"f{number}-", panel.caption)
    return f"<figure>{image}<figcaption>{shell.marked(panel.caption)}</figcaption></figure>"
