"""Progress of a sweep on standard error: one line per run at work, or a line per run that ends."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from gradlab.cli.terminal.progress_bars import EVERY, standard_error
from gradlab.wording import duration

if TYPE_CHECKING:
    from rich.live import Live

    from gradlab.tools.sweep.result import Row
    from gradlab.tools.sweep.running import SweepProgress

_NAMED = 32  # characters of a run's name on a terminal


@contextmanager
def lines() -> Iterator[SweepProgress]:
    """Yields what shows a sweep: a view that is redrawn on a terminal, else lines."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        from rich.console import Console
        from rich.live import Live

        with Live(console=Console(stderr=True), transient=True, auto_refresh=False) as live:
            yield _LiveLines(live)
        return
    yield _SweepLines()


def _ending(row: Row) -> str:
    """What became of a run, in one line."""
    after = "" if row.seconds is None else f" after {duration(row.seconds)}"
    more = row.sentence or row.error
    return f"{row.name}: {row.state}{after}" + (f": {more}" if more else "")


@final
class Silent:
    """Shows nothing."""

    def ended(self, row: Row, done: int, total: int) -> None:
        pass

    def at_work(self, lines: Mapping[str, str], done: int, total: int) -> None:
        pass


@final
class _SweepLines:
    """A line for each run that ends, and every 15 s one for each run at work."""

    def __init__(self) -> None:
        self._begun = self._written = time.monotonic()

    def ended(self, row: Row, done: int, total: int) -> None:
        self._line(f"{done} of {total}: {_ending(row)}")

    def at_work(self, lines: Mapping[str, str], done: int, total: int) -> None:
        if time.monotonic() - self._written >= EVERY:
            for name, line in lines.items():
                self._line(f"{name}: {line or 'begins'}")

    def _line(self, text: str) -> None:
        self._written = time.monotonic()
        minutes, seconds = divmod(int(self._written - self._begun), 60)
        standard_error(f"[{minutes}:{seconds:02d}] {text}")


@final
class _LiveLines:
    """Runs that ended stay above; below them a line for each run at work, and the count."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def ended(self, row: Row, done: int, total: int) -> None:
        self._live.console.print(_ending(row), markup=False, highlight=False)

    def at_work(self, lines: Mapping[str, str], done: int, total: int) -> None:
        from rich.text import Text

        shown = [f"  {name[:_NAMED]:{_NAMED}} {line}" for name, line in lines.items()]
        text = "\n".join([*shown, f"{done} of {total} runs have ended"])
        self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
