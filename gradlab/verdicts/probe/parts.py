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
    rows = run.checks
    return [_sentence(rows, k, run.seconds) for k in range(len(rows.get("number", ())))]


def unchecked(run: ProbeRun) -> int:
    """How many checks are off, or have no answer yet."""
    return sum(str(each) in ("off", "waiting") for each in run.checks.get("state", ()))


def _sentence(rows: object, k: int, elapsed: float) -> Sentence:
    def of(name: str) -> str:
        return str(rows[name][k])  # type: ignore[index]

    state, looks = of("state"), int(float(of("looks")))
    text = f"{capital(of('check'))}: {_WORDS.get(state, 'yes')}, {of('proof')}"
    share = float(of("seconds")) / elapsed if elapsed > 0 else np.nan
    if looks and np.isfinite(share):
        text += f"; {looks} looks, {percent(share)} of the time"
    return Sentence("part", state in ("sound", "fault"), f"{text}.")
