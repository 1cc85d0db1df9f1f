"""The page of a sweep: a row per run with what differs, its state, its first sentence, its page.

Above it what became of all of them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from html import escape
from statistics import median
from textwrap import shorten

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gradlab.figures import style
from gradlab.reporting import shell
from gradlab.reporting.output import Kind
from gradlab.reporting.page import Page, PageSource, Section, panel
from gradlab.reporting.shell import cell, sortable
from gradlab.tools.sweep.table import INDEX, Row, Sweep, load
from gradlab.verdicts.recommendation import Field, Light, Recommendation, worded
from gradlab.wording import duration, signed


def page(sweep: Sweep) -> Page:
    """What the page of a sweep shows."""
    commands = escape("\n".join(shlex.join(["gradlab", *row.words]) for row in sweep.rows))
    how = f"{shell.reproduce(sweep.command)}<h3>Every run</h3><pre>{commands}</pre>"
    fields = list(dict.fromkeys(name for row in sweep.rows for name in row.differs))
    headings = ("run", *fields, "state", "seconds", "result")
    rows = [list(_cells(sweep, row, fields)) for row in sweep.rows]
    table = f"<p>Click a heading to sort, a run for its page.</p>{sortable(headings, rows)}"
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
    timed = any(row.seconds is not None for row in sweep.rows)
    caption = "How long each run took, in the order of the table."
    drawn = (panel(_FIGURE, "Runs", caption, _seconds, _times(sweep)),) if timed else ()
    return Page(title, "What became of every run?", facts, advice(sweep), drawn, sections, source,
                apart=False)  # fmt: skip


def _times(sweep: Sweep) -> pd.DataFrame:
    """A row per run: number, name, state, seconds (NaN where it has not begun)."""
    rows = [(k, row.name, row.state, row.seconds) for k, row in enumerate(sweep.rows, 1)]
    return pd.DataFrame(rows, columns=["number", "run", "state", "seconds"]).astype(
        {"seconds": float}
    )


def _seconds(table: pd.DataFrame, ax: Axes) -> Axes:
    """Seconds of every run that began, by its state."""
    for state, (colour, marker) in _STATES.items():
        rows = table[(table["state"] == state) & table["seconds"].notna()]
        if len(rows):
            places, seconds = rows["number"], rows["seconds"]
            ax.vlines(places, 0, seconds, color=colour, lw=1.6)
            ax.plot(places, seconds, marker, color=colour, ms=8, label=f"{len(rows)} {state}",
                    clip_on=False)  # fmt: skip
    style.dress(ax, "Wall time of every run", "seconds")
    ax.set_xlabel("run, as in the table", color=style.INK)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlim(0.4, len(table) + 0.6)
    ax.set_ylim(bottom=0)
    return ax


def _cells(sweep: Sweep, row: Row, fields: list[str]) -> Iterator[str]:
    link = escape(row.name)
    if (sweep.folder / f"{row.name}.html").is_file():
        link = f'<a href="{escape(row.name)}.html">{link}</a>'
    yield f'<td class="words">{link}</td>'
    for name in fields:
        yield cell(row.differs.get(name, ""))
    again = f", {row.attempts} attempts" if row.attempts > 1 else ""
    yield cell(f"{row.state}{again}")
    yield cell("" if row.seconds is None else round(row.seconds, 1))
    said = (row.sentence or row.error).partition(". ")[0]
    yield cell(signed(shorten(said, _LONGEST, placeholder=" …")), long=True)


_FIGURE = "times"
_LONGEST = 160  # letters of a result; errors stand whole above the table
_STATES = {
    "done": (style.BLUE, "o"), "failed": (style.VERMILION, "X"), "interrupted": (style.MUTED, "s"),
}  # fmt: skip


def advice(sweep: Sweep) -> Recommendation:
    """How many runs are done, and what to do about the others."""
    done, total = sweep.count("done"), len(sweep.rows)
    failed, missing = sweep.count("failed"), sweep.count("waiting", "running", "interrupted")
    text = "`gradlab compare`: side by side"
    if failed:
        errors = "error" if failed == 1 else "errors"
        text = f"read the {errors} of {runs(failed)}, then repeat the command with --resume"
    elif missing:
        text = f"repeat the command with --resume: {runs(missing)} of {total} are missing"
    light: Light = "none" if failed else "choose" if missing else "act"
    # The results of the others are in the table of runs.
    lost = [f"{row.name} failed: {row.error}" for row in sweep.rows if row.state == "failed"]
    rest = tuple(worded("run", True, each) for each in lost)
    seconds = [row.seconds for row in sweep.rows if row.state == "done" and row.seconds is not None]
    fields = [
        Field("runs", f"{done} of {total} done", "rows of the index whose state is done"),
        Field("next", text.replace("`", "")),
    ]
    if seconds:
        how = "wall time between a run's start in its process and its end"
        took = f"{duration(median(seconds))} a run, the median; {duration(sum(seconds))} for all"
        fields.append(Field("time", took, how))
    return Recommendation(light, tuple(fields), _FIGURE, rest)


def runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


KIND = Kind(load, lambda sweep, *_: page(sweep), advice)
