"""Seeds that leave the finite numbers, and critics whose values exceed any sum of rewards.

The last finite networks are kept in memory as training goes on: a saved state may be too old or too
late to show how a seed came to be lost.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gradlab.errors import Failure
from gradlab.storage.journal import Journal
from gradlab.training import checkpoints
from gradlab.training.parts.weights import Floats
from gradlab.training.recording import divergence, excess
from gradlab.training.state import Good, Run

EXCESS = 10  # times the largest discounted sum of rewards: a mean value that has diverged


class Diverged(Failure):
    """Every seed has left the finite numbers; the message names the quantity that went first."""


def note_good(run: Run) -> None:
    """Remember networks that are finite."""
    learner = run.learner
    if bool((learner.finite() | run.lost).all()):
        run.good = Good(run.iteration, *learner.copies())


def report(run: Run, path: Path, journal: Journal, value: Floats) -> None:
    """Events of the window that ended; `value`: mean critic values in it, [E]."""
    _report_divergence(run, path, journal)
    _report_excess(run, value, journal)
    note_good(run)


def _report_divergence(run: Run, path: Path, journal: Journal) -> None:
    """Note each seed that leaves the finite numbers; give up when none is left."""
    fresh = [member for member in run.window.divergences if not run.lost[member]]
    for member in fresh:
        kept = checkpoints.keep_good(path, run, member)
        where = f"; its networks after {run.good.iteration} iterations are kept in {kept}"
        journal.append("events", divergence(run, member, where))
        run.lost[member] = True
    if run.lost.all():
        seeds = "the seed" if len(run.lost) == 1 else "every seed"
        first = divergence(run, fresh[0], "")["message"]
        raise Diverged(
            f"{seeds} diverged by iteration {run.iteration}: {first}; the last good networks "
            f"are in {checkpoints.good_folder(path)}"
        )


def _report_excess(run: Run, value: Floats, journal: Journal) -> None:
    """Note each seed whose values no rewards can sum to: Adam's steps keep what diverges finite
    for long, so that the critic is wrong well before anything overflows."""
    scale = run.settings.reward_scale / (1 - run.task.discount)
    bound = scale * run.replay.largest_reward().double().cpu().numpy()
    limit = EXCESS * np.maximum(bound, 1.0)  # fresh networks give about 1 before any reward
    for member in np.flatnonzero((np.abs(value) > limit) & ~run.excessive):
        journal.append("events", excess(run, int(member), value[member], bound[member]))
        run.excessive[member] = True
