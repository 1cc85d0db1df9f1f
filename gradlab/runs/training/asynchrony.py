"""What the processes of an asynchronous training did, over the whole run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gradlab.runs.training.results import Training

_Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Asynchrony:
    """Of all rows together.

    Attributes:
        critic, policy: gradients that had each lag when they were applied, [lags]; the last counts
            longer ones, too.
        mean, largest: lag of the policy's gradients, in steps of the policy.
        rate: updates per second; busy: share of the time that each learner computed, [learners].
        gradients: of each learner, [learners]; steps: of each actor's environments, [actors].
        died: processes that were replaced.
    """

    critic: _Floats
    policy: _Floats
    mean: float
    largest: int
    rate: float
    busy: _Floats
    gradients: _Floats
    steps: _Floats
    died: int

    def at_most(self, share: float) -> int:
        """The lag that as large a share of the policy's gradients does not exceed."""
        return lag_at_most(self.policy, share)


def lag_at_most(counts: _Floats, share: float) -> int:
    """The lag that as large a share does not exceed, of the counts [lags] of each."""
    return int(np.searchsorted(counts.cumsum(), share * counts.sum()))


def asynchrony(run: Training) -> Asynchrony | None:
    """None where the run was in one process, or has no row yet."""
    rows = run.asynchrony
    if not rows:
        return None
    policy = rows["policy_lag"]
    counts = policy.sum(axis=1)
    # Of a run that was resumed, `replaced` begins anew: it falls where it does.
    died = np.diff(rows["replaced"], prepend=0.0)
    seconds = float(rows["seconds"][-1])
    return Asynchrony(
        critic=rows["critic_lag"].sum(axis=0),
        policy=policy.sum(axis=0),
        mean=float(np.nansum(rows["mean_lag"] * counts) / max(counts.sum(), 1)),
        largest=int(np.nanmax(np.append(rows["largest_lag"], 0))),
        rate=float(rows["iteration"][-1] / seconds) if seconds > 0 else float("nan"),
        busy=rows["learner_seconds"].sum(axis=0) / seconds if seconds > 0 else rows["seconds"][:0],
        gradients=rows["learner_gradients"].sum(axis=0),
        steps=rows["actor_steps"].sum(axis=0),
        died=int(np.where(died < 0, rows["replaced"], died).sum()),
    )
