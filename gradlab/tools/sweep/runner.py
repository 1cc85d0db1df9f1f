"""What a worker of a sweep does: one command after another, with its output in a log.

The commands of which a sweep can have many runs (`gradlab.tools.sweep.table`).
"""

from __future__ import annotations

import contextlib
import functools
import io
import operator
import os
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from typing import Annotated, Any, final

from tyro.conf import subcommand

from gradlab.cli.arguments import Document
from gradlab.cli.program import command_of
from gradlab.errors import InputError
from gradlab.tools.sweep.table import CHOSEN, PARAMETERS, Command

_KEPT = 4000  # characters of output that are kept for the line of an error
_MARKS = tuple(
    f"gradlab: {end}" for end in ("error: ", "failed: ", "interrupted; ", "terminated; ")
)


@final
class Runner:
    """Runs commands of the command line in this process.

    Args:
        folder: where relative paths begin, the working folder of who sweeps.
    """

    def __init__(self, folder: str) -> None:
        os.chdir(folder)

    def run(self, words: list[str], log: str) -> tuple[int, str, str]:
        """Run one command.

        Args:
            words: the command without `gradlab`.
            log: the file to which its output is appended.

        Returns:
            The exit code, the first sentence of the result, and the error in one line; empty where
            there is none.
        """
        from gradlab.cli.program import main
        from gradlab.cli.terminal.answer import answer

        documents: list[Document] = []

        def kept(document: Document, as_json: bool, explain: bool) -> None:
            documents.append(document)
            answer(document, as_json, explain)

        with _logged(log) as output:
            try:
                code = main(words, kept)
            except Exception:
                traceback.print_exc()
                raise
        if documents:
            # The recommendation, or else the first sentence of the verdict.
            document = documents[0]
            verdict: Any = document.get("verdict") or [{"text": ""}]
            return code, str(document.get("recommendation") or verdict[0]["text"]), ""
        return code, "", output.error(code) if code else ""


@final
class _Log(io.TextIOBase):
    """A stream into a file that keeps its last characters, also where the disk is full."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self._file, self._last = file, ""

    def write(self, text: str) -> int:
        self._last = (self._last + text)[-_KEPT:]
        return self._file.write(text)

    def flush(self) -> None:
        self._file.flush()

    def error(self, code: int) -> str:
        """The line in which a command has named its error, or what an interruption left."""
        for line in reversed(self._last.splitlines()):
            for mark in _MARKS:
                if line.startswith(mark):
                    return line.removeprefix(mark)
        return f"exit code {code}: see its log"


@contextlib.contextmanager
def _logged(log: str) -> Iterator[_Log]:
    """Inside, both standard streams go to a file, those of C libraries and of children, too."""
    file = open(log, "a", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed below)
    before = [os.dup(number) for number in (1, 2)]
    output = _Log(file)
    try:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            yield output
    finally:
        for number, descriptor in zip((1, 2), before, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        with contextlib.suppress(OSError):  # what a full disk does not take is lost
            file.close()


_RUN = {"output": ".h5"}
_CERTIFICATE = {"output": ".json", "html": ".html"}  # one replaces an earlier one


_ROWS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "measure": (_RUN, ("task",)),
    "train": (_RUN, ("algorithm", "task")),
    "remedies": (_RUN, ("task",)),
    "certify": (_CERTIFICATE, ("simulator",)),
}
COMMANDS: dict[str, Command] = {}
_classes: list[Any] = []
for _name, (_files, _positional) in _ROWS.items():
    with suppress(InputError):  # a tool that is not there
        _found: Any = command_of(_name)
        _options = [{"settings": PARAMETERS}.get(f.name, f.name) for f in fields(_found)]
        _known = tuple(option for option in _options if option not in CHOSEN)
        _plain = ["--overwrite"] if "overwrite" in _options else []
        _again = getattr(_found, "again", lambda run, words=_plain: words)
        COMMANDS[_name] = Command(_name, _positional, _known, _files, _again)
        _classes.append(Annotated[_found, subcommand(_name)])
Swept: Any = functools.reduce(operator.or_, _classes)
