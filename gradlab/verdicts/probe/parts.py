"""The loop's own parts in words: the likeliest cause of a fault, and the answer of every check."""

from __future__ import annotations

import numpy as np

from gradlab.probe.alarms.parts import CAUSES
from gradlab.runs.probe.results import ProbeRun
from gradlab.verdicts.phrases import capital
from gradlab.verdicts.sentence import Sentence
from gradlab.wording import percent

WORDS = {"off": "not looked at", "waiting": "open", "fault": "fault"}


def cause(run: ProbeRun) -> tuple[str, str, int] | None:
    """Kind, words and first step of the likeliest cause that a check has proved; None: none."""
    kinds = [str(each) for each in run.alarms.get("alarm", ())]
    kind = next((each for each in CAUSES if each in kinds), None)
    if kind is None:
        return None
    newest = len(kinds) - 1 - kinds[::-1].index(kind)
    words = capital(str(run.alarms["message"][newest]))
    return kind, words, int(run.alarms["step"][kinds.index(kind)])


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
    text = f"{capital(of('check'))}: {WORDS.get(state, 'yes')}, {of('proof')}"
    share = float(of("seconds")) / elapsed if elapsed > 0 else np.nan
    if looks and np.isfinite(share):
        text += f"; {looks} looks, {percent(share)} of the time"
    return Sentence("part", state in ("sound", "fault"), f"{text}.")
