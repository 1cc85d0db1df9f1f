"""`gradlab audit FILE.py:FUNCTION`: where an actor's gradient comes from, and where it is lost."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from gradlab.cli import arguments
from gradlab.cli.arguments import Document
from gradlab.cli.streams import undisturbed
from gradlab.errors import InputError
from gradlab.user_code import failing, is_user_function, load_made


@dataclass(frozen=True)
class AuditCommand:
    """Where does an actor loss get its gradient, and where does it lose it?

    Shows gradients by path, dead paths, lost samples, leaks and scales. Exit code 1 where something
    is wrong.

        gradlab audit my_loss.py:sac
        gradlab audit my_loss.py:maac --lengths 8 16
    """

    file: Positional[
        Annotated[
            str,
            arg(
                metavar="FILE.py:FUNCTION",
                help="A function that returns a dict of the arguments of gradlab.audit: loss, "
                "actor, and any of critic, model, inputs, optimizer, lengths (the file is "
                "executed).",
            ),
        ]
    ]
    lengths: Annotated[tuple[int, int] | None, arg(metavar="L L")] = None
    """Two lengths of a segment, which the loss takes as length=, to compare how one step weighs.
    Default: the file's, else not compared."""
    seed: arguments.Seed = 0
    json: bool = False
    """Print one JSON document: findings, gradients by path, and scales."""

    def run(self, command: str) -> Document:
        """The audit; `passed` decides the exit code."""
        with undisturbed():
            from gradlab.tools.audit.compute import audit

        if not is_user_function(self.file):
            raise InputError(f"{self.file!r} is no function of a file, expected FILE.py:FUNCTION")
        given = load_made(self.file)
        names = list(inspect.signature(audit).parameters)
        if not isinstance(given, Mapping):
            raise InputError(
                f"{self.file} gives a {type(given).__name__}, expected a dict of the arguments of "
                f"gradlab.audit, as dict(loss=loss, actor=actor, critic=critic)"
            )
        for key in given:
            if key not in names:
                raise InputError(f"{self.file} gives {key!r}, expected any of {', '.join(names)}")
        for key in ("loss", "actor"):
            if key not in given:
                raise InputError(f"{self.file} gives no {key}: gradlab.audit needs loss and actor")
        given = dict(given)
        given |= {} if self.lengths is None else {"lengths": self.lengths}
        with failing(self.file.rpartition(":")[0]):
            result = audit(**{"seed": self.seed} | given)
        return {
            "passed": result.passed,
            "headline": str(result).partition("\n")[0],
            "text": str(result),
            "findings": [asdict(finding) for finding in result.findings],
            "table": result.table().to_dict("records"),
            "scales": [asdict(scale) for scale in result.scales],
        }
