"""The loop's own parts in words: the likeliest cause of a fault, and the answer of every check."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gradlab.probe.alarms.evidence import CAUSES
from gradlab.runs.probe.results import ProbeRun
from gradlab.verdicts.phrases import capital
from gradlab.verdicts.screen import Sentence
from gradlab.wording import percent

# Alarms whose message is a cause, too: steps that are none, or far too long.
_OF_STEPS = ("actor moves in part", "critic's learning rate too large")
_WORDS = {"off": "not looked at", "waiting": "open", "fault": "fault"}


@dataclass(frozen=True)
class _Cause:
    """One that a check has proved, or a step that its optimiser makes.

    Attributes:
        words: end with the line to look at; step: since when.
    """

    kind: str
    words: str
    step: int


def causes(run: ProbeRun) -> list[_Cause]:
    """Those upstream first, the optimisers' own last."""
    kinds = [str(each) for each in run.alarms.get("alarm", ())]
    found = []
    for kind in (*CAUSES, *_OF_STEPS):
        if kind in kinds:
            newest = len(kinds) - 1 - kinds[::-1].index(kind)  # its number is the freshest
            words = capital(str(run.alarms["message"][newest]))
            words = words if words.endswith(("?", ".")) else f"{words}."
            found.append(_Cause(kind, words, int(run.alarms["step"][kinds.index(kind)])))
    return found


def checked(run: ProbeRun) -> list[Sentence]:
    """A sentence for every check: its answer, its proof, on how many looks, and what it cost."""
    found = []
    for k in range(len(run.checks.get("number", ()))):
        row = {name: str(column[k]) for name, column in run.checks.items()}
        state, looks = row["state"], int(float(row["looks"]))
        text = f"{capital(row['check'])}: {_WORDS.get(state, 'yes')}, {row['proof']}"
        share = float(row["seconds"]) / run.seconds if run.seconds > 0 else np.nan
        if looks and np.isfinite(share):
            text += f"; {looks} looks, {percent(share)} of the time"
        found.append(Sentence("part", state in ("sound", "fault"), f"{text}."))
    return found


def unchecked(run: ProbeRun) -> int:
    """How many checks are off, or have no answer yet."""
    return sum(str(each) in ("off", "waiting") for each in run.checks.get("state", ()))
