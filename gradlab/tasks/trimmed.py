"""A task whose starts are those near the middle of its law: another law, and another question.

    d(s)² = (s − m)ᵀ C⁺ (s − m)      m, C: mean and covariance of 65,536 starts of the law
    region   d(s) ≤ q                q: the (1 − share)-quantile of their d
    law      starts of the task, drawn again until they lie in the region

The region rests on draws of its own and on no seed of a measurement, so that the expectation over
this law is one number. It is one ellipsoid for all coordinates: boxes of quantiles would leave out
more the more coordinates there are. What lies beyond is left out, not moved to the edge (trimmed,
not winsorised: Huber & Ronchetti 2009, Robust Statistics, 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradlab import validation
from gradlab.data.noise import child, stream
from gradlab.errors import InputError
from gradlab.tasks.task import Starts, Task

POOL = 1 << 16  # starts that fix the region
MOST = 0.5  # share from which on the middle is the smaller part
ROUNDS = 100  # of drawing again what is missing


@dataclass(frozen=True, eq=False)
class Trimmed:
    """(n, generator) → [n, ds], starts of `law` within the region."""

    law: Starts
    mean: Tensor
    precision: Tensor
    radius: float

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        kept = self._inside(self.law(n, generator))
        for _ in range(ROUNDS):
            if len(kept) >= n:
                return kept[:n]
            more = self.law(max(2 * (n - len(kept)), 16), generator)
            kept = torch.cat([kept, self._inside(more)])
        raise InputError(
            f"starts gave {len(kept)} of {n} that are not trimmed, in {ROUNDS + 1} draws: leave "
            f"trim_starts out, or let starts draw from the generator"
        )

    def _inside(self, states: Tensor) -> Tensor:
        return states[distances(states, self.mean, self.precision) <= self.radius]


def distances(states: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Mahalanobis distances [N] of states [N, ds]."""
    away = states - mean
    return ((away @ precision) * away).sum(dim=1).clamp(min=0.0).sqrt()


def spread(states: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [ds] and inverse covariance [ds, ds] of states, 0 along what does not vary."""
    mean = states.mean(dim=0)
    away = states - mean
    return mean, torch.linalg.pinv(away.T @ away / len(states), hermitian=True)


def trimmed(task: Task, share: float) -> Task:
    """The task without the `share` of its starts that is farthest from their mean.

    Raises:
        InputError: the share is not above 0 and below ½, or the starts differ too little for it.
    """
    validation.instance("task", task, Task, "a gradlab.Task")
    share = validation.number("trim_starts", share, f"a number from 0 to {MOST}")
    if not 0 < share < MOST:
        raise InputError(f"trim_starts is {share:g}, expected a share above 0 and below {MOST}")
    pool = task.starts(POOL, stream(child(0, "trimmed starts"), "starts"))
    mean, precision = spread(pool)
    d = distances(pool, mean, precision)
    radius = float(d.sort().values[int((1 - share) * POOL) - 1])
    outside = float((d > radius).double().mean())
    if not outside > share / 2:
        raise InputError(
            f"trim_starts is {share:g}, but no {share:.2g} of the starts of {task.name} is farther "
            f"from their mean than all others: leave it out"
        )
    law = Trimmed(task.starts, mean, precision, radius)
    return replace(task, starts=law, parameters={**task.parameters, "trim_starts": share})
