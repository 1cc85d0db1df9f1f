"""`gradlab certify SIMULATOR`: are its derivatives those of its own step?"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from gradlab.cli import arguments
from gradlab.cli.answer import as_text
from gradlab.cli.streams import Document, bars, undisturbed
from gradlab.errors import InputError
from gradlab.storage.whole_files import keep

if TYPE_CHECKING:
    from gradlab.systems.system import System
    from gradlab.tasks import Task

_SUFFIXES = {"html": ".html", "output": ".json"}


@dataclass(frozen=True)
class Certify:
    """Are a simulator's derivatives those of its own step, and where not?

    Exit code 0: sound; 1: a derivative is wrong by more than --fail-above.

        gradlab certify Hopper-v5 --samples 512
        gradlab certify mine.py:simulator --html page.html
    """

    simulator: Annotated[
        Positional[str],
        arg(
            metavar="SIMULATOR",
            help="A task of `gradlab list tasks`, or file.py:function of a System or a Task.",
        ),
    ]
    settings: arguments.Settings = ()
    policy: Annotated[str | None, arg(metavar="FILE")] = None
    """Policy of the rollouts: .safetensors file or file.py:function. Default: random actions."""
    samples: int = 2048
    """Number of states."""
    fail_above: float = 1e-3
    """Relative error from which a derivative is wrong."""
    seed: arguments.Seed = 0
    html: Annotated[Path | None, arg(metavar="FILE.html")] = None
    """The page."""
    output: Annotated[Path | None, arg(metavar="FILE.json")] = None
    """The certificate."""
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document."""

    def run(self, command: str) -> Document:
        """Certify, and write what was asked for; `passed` decides the exit code."""
        with undisturbed():
            from gradlab.reporting.output import named, write
            from gradlab.tasks import Task
            from gradlab.tools.certify.compute import certify, simulator_of
            from gradlab.tools.certify.page import page

        for name, suffix in _SUFFIXES.items():
            path = getattr(self, name)
            if path is not None and path.suffix != suffix:
                raise InputError(
                    f"--{name} is {path}: certify writes the certificate as --output FILE.json and "
                    f"the page as --html FILE.html, no .h5"
                )
        if self.settings:
            system: System | Task = arguments.named_task(self.simulator, self.settings)
        else:
            system = simulator_of(self.simulator)
        policy = arguments.networks(policy=self.policy).get("policy")
        with bars() as progress:
            found = certify(
                system, policy=policy, samples=self.samples, first_call=True,
                fail_above=self.fail_above, seed=self.seed, progress=progress,
            )  # fmt: skip
        if not isinstance(system, Task):  # whose class has no name that readers know it by
            found = replace(found, system=Path(self.simulator).name)
        # The command that examines the same states, whatever is written where.
        words = ["gradlab", "certify", self.simulator]
        words += [word for group in self.settings for word in ("--set", *group)]
        words += ["--policy", self.policy] if self.policy else []
        words += ["--samples", str(self.samples), "--fail-above", f"{self.fail_above:g}"]
        facts = {**found.facts, "command": shlex.join([*words, "--seed", str(self.seed)])}
        found = replace(found, facts=facts)
        document: Document = found.document()
        if self.html is not None:
            document["report"] = str(write(named(self.html), page(found)))
        if self.output is not None:
            text = as_text(document, ensure_ascii=False, indent=1)

            def save(path: Path) -> None:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{text}\n", encoding="utf-8")

            keep({self.output: save})
            document["run"] = str(self.output)
        return document
