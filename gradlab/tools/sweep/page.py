"""The page of a sweep: a row per run with what differs, its state, its first sentence, its page.

Above it what became of all of them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from html import escape
from statistics import median

from gradlab.reporting import shell
from gradlab.reporting.kinds import Kind
from gradlab.reporting.numbers import number
from gradlab.reporting.page import Page, PageSource, Section
from gradlab.tools.sweep.result import INDEX, Row, Sweep, load
from gradlab.verdicts.screen import Fact, Light, Screen, Sentence
from gradlab.wording import duration


def page(sweep: Sweep) -> Page:
    """What the page of a sweep shows."""
    commands = escape("\n".join(shlex.join(["gradlab", *row.words]) for row in sweep.rows))
    how = f"{shell.reproduce(sweep.command)}<h3>Every run</h3><pre>{commands}</pre>"
    fields = list(dict.fromkeys(name for row in sweep.rows for name in row.differs))
    headings = ("run", *fields, "state", "seconds", "result")
    head = "".join(
        f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in headings
    )
    body = "\n".join(f"<tr>{''.join(_cells(sweep, row, fields))}</tr>" for row in sweep.rows)
    table = (
        '<p>Click a heading to sort, a run for its page.</p><div class="wide">'
        f'<table class="sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
    sections = (
        Section("Runs", body=table, opened=True),
        Section("How this was computed", body=how, name="method"),
    )
    source = PageSource(str(sweep.folder / INDEX), sweep.command)
    title = f"{sweep.folder.name}: {len(sweep.rows)} runs"
    facts = {"command": sweep.rows[0].words[0] if sweep.rows else None} | {
        state: sweep.count(state) or None
        for state in ("done", "failed", "interrupted", "waiting", "running")
    }
    return Page(title, "What became of every run?", facts, screen(sweep), (), sections, source,
                apart=False)  # fmt: skip


def _cells(sweep: Sweep, row: Row, fields: list[str]) -> Iterator[str]:
    link = escape(row.name)
    if (sweep.folder / f"{row.name}.html").is_file():
        link = f'<a href="{escape(row.name)}.html">{link}</a>'
    yield f"<td>{link}</td>"
    for name in fields:
        yield _cell(row.differs.get(name, ""))
    again = f", {row.attempts} attempts" if row.attempts > 1 else ""
    yield f'<td class="words">{escape(row.state)}{again}</td>'
    yield _cell("" if row.seconds is None else round(row.seconds, 1))
    yield f'<td class="words long">{escape(row.sentence or row.error)}</td>'


def _cell(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f'<td data-v="{value!r}">{number(value)}</td>'
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    return f'<td class="words">{escape(text)}</td>'


_SURE: dict[Light, str] = {
    "act": "every run has its result",
    "choose": "not every run has been executed",
    "none": "see the errors of the runs that failed",
}


def screen(sweep: Sweep) -> Screen:
    """How many runs are done, and what to do about the others."""
    done, total = sweep.count("done"), len(sweep.rows)
    failed, missing = sweep.count("failed"), sweep.count("waiting", "running", "interrupted")
    text = f"{done} of {runs(total)} {'is' if done == 1 else 'are'} done."
    if failed:
        text += f" {runs(failed)} failed: `--resume` executes what is missing again."
    elif missing:
        text += " `--resume` does what is missing."
    light: Light = "none" if failed else "choose" if missing else "act"
    # The results of the others are in the table of runs.
    lost = [f"{row.name} failed: {row.error}" for row in sweep.rows if row.state == "failed"]
    rest = tuple(Sentence("run", True, each) for each in lost)
    seconds = [row.seconds for row in sweep.rows if row.state == "done" and row.seconds is not None]
    facts: tuple[Fact, ...] = ()
    if seconds:
        how = "wall time between a run's start in its worker and its end"
        facts = (
            Fact("a run, the median", duration(median(seconds)), how),
            Fact("all runs, one after another", duration(sum(seconds)), f"Sum of the {how}."),
        )
    return Screen(text.replace("`", ""), light, _SURE[light], facts, None, rest)


def runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


KIND = Kind(load, lambda sweep, *_: page(sweep), screen)
