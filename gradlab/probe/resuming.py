"""Where a log left off, so that another probe goes on in it: counts, alarms, time and its share.

The policy's tensors, the task and the tables must be those of the log; the share of the time and
the seed may be others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gradlab.errors import InputError
from gradlab.runs.probe import results
from gradlab.runs.probe.results import Columns, ProbeRun, last
from gradlab.runs.probe.schema import tables
from gradlab.storage import journal
from gradlab.storage.journal_tables import plain
from gradlab.storage.records import Attribute, Record

NEW = "log to a new file"


@dataclass(frozen=True)
class Earlier:
    """The content of a log.

    Attributes:
        updates, alarms: so far; own, elapsed: seconds of the probe and of the loop.
        returns, episodes: tables, by columns; {} where they have no rows.
        actions: da of its tables.
    """

    updates: int = 0
    alarms: int = 0
    own: float = 0.0
    elapsed: float = 0.0
    actions: int = 0
    returns: Columns = field(default_factory=dict)
    episodes: Columns = field(default_factory=dict)


def earlier(path: Path, head: Mapping[str, Attribute], horizon: int | None) -> Earlier:
    """The content of the run at `path`, for a probe with this head that goes on in it.

    Raises:
        InputError: it is no probe's, another policy's or task's, or of another version.
    """
    record = journal.read(path)
    run = results.from_record(record, path)
    _check(run, path, head)
    groups = record.groups.get("vitals", {})
    actions = len(groups["action"].values) if "action" in groups else 0
    if run.horizon != horizon:
        raise InputError(f"log is {path}, measured up to h = {run.horizon}, not {horizon}: {NEW}")
    expected = tables(len(run.parameters), actions, horizon)
    now = {name: plain(each) for name, each in expected.items()}
    if _tables(record) != json.loads(json.dumps(now)):
        raise InputError(f"log is {path}, whose tables are another version's: {NEW}")
    reported = int(run.alarms["number"][-1]) + 1 if run.alarms else 0
    own, elapsed = (last(run.vitals, "own_seconds"), run.seconds) if run.vitals else (0.0, 0.0)
    return Earlier(run.updates, reported, own, elapsed, actions, run.returns, run.episodes)


def _check(run: ProbeRun, path: Path, head: Mapping[str, Attribute]) -> None:
    names = tuple(json.loads(str(head["parameters"])))
    if run.parameters != names:
        mine, theirs = (_shown(each) for each in (names, run.parameters))
        raise InputError(
            f"log is {path}, of a policy with tensors {theirs}, not {mine}: {NEW}, or resume with "
            f"the policy of that run"
        )
    shapes, before = json.loads(str(head["config"])).get("shapes"), run.config.get("shapes")
    if before is not None and shapes != before:
        raise InputError(f"log is {path}, of a policy of other sizes: {NEW}")
    if run.task != head["task"]:
        task = repr(run.task) if run.task else "no task"
        raise InputError(
            f"log is {path}, of {task}, not of {str(head['task'])!r}: {NEW}, or resume with the "
            f"task of that run"
        )
    law = json.loads(str(head["config"]))["law"]
    if run.config.get("law") != law:
        raise InputError(f"log is {path}, measured by another version at other states: {NEW}")


def _tables(record: Record) -> object:
    return json.loads(str(record.attributes.get("tables", "{}")))


def _shown(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
