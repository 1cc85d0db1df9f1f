"""The alarm about returns: the newest windows of episodes lie below the loop's first one.

A sound loop's return falls, too: below its best for a while, and below its begin in the first
hundreds of updates. What is alarming is a return below its begin in `IN_A_ROW` windows in a row,
none of which rose, over 250 updates each or more. One window, or one step, never is.

    t = (J̄_first − J̄_newest) / √(v/n + v/3n),   v the larger of both variances

since a rare low return may be missing in one of them. All tests compare with the same first window,
whose error they share: at `LEVEL` each, a return that stays is found to have fallen in at most 0.3%
of runs of a hundred windows (normal, t3, log-normal and with rare low ones, 2,000 runs each).
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from gradlab.probe.alarms.evidence import Alarm
from gradlab.runs.probe.returns import LEAST, Returns
from gradlab.statistics.intervals import student
from gradlab.wording import two

IN_A_ROW = 3
LEVEL = 0.999
KIND = "falling return"
CHECK = "check the signs of the reward and of the actor's loss, and the critic's targets"


def fallen(returns: Returns, table: str) -> Alarm | None:
    """The alarm that the newest window raises.

    Args:
        table: "returns" or "episodes", whose they are.
    """
    means, newest = returns.windows, returns.changes(IN_A_ROW)
    if len(newest) < IN_A_ROW or any(each.direction == "rose" for each in newest):
        return None
    if any(each.updates < LEAST or not each.mean < means[0].mean() for each in newest):
        return None
    first, last = means[0], np.concatenate(means[-IN_A_ROW:])
    lower = float(first.mean() - last.mean())
    worst = max(float(each.var(ddof=1)) for each in (first, last))
    half = student(len(first) - 1, LEVEL) * sqrt(worst / len(first) + worst / len(last))
    if not lower > half:
        return None
    what = "policy" if table == "returns" else "training episodes"
    was, now = (two(float(each.mean())) for each in (first, means[-1]))
    text = (
        f"the return of the {what} was {was} at the begin and is {now}; it has been lower by "
        f"{two(lower)} ± {two(half)} in {IN_A_ROW} windows of about {newest[-1].updates:,} "
        f"updates, and did not rise in any: {CHECK}"
    )
    return Alarm(KIND, text.replace("-", "−"))
