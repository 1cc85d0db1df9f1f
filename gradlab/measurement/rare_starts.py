"""What starts that are rarer than any of the sample add to the variance.

A standard error is made of the starts at hand. Where the law has tails, much of the variance may be
carried by starts so rare that N of them hold none, and the interval that they give is too low and
too narrow at once; no statistic of the sample itself shows that (the largest of 64 squared norms
hardly tells Student's t with 4.5 degrees of freedom from a Gaussian). The law can be asked instead:

    pool      2 N E starts, far more than were measured
    rare      the E of them that are farthest from the mean by Mahalanobis' distance: a stratum of
              probability p = 1/(2N), in which a sample of N has half a start
    share     p E[|G − μ|² | rare] / (p E[|G − μ|² | rare] + E |G − μ|²)

from gradients at those E starts, all else equal. |G − μ| at a rare start is at least |G| − |μ|,
with |G| the root of the mean square: the share is a lower one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gradlab.data.noise import child, stream
from gradlab.gradients.starts import Starts
from gradlab.measurement.moments.inner_products import Cells, Measured, estimator_moments
from gradlab.measurement.moments.visited import objective_moments
from gradlab.measurement.problem import Problem
from gradlab.runs.check_results import RARE, CheckResult
from gradlab.statistics.moments import Moments, pair_mean, second_moment
from gradlab.tasks import Task
from gradlab.truth.truth import Truth

RARE_STARTS = 32  # E: gradients of so many are taken
LARGEST_POOL = 1 << 17  # starts that are drawn at most
SHARE = 0.2  # of the variance, from which on its interval is not believed


def rare_starts(posed: Problem, truth: Truth, measured: Measured) -> tuple[CheckResult, ...]:
    """The check; none where the law of what was measured is not that of the starts, or has one."""
    if not posed.drawn or not (posed.objective or posed.law == "start"):
        return ()
    n = measured.starts
    rare = farthest(posed.task, n, posed.setting.seed)
    if rare is None:
        return ()
    cells = _moments(posed, truth, rare)
    shares = {
        key: share(measured.cells[key], cells[key], n) for key in measured.cells if key in cells
    }
    return (_result(shares, n),)


def farthest(task: Task, n: int, seed: int) -> Tensor | None:
    """The stratum, [E, ds]; None where every start is the same."""
    size = min(2 * n * RARE_STARTS, LARGEST_POOL)
    pool = task.starts(size, stream(child(seed, "rare starts"), "starts")).double()
    if (pool == pool[0]).all():
        return None
    away = pool - pool.mean(dim=0)
    covariance = away.T @ away / size
    distance = ((away @ torch.linalg.pinv(covariance, hermitian=True)) * away).sum(dim=1)
    return pool[distance.topk(RARE_STARTS).indices]


def share(common: Moments, rare: Moments, n: int) -> float:
    """Of the variance of one cell, that starts rarer than 1 in 2 N carry; NaN where it is lost."""
    mean2 = max(pair_mean(common.gradient, common.size).value, 0.0)
    variance = second_moment(common).value - mean2
    beyond = max(second_moment(rare).value ** 0.5 - mean2**0.5, 0.0) ** 2 / (2 * n)
    total = beyond + max(variance, 0.0)
    return beyond / total if np.isfinite(total) and total > 0 else float("nan")


def _moments(posed: Problem, truth: Truth, rare: Tensor) -> Cells:
    """Of every estimator at the rare starts; biases are not asked about."""
    ones = torch.ones(len(rare), dtype=torch.float64)
    setting = replace(posed.setting, starts=Starts(rare, ones, torch.arange(len(rare))))
    blank = replace(truth, path=None, first=None, every=None)
    if not posed.objective:
        return estimator_moments(posed.chosen, setting, blank).cells
    if truth.every is not None:  # says for how long states are visited
        zeros = torch.zeros(len(rare), truth.every.gradients.shape[1], dtype=torch.float64)
        blank = replace(blank, every=replace(truth.every, gradients=zeros))
    return objective_moments(posed.chosen, setting, blank).cells


def _result(shares: Mapping[tuple[str, int], float], n: int) -> CheckResult:
    finite = {key: value for key, value in shares.items() if np.isfinite(value)}
    heavy = sorted((key for key, value in finite.items() if value > SHARE))
    most = max(finite, key=lambda key: finite[key], default=None)
    if most is None:
        return CheckResult(RARE, "no gradient is finite at them", "nothing can be said", True)
    where = f"{most[0]}, h = {most[1]}"
    result = (
        f"starts rarer than 1 in {2 * n} carry up to {finite[most]:.0%} of a variance ({where})"
    )
    if not heavy:
        return CheckResult(RARE, result, f"{n} starts measure variances and errors", True)
    names = ", ".join(dict.fromkeys(name for name, _ in heavy))
    meaning = (
        f"variance, mean squared error and what follows from them are not reliable at this N for "
        f"{len(heavy)} of {len(finite)} cells ({names}): more starts or a narrower start law would "
        f"help; signs, directions and gains are"
    )
    return CheckResult(RARE, result, meaning, False)
