"""`gradlab certify SIMULATOR`: are its derivatives those of its own step?"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from gradlab.cli import arguments
from gradlab.cli.answer import of_run
from gradlab.cli.streams import Document, bars, undisturbed
from gradlab.storage.whole_files import keep

if TYPE_CHECKING:
    from gradlab.systems.system import System
    from gradlab.tasks import Task


@dataclass(frozen=True)
class Certify:
    """Are a simulator's derivatives those of its own step, and where not?

    Exit code 0: sound; 1: a derivative is wrong by more than --fail-above.

        gradlab certify Hopper-v5 --samples 512
        gradlab certify mine.py:simulator --output runs/mine.h5
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
    output: Annotated[Path | None, arg(metavar="RUN.h5")] = None
    """File of the certificate, with its page beside it. Default: none."""
    overwrite: arguments.Overwrite = False
    no_report: arguments.NoReport = False
    explain: arguments.Explain = False
    json: arguments.Json = False

    def run(self, command: str) -> Document:
        """Certify, and write what was asked for; `passed` decides the exit code."""
        with undisturbed():
            from gradlab.tasks import Task
            from gradlab.tools.certify.compute import certify, simulator_of

        if self.output is not None:
            arguments.check_outputs(self.output, (), self.overwrite, page=not self.no_report)
        if self.settings:
            system: System | Task = arguments.named_task(self.simulator, self.settings)
        else:
            system = simulator_of(self.simulator)
        policy = arguments.networks(policy=self.policy).get("policy")
        with bars() as progress:
            found = certify(
                system, policy=policy, samples=self.samples, fail_above=self.fail_above,
                seed=self.seed, progress=progress,
            )  # fmt: skip
        if not isinstance(system, Task):  # whose class has no name that readers know it by
            found = replace(found, system=Path(self.simulator).name)
        # The command that examines the same states, whatever is written where.
        given = arguments.parameters(self.settings)
        words = ["gradlab", "certify", *arguments.as_words(self.simulator, given)]
        words += ["--policy", self.policy] if self.policy else []
        words += ["--samples", str(self.samples), "--fail-above", f"{self.fail_above:g}"]
        facts = {**found.facts, "command": shlex.join([*words, "--seed", str(self.seed)])}
        found = replace(found, facts=facts)
        document: Document = found.document()
        if self.output is not None:
            keep({self.output: partial(found.save, overwrite=self.overwrite)})
            document |= of_run(self.output, page=not self.no_report, found=found)
        return document
