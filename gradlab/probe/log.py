"""The log of a probe: rows of numbers, and the newest answer of every check.

Rows go to a run's file, to functions of one dict, to several of these, or nowhere; each is tested
with the rows before it. What has failed once stays: it is printed when it is first seen, and
written again after twice as many updates and at the end.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO, final

from gradlab.errors import InputError
from gradlab.findings import Finding
from gradlab.probe.checks import Evidence, examine
from gradlab.runs.probe.results import Reported
from gradlab.runs.probe.schema import Row, flat, tables
from gradlab.storage.journal import Journal, journal_of
from gradlab.storage.records import Attribute, check_output

Function = Callable[[dict[str, Any]], object]
Logs = str | Path | Function | Sequence["Logs"] | None
_KEPT = 256  # rows of each table
_VAGUE = ("nan.unseen", "nan.loss of rows", "nan.loss of all rows")  # origins, until one is exact
_EXACT = ("nan.operation", "nan.negative", "nan.one row")
_SOURCE = "gradlab probe"  # first words of what is printed


@final
class _File:
    """A run's journal, opened with its first row.

    Args:
        shape: tensors of the policy; the longest horizon, None without a task; da, when it is
            known.

    Raises:
        InputError: there is a run already.
    """

    def __init__(
        self, path: str | Path, head: Mapping[str, Attribute],
        shape: tuple[int, int | None, Callable[[], int]],
    ) -> None:  # fmt: skip
        self.path, self.head, self.shape = Path(path), dict(head), shape
        self._journal: Journal | None = None
        check_output(self.path, overwrite=True)  # else "" and long names fail below
        if self.path.is_file() or journal_of(self.path).exists():
            raise InputError(f"log is {path}, which holds a run already: choose another name")

    def write(self, table: str, row: Row) -> None:
        if self._journal is None:  # the first row, or one after the probe was closed
            parameters, horizon, actions = self.shape
            self._journal = Journal(self.path, tables(parameters, actions(), horizon), self.head)
        schema = self._journal.tables[table]
        kept = {k: v for k, v in row.items() if k in schema.columns or k == schema.index}
        self._journal.append(table, kept)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None


@final
class Log:
    """Files rows and findings.

    Args:
        places: paths and functions.
        names: of the parameters.
        critic_alone: the loop's actor follows the critic alone: no check is about a model's steps.

    Attributes:
        rows: the last ones of every table.
        stream: where failures are printed; None: standard error.
    """

    def __init__(
        self, places: Logs, head: Mapping[str, Attribute], names: Sequence[str],
        shape: tuple[int, int | None, Callable[[], int]], *, critic_alone: bool = False,
    ) -> None:  # fmt: skip
        self.names, self.critic_alone = tuple(names), critic_alone
        found = list(_places(places))
        self.functions = [each for each in found if callable(each)]
        self.files = [_File(each, head, shape) for each in found if not callable(each)]
        self.stream: TextIO | None = None
        self.rows: dict[str, deque[Row]] = {}
        self._counts: dict[str, int] = {}
        self._held: dict[tuple[str, str], Reported] = {}
        self._numbers: dict[tuple[str, str], int] = {}
        self._written: dict[tuple[str, str], int] = {}  # updates
        self._about: dict[tuple[str, str], str] = {}

    @property
    def failed(self) -> list[Reported]:
        """What has failed, in the order in which it was first seen."""
        return [each for each in self._held.values() if each.finding.decision == "fail"]

    def file(self, table: str, row: Row) -> None:
        """Write a row and test it."""
        self.write(table, row)
        rows = self.rows.setdefault(table, deque(maxlen=_KEPT))
        rows.append(row)
        count = self._counts[table] = self._counts.get(table, 0) + 1
        evidence = Evidence(list(rows), count, self.names, self.critic_alone)
        for finding in examine(table, evidence):
            self.report(finding, int(row["update"]), int(row["step"]))

    def write(self, table: str, row: Row) -> None:
        for file in self.files:
            file.write(table, row)
        for function in self.functions:
            function(flat(table, row, self.names))

    def report(self, finding: Finding, update: int, step: int) -> None:
        """An answer of a check; a failure stays, whatever is answered later."""
        key = _key(finding)
        held = self._held.get(key)
        before = "" if held is None else held.finding.decision
        if before == "fail" and finding.decision != "fail":
            return
        if (
            held is not None
            and key[0] == "nan"
            and not (held.code in _VAGUE and finding.code in _EXACT)
        ):
            return  # what it has spoilt since is no origin
        self._numbers.setdefault(key, len(self._numbers))
        since, looks = (-1, 0) if held is None else (held.since, held.looks)
        new = finding.decision == "fail" and before != "fail"
        answer = Reported(finding, update, step, step if new else since, looks + 1)
        self._held[key] = answer
        if finding.decision != before or update >= 2 * max(self._written.get(key, 0), 1):
            self._write(key, answer)
        if new:
            self._tell(answer)

    def answer(self, about: str, findings: Iterable[Finding], update: int, step: int) -> None:
        """The newest answers of several checks, which take the place of those before; failures
        stay."""
        new = {_key(each): each for each in findings}
        for key, held in list(self._held.items()):
            gone = self._about.get(key) == about and key not in new
            if gone and held.finding.decision != "fail":
                self._write(key, replace(held, finding=Finding("", "skipped")))
                del self._held[key]
        for key, finding in new.items():
            self._about[key] = about
            self.report(finding, update, step)

    def say(self, text: str) -> None:
        """Print a line that is no finding."""
        print(f"{_SOURCE}: {text}", file=self.stream or sys.stderr, flush=True)

    def close(self) -> None:
        """Write the newest answers, and close the files, whichever fails; functions that have a
        `finish` get the first one's path then."""
        with ExitStack() as stack:
            for function in self.functions if self.files else ():
                if hasattr(function, "finish"):
                    stack.callback(function.finish, self.files[0].path)
            for file in reversed(self.files):
                stack.callback(file.close)
            for key, answer in self._held.items():
                if self._written.get(key) != answer.update:
                    self._write(key, answer)

    def _write(self, key: tuple[str, str], answer: Reported) -> None:
        self._written[key] = answer.update
        row = asdict(answer.finding) | {"number": self._numbers[key], "looks": answer.looks}
        row |= {"update": answer.update, "step": answer.step, "since": answer.since}
        for file in self.files:
            file.write("findings", row)

    def _tell(self, answer: Reported) -> None:
        # 0 is also the count of a loop that has marked no update yet.
        when = f"step {answer.step}" if answer.step or answer.update else "at the beginning"
        text = f"{_SOURCE}, {when}: {answer.finding.title}: {answer.message}"
        print(text, file=self.stream or sys.stderr, flush=True)
        alert = {"findings/title": answer.finding.title, "findings/message": answer.message}
        for function in self.functions:
            function({"step": answer.step, "update": answer.update} | alert)


def _key(finding: Finding) -> tuple[str, str]:
    """What is one answer: of a lost gradient the first origin."""
    family, _, _ = finding.code.partition(".")
    return ("nan", "") if family == "nan" else (finding.code, finding.subject)


def _places(logs: Logs) -> Sequence[Any]:
    if isinstance(logs, list | tuple):
        return [each for part in logs for each in _places(part)]
    return [] if logs is None else [logs]
