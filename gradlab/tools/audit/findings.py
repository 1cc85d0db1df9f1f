"""Findings of an audit, one for each cause."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "dead actor", "dead path", "dead parameter", "not reparameterised", "detached", "truncated",
    "leak", "left behind", "not stepped", "shared", "scale", "not finite", "zero layer",
    "surrogate", "idle score", "own draws", "dead rows",
]  # fmt: skip


@dataclass(frozen=True)
class AuditFinding:
    """
    Attributes:
        severity: "wrong": the gradient is not that of the loss, or is applied where it should not
            be; "note": right, if it is meant.
        parameters: names of parameters that it is about.
        path: "model", "critic", or None.
        place: file and line of the cause, or "".
    """

    kind: Kind
    severity: Literal["wrong", "note"]
    sentence: str
    parameters: tuple[str, ...] = ()
    path: str | None = None
    place: str = ""
