"""`gradlab check FILE.py`: a file of one's own, looked over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradlab.cli.streams import Document, undisturbed
from gradlab.errors import InputError


@dataclass(frozen=True)
class CheckCommand:
    """What does gradlab find in your file, and what is missing?

    Lists tasks, systems and modules of the file, and what its functions make… and …task return.
    Exit code 1 where something is missing.

        gradlab check env.py
        gradlab check env.py:make_task
    """

    file: Annotated[
        Positional[Path], arg(metavar="FILE.py[:NAME]", help="Your file (it is executed).")
    ]
    json: bool = False
    """Print one JSON document."""

    def run(self, command: str) -> Document:
        """The findings; `passed` decides the exit code."""
        with undisturbed():
            from gradlab.tools.check.compute import checked

        file, colon, name = str(self.file).rpartition(":")
        if not colon or name.endswith(".py"):  # a folder may have a colon
            file, name = str(self.file), ""
        if not file.endswith(".py"):
            raise InputError(f"{file!r} is no file of Python's: FILE.py or FILE.py:NAME")
        findings, after = checked(file, name)
        missing = dict.fromkeys(each.subject for each in findings if each.decision == "fail")
        headline = "Ready to be measured." if after else f"Nothing is missing in {file}."
        if missing:  # in words below
            headline = f"Something is missing in {file}: {', '.join(missing)}."
        lines = [f"{each.mark} {each.subject}: {each.said}" for each in findings]
        return {
            "passed": not missing, "headline": headline, "next": after,
            "text": "\n".join([*lines, *[after] * bool(after)]),
            "findings": [each.document for each in findings],
        }  # fmt: skip
