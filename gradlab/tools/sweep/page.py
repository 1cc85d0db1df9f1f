"""The page of a sweep: what became of its runs, and a row for each."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from html import escape
from statistics import median
from textwrap import shorten
from typing import get_args

from gradlab.findings import Finding
from gradlab.reporting import shell
from gradlab.reporting.output import Kind
from gradlab.reporting.page import Page, PageSource, Section
from gradlab.reporting.shell import cell, sortable
from gradlab.tools.sweep.table import INDEX, Row, State, Sweep
from gradlab.verdicts.recommendation import Field, Light, Recommendation
from gradlab.wording import duration, signed


def page(sweep: Sweep) -> Page:
    """What the page of a sweep shows."""
    commands = escape("\n".join(shlex.join(["gradlab", *row.words]) for row in sweep.rows))
    how = f"{shell.reproduce(sweep.command)}<h3>Every run</h3><pre>{commands}</pre>"
    fields = list(dict.fromkeys(name for row in sweep.rows for name in row.differs))
    headings = ("run", *fields, "state", "seconds", "result")
    table = sortable(headings, [list(_cells(sweep, row, fields)) for row in sweep.rows])
    sections = (
        Section("Runs", body=table, opened=True),
        Section("How this was computed", body=how, name="method"),
    )
    source = PageSource(str(sweep.folder / INDEX), sweep.command)
    title = f"{sweep.folder.name}: {len(sweep.rows)} runs"
    facts: dict[str, object] = {"command": sweep.rows[0].words[0] if sweep.rows else None}
    facts |= {state: sweep.count(state) or None for state in get_args(State)}
    return Page(title, "What became of every run?", facts, advice(sweep), (), sections, source,
                apart=False)  # fmt: skip


def _cells(sweep: Sweep, row: Row, fields: list[str]) -> Iterator[str]:
    link = escape(row.name)
    if (sweep.folder / f"{row.name}.html").is_file():
        link = f'<a href="{escape(row.name)}.html">{link}</a>'
    yield f'<td class="words">{link}</td>'
    for name in fields:
        yield cell(row.differs.get(name, ""))
    yield cell(row.state)
    yield cell("" if row.seconds is None else round(row.seconds, 1))
    said = (row.sentence or row.error).partition(". ")[0]
    yield cell(signed(shorten(said, _LONGEST, placeholder=" …")), long=True)


_LONGEST = 160  # letters of a result; errors stand whole above the table


def advice(sweep: Sweep) -> Recommendation:
    """How many runs are done, and what to do about the others."""
    done, total = sweep.count("done"), len(sweep.rows)
    lost = [row for row in sweep.rows if row.state == "failed"]
    missing = sweep.count("waiting", "interrupted")
    light: Light = "act"
    todo = "gradlab compare: side by side"
    if lost:
        todo, light = f"read the errors of {len(lost)}, then repeat with --resume", "none"
    elif missing:
        todo, light = f"repeat with --resume: {missing} of {total} are missing", "choose"
    fields = [Field("runs", f"{done} of {total} done"), Field("next", todo)]
    seconds = [row.seconds for row in sweep.rows if row.state == "done" and row.seconds is not None]
    if seconds:
        took = f"{duration(median(seconds))} a run, the median; {duration(sum(seconds))} for all"
        fields.append(Field("time", took))
    rest = tuple(Finding("run_failed", "fail", row.name, at=row.error) for row in lost)
    return Recommendation(light, tuple(fields), rest=rest)


KIND = Kind(lambda sweep, *_: page(sweep), advice)
