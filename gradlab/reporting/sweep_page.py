"""The page of a sweep: a row per run with what differs, its state, its first sentence, its page."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from html import escape

from gradlab.reporting import shell
from gradlab.reporting.first_fold import PageSource
from gradlab.reporting.numbers import number
from gradlab.reporting.page import Page, Section
from gradlab.runs.sweep import INDEX, Row, Sweep
from gradlab.verdicts.sweep import screen


def page(sweep: Sweep) -> Page:
    """What the page of a sweep shows."""
    sections = (
        Section("Runs", body=_runs(sweep), opened=True),
        Section("How this was computed", body=_method(sweep), name="method"),
    )
    source = PageSource(str(sweep.folder / INDEX), sweep.command)
    title = f"{sweep.folder.name}: {len(sweep.rows)} runs"
    facts = {"command": sweep.rows[0].words[0] if sweep.rows else None} | {
        state: sweep.count(state) or None
        for state in ("done", "failed", "interrupted", "waiting", "running")
    }
    return Page(title, "What became of every run?", facts, screen(sweep), (), sections, source,
                apart=False)  # fmt: skip


def _runs(sweep: Sweep) -> str:
    fields = list(dict.fromkeys(name for row in sweep.rows for name in row.differs))
    headings = ("run", *fields, "state", "seconds", "result")
    head = "".join(
        f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in headings
    )
    body = "\n".join(f"<tr>{''.join(_cells(sweep, row, fields))}</tr>" for row in sweep.rows)
    return (
        '<p>Click a heading to sort, a run for its page.</p><div class="wide">'
        f'<table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cells(sweep: Sweep, row: Row, fields: list[str]) -> Iterator[str]:
    yield f"<td>{_linked(sweep, row)}</td>"
    for name in fields:
        yield _cell(row.differs.get(name, ""))
    again = f", {row.attempts} attempts" if row.attempts > 1 else ""
    yield f'<td class="words">{escape(row.state)}{again}</td>'
    yield _cell("" if row.seconds is None else round(row.seconds, 1))
    yield f'<td class="words long">{escape(row.sentence or row.error)}</td>'


def _linked(sweep: Sweep, row: Row) -> str:
    """The run's name, which leads to its page where there is one."""
    file = f"{row.name}.html"
    name = escape(row.name)
    if not (sweep.folder / file).is_file():
        return name
    return f'<a href="{escape(file)}">{name}</a>'


def _cell(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td data-v="{value!r}">{number(value)}</td>'
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    return f'<td class="words">{escape(text)}</td>'


def _method(sweep: Sweep) -> str:
    commands = "\n".join(shlex.join(["gradlab", *row.words]) for row in sweep.rows)
    return f"{shell.reproduce(sweep.command)}<h3>Every run</h3><pre>{escape(commands)}</pre>"
