"""What is left of one run of a loop: its parameters as one digest, and what the probe has told."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import gradlab

UNLIMITED: Mapping[str, Any] = {"overhead_budget": 1.0, "clock": lambda: 0.0}


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        digest: of all parameters and optimiser states, in hexadecimal.
        alarms: update, kind and message of every alarm, in their order.
        updates: of the policy; NaN without a probe.
        spent: share of the time by the probe's own account.
        history: rows of the probe's tables.
        error: what ended the loop before its time, in words.
    """

    digest: str
    alarms: tuple[tuple[int, str, str], ...] = ()
    updates: float = math.nan
    spent: float = math.nan
    history: Mapping[str, list[Any]] = field(default_factory=dict)
    error: str = ""


def digest(*held: Any) -> str:
    """Of tensors in nested dictionaries and lists, bit for bit."""
    found = hashlib.sha256()

    def take(value: Any) -> None:
        if isinstance(value, Tensor):
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        elif isinstance(value, Mapping):
            for key in value:
                take(value[key])
        elif isinstance(value, list | tuple):
            for each in value:
                take(each)
        else:
            found.update(repr(value).encode())

    with torch.no_grad():
        take(held)
    return found.hexdigest()[:16]


class Ear:
    """A log function that keeps the alarms."""

    def __init__(self) -> None:
        self.alarms: list[tuple[int, str, str]] = []

    def __call__(self, row: dict[str, Any]) -> None:
        if "alarms/alarm" in row:
            told = row["alarms/alarm"], row["alarms/message"]
            self.alarms.append((int(row["update"]), *told))


def heard(probe: gradlab.Probe | None, ear: Ear, held: list[Any], error: str = "") -> Outcome:
    """The outcome of a run, its probe closed; None: it has none, or died with the loop."""
    if probe is None:
        return Outcome(digest(*held), tuple(ear.alarms), error=error)
    probe.close()
    history = {name: list(rows) for name, rows in probe.alarm_log.rows[0].items()}
    count = float(probe._updates.count)
    return Outcome(digest(*held), tuple(ear.alarms), count, probe.spent, history, error)
