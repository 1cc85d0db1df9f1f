"""`gradlab init` and `gradlab check`: a file of one's own, to begin with and to look over."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradlab.cli.arguments import Document
from gradlab.cli.terminal.streams import undisturbed
from gradlab.errors import InputError

_NEXT = {
    "env": "gradlab measure {file}:make_task",
    "model": "gradlab measure TASK --model {file}:step",
    "worldmodel": "gradlab measure {file}:make_task --policy {file}:make_policy --critic "
    "{file}:make_critic",
}


@dataclass(frozen=True)
class InitCommand:
    """How does a file with your own environment, model or world model begin?

    Writes a file that runs as it is, for you to change.

        gradlab init env
        gradlab init worldmodel tdmpc.py
    """

    kind: Positional[Literal["env", "model", "worldmodel"]]
    """A batched torch environment with a step of its own; a model of a task's step; a model with a
    latent of its own, such as TD-MPC2's or Dreamer's."""
    file: Annotated[Positional[Path | None], arg(metavar="FILE.py")] = None
    """Default: KIND.py."""
    overwrite: Annotated[bool, arg(help="Replace a file of that name.")] = False
    json: bool = False
    """Print one JSON document."""

    def run(self, command: str) -> Document:
        """Write it; says how to go on."""
        file = Path(f"{self.kind}.py") if self.file is None else self.file
        if file.suffix != ".py":
            raise InputError(f"the file is {file}: name one that ends in .py")
        if file.exists() and not self.overwrite:
            raise InputError(f"{file} is there already: overwrite=True replaces it")
        text = (resources.files(__package__) / f"{self.kind}.txt").read_text(encoding="utf-8")
        file.write_text(text.replace(f"{self.kind}.py", str(file)), encoding="utf-8")
        after = [f"gradlab check {file}", _NEXT[self.kind].format(file=file)]
        return {
            "headline": f"Wrote {file}: put yours into it.",
            "text": "\n".join(after), "file": str(file), "next": after,
        }  # fmt: skip


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
        """The lines; `passed` decides the exit code."""
        with undisturbed():
            from gradlab.tools.skeletons.check import checked

        file, colon, name = str(self.file).rpartition(":")
        if not colon or name.endswith(".py"):  # a folder may have a colon
            file, name = str(self.file), ""
        if not file.endswith(".py"):
            raise InputError(f"{file!r} is no file of Python's: FILE.py or FILE.py:NAME")
        lines, after = checked(file, name)
        counts = Counter(line.state for line in lines)
        missing = dict.fromkeys(line.about for line in lines if line.state == "missing")
        headline = "Ready to be measured." if after else f"Nothing is missing in {file}."
        if missing:  # in words below
            headline = f"Something is missing in {file}: {', '.join(missing)}."
        text = "\n".join([*map(str, lines), *[after] * bool(after)])
        return {
            "passed": not missing, "headline": headline, "text": text,
            "lines": [asdict(line) for line in lines], "counts": dict(counts), "next": after,
        }  # fmt: skip
