"""A measurement in stages, each of which adds to what the stages before it found.

Stopped in one of them it ends with `Interrupted`, whose profile lacks that stage and those after
it, is saved and read like any other, and names the stage in `config["interrupted"]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from gradlab.findings import Finding
from gradlab.runs.long_table import LongTable
from gradlab.runs.profile import Profile

REMEDY = 0.01  # the share that is proposed where starts have tails


def trimmed_share(config: Mapping[str, Any]) -> float:
    """The share of the starts that is left out; 0 for the task's own law."""
    parameters = config.get("task_parameters")
    return float(parameters.get("trim_starts", 0)) if isinstance(parameters, Mapping) else 0.0


def central(share: float) -> str:
    """What is left, as "central 99%"."""
    return f"central {100 * (1 - share):.4g}%"


Stage = Callable[[Profile], Profile]
_BOTH = "wall_seconds", "measured_seconds"
_Run = TypeVar("_Run", bound=Profile | LongTable)


class Interrupted(KeyboardInterrupt):
    """A measurement was stopped in `stage`; `profile` is what the stages before it found."""

    def __init__(self, stage: str, profile: Profile) -> None:
        super().__init__(f"stopped in {stage}")
        self.stage, self.profile = stage, profile


def completed(profile: Profile, stages: Mapping[str, Stage], begun: float) -> Profile:
    """The profile after every stage, with the seconds since `begun` (`time.monotonic`).

    Raises:
        Interrupted: instead of KeyboardInterrupt.
    """
    for stage, add in stages.items():
        try:
            profile = add(profile)
        except KeyboardInterrupt as stop:
            config = {**profile.config, "interrupted": stage}
            profile = timed(replace(profile, config=config), begun, *_BOTH)
            raise Interrupted(stage, profile) from stop
    return timed(profile, begun, *_BOTH)


def notices(config: Mapping[str, Any]) -> tuple[Finding, ...]:
    """What stands before everything else about a run: that it was interrupted, that starts were
    equal or trimmed."""
    stage, share = config.get("interrupted"), trimmed_share(config)
    rows, starts = (int(config.get(each) or 0) for each in ("rows", "starts"))
    same: dict[str, Any] = {"value": rows - starts, "threshold": rows, "n": starts}
    found = {
        Finding("interrupted", "fail", str(stage)): stage,
        Finding("starts_repeat", "pass", **same): rows,
        Finding("starts_trimmed", "pass", at=central(share)): share,
    }
    return tuple(each for each, holds in found.items() if holds)


def timed(run: _Run, begun: float, *names: str) -> _Run:
    """With the seconds since `begun`: "wall_seconds" of the whole run, networks that it fitted
    included, "measured_seconds" of the measurement alone."""
    seconds = f"{time.monotonic() - begun:.1f}"
    return replace(run, environment={**run.environment, **dict.fromkeys(names, seconds)})
