"""What windows of episodes say of the last updates.

Over the last 1,600 updates the return rose by 210 ± 60.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradlab.runs.probe.results import ProbeRun
from gradlab.runs.probe.returns import RECENT, TRAINED, WINDOW, Change, Returns
from gradlab.wording import two

# Table → episodes of a window, whose return it is, what is counted.
_SOURCES = {
    "returns": (WINDOW, "", "episodes"),
    "episodes": (TRAINED, " of training episodes", "training episodes"),
}


@dataclass(frozen=True)
class Seen:
    """Windows of one source, "returns" or "episodes".

    Attributes:
        changes: of the newest windows; since: the newest window against the first.
        risen: is that one known to be above, beyond what one window in many shows by chance?
    """

    source: str
    changes: tuple[Change, ...]
    since: Change
    risen: bool

    @property
    def newest(self) -> Change:
        return self.changes[-1]

    @property
    def window(self) -> int:
        return _SOURCES[self.source][0]

    @property
    def counted(self) -> str:
        """What a window has."""
        return _SOURCES[self.source][2]

    @property
    def raised(self) -> bool:
        """Is the return above where it began, without having fallen lately?"""
        return self.risen and self.newest.direction != "fell"

    @property
    def text(self) -> str:
        """The newest change, and where it is not known that of all windows together."""
        text = f"Over the last {self.newest.updates:,} updates the return"
        text += f"{_SOURCES[self.source][1]} {told(self.newest)}."
        if len(self.changes) > 1 and not (self.risen and self.newest.direction == "rose"):
            text += f" Since the first window it {told(self.since)}."
        return text

    @property
    def count(self) -> str:
        """It fell in 2 of the last 3 windows; "" where there is one only."""
        ways, n = [each.direction for each in self.changes], len(self.changes)
        if n < 2 or not {"fell", "rose"} & set(ways):
            return ""
        counts = [f"{way} in {ways.count(way)}" for way in ("rose", "fell") if way in ways]
        return f"It {' and '.join(counts)} of the last {n} windows."


def seen(run: ProbeRun) -> Seen | None:
    """The policy's own episodes, else those of training; None before two windows are full."""
    for source, (size, *_) in _SOURCES.items():
        windows = Returns.of(getattr(run, source), size)
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
        return "Whether its steps helped is unknown: the run was too short."
    measured = next((part for part in parts if part.startswith("task: ")), "")
    if run.task and measured:
        return f"Whether a step helps is unknown: {measured.removeprefix('task: ')}."
    lacking = Returns.of(run.episodes, TRAINED).lacking
    if len(run.episodes.get("value", ())):
        return f"Whether a step helps: first answer after {lacking} more training episodes."
    return "Whether a step helps is unknown: pass env=make_env, or call note(episode_return=…)."


def told(change: Change) -> str:
    """rose by 210 ± 60"""
    value, half = change.number.value, two((change.number.high - change.number.low) / 2)
    if change.direction == "open":
        return f"is not shown to have changed ({two(value)} ± {half})".replace("-", "−")
    return f"{change.direction} by {two(abs(value))} ± {half}"
