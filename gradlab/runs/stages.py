"""A measurement in stages, each of which adds to what the stages before it found.

Stopped in one of them it ends with `Interrupted`, whose profile lacks that stage and those after
it, is saved and read like any other, and names the stage in `config["interrupted"]`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gradlab.runs.profile import Profile
from gradlab.runs.trimmed_starts import trimming

Stage = Callable[[Profile], Profile]


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
            raise Interrupted(stage, replace(_timed(profile, begun), config=config)) from stop
    return _timed(profile, begun)


def notice(config: Mapping[str, Any]) -> str:
    """What stands before everything else about a run: that it was interrupted, that starts were
    equal or trimmed; "" where none of these holds."""
    stage, rows, starts = (config.get(key) for key in ("interrupted", "rows", "starts"))
    notices = [f"Interrupted in {stage}: what comes from there on is missing."] if stage else []
    if rows:
        notices.append(
            f"{rows - starts} of {rows} starts repeat others and count once: N = {starts}."
        )
    return " ".join(filter(None, [*notices, trimming(config)]))


def _timed(profile: Profile, begun: float) -> Profile:
    seconds = f"{time.monotonic() - begun:.1f}"
    return replace(profile, environment={**profile.environment, "wall_seconds": seconds})
