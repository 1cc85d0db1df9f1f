"""Seeds that leave the finite numbers, and critics that promise more than any rewards can sum to.

Networks that were good are remembered as training goes on: a saved state may be too old or too late
to tell how a seed came to be lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np

from gradlab.errors import Failure
from gradlab.storage.journal import Journal
from gradlab.training import checkpoints
from gradlab.training.recording import divergence, excess
from gradlab.training.weights import Floats

if TYPE_CHECKING:
    from gradlab.training.run import Run

EXCESS = 10  # times the largest discounted sum of rewards: a mean value that has diverged


class Diverged(Failure):
    """Every seed has left the finite numbers; says which quantity went first and where."""


@final
class Health:
    """State: which seeds are lost, whose values are excessive, and the last good networks."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.lost = np.zeros(run.settings.seeds, dtype=bool)
        self.excessive = np.zeros(run.settings.seeds, dtype=bool)
        self.good = 0, run.learner.policy.copied(), run.learner.critic.copied()

    @property
    def sound(self) -> bool:
        """Has a seed that was not given up finite networks?"""
        return bool((self.run.learner.finite() & ~self.lost).any())

    def note_good(self) -> None:
        """Remember networks that are finite."""
        learner = self.run.learner
        if bool((learner.finite() | self.lost).all()):
            self.good = self.run.iteration, learner.policy.copied(), learner.critic.copied()

    def report(self, path: Path, journal: Journal, value: Floats) -> None:
        """Events of the window that ended; `value`: mean critic values in it, [E]."""
        self._report_divergence(path, journal)
        self._report_excess(value, journal)
        self.note_good()

    def _report_divergence(self, path: Path, journal: Journal) -> None:
        """Note each seed that leaves the finite numbers; give up when none is left."""
        run = self.run
        fresh = [member for member in run.window.told if not self.lost[member]]
        for member in fresh:
            kept = checkpoints.keep_good(path, run, member)
            told = f"; its networks after {self.good[0]} iterations are kept in {kept}"
            journal.append("events", divergence(run, member, told))
            self.lost[member] = True
        if self.lost.all():
            seeds = "the seed" if len(self.lost) == 1 else "every seed"
            first = divergence(run, fresh[0], "")["message"]
            raise Diverged(
                f"{seeds} diverged by iteration {run.iteration}: {first}; the last good networks "
                f"are in {checkpoints.good_folder(path)}"
            )

    def _report_excess(self, value: Floats, journal: Journal) -> None:
        """Note each seed whose values no rewards can sum to: Adam's steps keep what diverges finite
        for long, so that the critic is wrong well before anything overflows."""
        run = self.run
        scale = run.settings.reward_scale / (1 - run.task.discount)
        bound = scale * run.replay.largest_reward().double().cpu().numpy()
        limit = EXCESS * np.maximum(bound, 1.0)  # fresh networks say about 1 before any reward
        for member in np.flatnonzero((np.abs(value) > limit) & ~self.excessive):
            journal.append("events", excess(run, int(member), value[member], bound[member]))
            self.excessive[member] = True
