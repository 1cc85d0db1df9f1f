"""The command-line reference: the text of each command's --help, as it is printed at 80 columns."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

from gradlab.cli import program

HEAD = """# Command line

Commands that recommend print the recommendation first and the rest with `--explain`; all print one
document for machines with `--json`. Exit codes: 0 done, 1 failed, 2 wrong usage (one line names
what to change), 130 interrupted, 143 terminated. `python -m gradlab` is the same program.
"""


def write(folder: Path) -> None:
    """Writes commands.md."""
    sections = [f"## gradlab {name}\n\n```text\n{help_of(name)}\n```\n" for name in names()]
    (folder / "commands.md").write_text("\n".join([HEAD, *sections]))


def names() -> Iterator[str]:
    """Of the commands, in the order of `gradlab --help`."""
    yield from program.commands()


def help_of(command: str) -> str:
    """What `gradlab COMMAND --help` prints on a terminal of 80 columns."""
    text, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
            program.parsed([command, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    return "\n".join(line.rstrip() for line in text.getvalue().strip().splitlines())
