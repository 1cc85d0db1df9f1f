"""What windows of episodes say of the last updates.

Over the last 1,600 updates the return rose by 210 ± 60 (16 episodes against the 16 before).
In the last 3 windows of about 1,600 updates it fell in 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradlab.runs.probe.results import Columns, ProbeRun
from gradlab.runs.probe.returns import RECENT, TRAINED, WINDOW, Change, Returns
from gradlab.verdicts.screen import Sentence
from gradlab.wording import two

_Source = Literal["returns", "episodes"]
_SIZES: dict[_Source, int] = {"returns": WINDOW, "episodes": TRAINED}
_WHOSE: dict[_Source, str] = {"returns": "", "episodes": " of training episodes"}
COUNTED: dict[_Source, str] = {"returns": "episodes", "episodes": "training episodes"}


@dataclass(frozen=True)
class Seen:
    """Windows of one source.

    Attributes:
        changes: of the newest windows; since: the newest window against the first.
        risen: is that one known to be above, beyond what one window in many shows by chance?
    """

    source: _Source
    changes: tuple[Change, ...]
    since: Change
    risen: bool

    @property
    def newest(self) -> Change:
        return self.changes[-1]

    @property
    def raised(self) -> bool:
        """Is the return above where it began, without having fallen lately?"""
        return self.risen and self.newest.direction != "fell"

    @property
    def text(self) -> str:
        """The newest change, and where it is not known that of all windows together."""
        text = f"Over the last {self.newest.updates:,} updates the return{_WHOSE[self.source]} "
        text += f"{told(self.newest)}."
        if len(self.changes) > 1 and not (self.risen and self.newest.direction == "rose"):
            text += f" Since the first window it {told(self.since)}."
        return text

    @property
    def count(self) -> str:
        """fell in 2 of 3 windows; "" where there is one only."""
        ways, n = [each.direction for each in self.changes], len(self.changes)
        if n < 2 or not {"fell", "rose"} & set(ways):
            return ""
        counts = [f"{way} in {ways.count(way)}" for way in ("rose", "fell") if way in ways]
        return f"It {' and '.join(counts)} of the last {n} windows."


def seen(run: ProbeRun) -> Seen | None:
    """As `_seen_in`, of a run."""
    return _seen_in(run.returns, run.episodes)


def _seen_in(returns: Columns, episodes: Columns) -> Seen | None:
    """The policy's own episodes, else those of training; None before two windows are full."""
    tables: dict[_Source, Columns] = {"returns": returns, "episodes": episodes}
    for source, table in tables.items():
        windows = Returns.of(table, _SIZES[source])
        changes, since = tuple(windows.changes(RECENT)), windows.since_begin()
        if since is not None:
            return Seen(source, changes, since, windows.risen)
    return None


def waiting(run: ProbeRun) -> str:
    """What is not known of the return, and when it will be."""
    parts = run.due.split("; ")
    due = next((part for part in parts if part.startswith("returns: ")), "")
    _, found, when = due.partition("first answer ")
    if found:
        return f"Whether a step helps: first answer {when}."
    if due.startswith("returns: no answer"):
        return "Whether its steps helped is not known: the run was too short."
    measured = next((part for part in parts if part.startswith("task: ")), "")
    if run.task and measured:
        return f"Whether a step helps is not known: {measured.removeprefix('task: ')}."
    lacking = Returns.of(run.episodes, TRAINED).lacking
    if len(run.episodes.get("value", ())):
        return f"Whether a step helps: first answer after {lacking} more training episodes."
    return "Whether a step helps is not known: give env=make_env, or note(episode_return=…)."


def sentence(run: ProbeRun) -> Sentence | None:
    """The newest change with its count, as the report has it below the first screen."""
    found = seen(run)
    if found is None:
        return None
    size, what = _SIZES[found.source], COUNTED[found.source]
    text = f"{found.text} {found.count}".strip()
    text += f" Windows of {size} {what} (Welch, 95%, N = {2 * size})."
    return Sentence("returns", found.newest.direction != "open", text)


def told(change: Change) -> str:
    """rose by 210 ± 60"""
    value, half = change.number.value, two((change.number.high - change.number.low) / 2)
    if change.direction == "open":
        return f"is not shown to have changed ({two(value)} ± {half})".replace("-", "−")
    return f"{change.direction} by {two(abs(value))} ± {half}"
