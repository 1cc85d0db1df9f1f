"""`gradlab audit FILE.py:loss --batch FILE.npz`: is a loss right?"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any

from tyro.conf import Positional, arg

from gradlab import validation
from gradlab.cli import arguments
from gradlab.cli.streams import Document, undisturbed
from gradlab.errors import InputError
from gradlab.options import named
from gradlab.user_code import called, executed, failing, is_user_function, needs_nothing, own_names


@dataclass(frozen=True)
class AuditCommand:
    """Is a loss right: its target, mask, sign, density, and the paths of its gradient?

    Calls the loss on changed batches; trains nothing. Exit code 1 where a law is broken.

        gradlab audit td3.py:critic_loss --batch batch.npz --discount 0.99
        gradlab audit sac.py:actor_case
    """

    file: Positional[
        Annotated[
            str,
            arg(
                metavar="FILE.py:NAME",
                help="loss(batch), beside declarations of the same file by name (critic, target, "
                "actor, …); or a function without arguments that returns all of them in a dict, "
                "as gradlab.audit takes them. The file is executed.",
            ),
        ]
    ]
    batch: Annotated[str | None, named("FILE.npz", "Columns of the batch.")] = None
    kind: Annotated[
        str | None, named("KIND", "critic, actor, policy, fit or gae.", default="the file's")
    ] = None
    discount: arguments.Number = None
    meant: Annotated[tuple[str, ...], named("LAW")] = ()
    """Laws that the loss breaks on purpose."""
    seed: arguments.Seed = 0
    output: Annotated[str | None, named("RUN.h5", "File of the findings.")] = None
    json: bool = False
    """Print one JSON document."""

    def run(self, command: str) -> Document:
        """The audit; `passed` decides the exit code."""
        with undisturbed():
            from gradlab.losses.asking import Declared
            from gradlab.losses.laws import audit

        if not is_user_function(self.file):
            raise InputError(f"{self.file!r} is no function of a file, expected FILE.py:NAME")
        declared = {each.name for each in fields(Declared)}
        given = self._given({"loss", "batch", "inputs", "kind", *declared})
        for name in ("kind", "discount", "meant"):
            if (value := getattr(self, name)) not in (None, ()):
                given[name] = value
        if self.batch is not None:
            given["batch"] = _columns(self.batch)
        with failing(self.file.rpartition(":")[0]):
            found = audit(**{"seed": self.seed} | given)
        if self.output is not None:
            found.save(self.output)
        return {
            "passed": found.passed,
            "headline": found.headline,
            "text": str(found),
            "findings": [each.document for each in found.findings],
        }

    def _given(self, names: set[str]) -> dict[str, Any]:
        """Arguments of the audit, of a dict or of the file's names."""
        file, _, name = self.file.rpartition(":")
        module = executed(file)
        target = getattr(module, name, None)
        if target is None:
            there = ", ".join(own_names(module)) or "none"
            raise InputError(f"{file} has no function {name!r}: it has {there}")
        if inspect.isroutine(target) and not needs_nothing(target):
            found = {each: value for each, value in vars(module).items() if each in names}
            return found | {"loss": target}
        given = called(self.file, target) if callable(target) else target
        validation.instance(
            self.file, given, Mapping, "a dict of the arguments of gradlab.audit, or loss(batch)"
        )
        for key in given:
            if key not in names:
                raise InputError(
                    f"{self.file} gives {key!r}, expected any of {', '.join(sorted(names))}"
                )
        if "loss" not in given:
            raise InputError(f"{self.file} gives no loss")
        return dict(given)


def _columns(path: str) -> dict[str, Any]:
    """The arrays of an .npz file, as tensors."""
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: torch.as_tensor(file[name]) for name in file.files}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"batch is {path!r}, expected a file of numpy.savez: {error}") from error
