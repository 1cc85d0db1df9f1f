"""`gradlab step BEFORE AFTER --env ID`: did the last updates raise the return?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from gradlab.cli import arguments
from gradlab.cli.arguments import Document
from gradlab.cli.terminal.answer import of_screen
from gradlab.cli.terminal.progress_bars import bars
from gradlab.cli.terminal.streams import undisturbed


@dataclass(frozen=True)
class StepCommand:
    """Did the last updates raise the return?

    Plays whole episodes of both policies, and of the opposite step, from the same resets, until the
    signs are known. Needs an environment's reset and step alone. One step that lowers the return is
    no fault.

        gradlab step before.safetensors after.safetensors --env Hopper-v5
        gradlab step mine.py:before mine.py:after --env mine.py:make_env --updates 50
    """

    before: Positional[
        Annotated[
            str,
            arg(
                metavar="BEFORE",
                help="Policy before the updates: .safetensors file or file.py:function (the file "
                "is executed).",
            ),
        ]
    ]
    after: Positional[Annotated[str, arg(metavar="AFTER", help="The same after them.")]]
    env: Annotated[str, arg(metavar="ENV")]
    """An id of Gymnasium, or file.py:function that makes an environment with reset and step."""
    starts: int = 4
    """Resets of the first look; they are doubled until the signs are known."""
    at_most: int = 64
    """Resets of the last look."""
    updates: Annotated[int | None, arg(metavar="K")] = None
    """Updates between the two, for the words. Default: not said."""
    seed: arguments.Seed = 0
    explain: arguments.Explain = False
    json: bool = False
    """Print one JSON document: what the step did, and the returns."""

    def run(self, command: str) -> Document:
        """The first screen, and the table of returns."""
        with undisturbed():
            from gradlab.networks.checkpoint import load
            from gradlab.racing.step import step
            from gradlab.verdicts.step import screen

        policies = [load(name) for name in (self.before, self.after)]
        with bars() as progress:
            found = step(
                policies[0], policies[1], self.env, starts=self.starts, at_most=self.at_most,
                updates=self.updates, seed=self.seed, progress=progress,
            )  # fmt: skip
        table = found.table().to_dict("records")
        return of_screen(screen(found)) | {"paired": found.paired, "table": table}
