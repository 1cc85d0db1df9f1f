"""A critic tested on a record: by its Bellman residual and by observed returns.

    residual   δ_t = r_t + γ Q(s_{t+1}, a_{t+1}) − Q(s_t, a_t)         on policy E δ = 0
    returns    y = Σ_{k<m} γᵏ r_k + γᵐ Q(s_m, a_m), m = T − 1           γᵐ of it is the critic's own
    offset     E (Q(s_0, a_0) − y)
    slope      of y on Q(s_0, a_0): 1 where the critic's differences are those of returns
    beyond     share of values outside of min r/(1 − γ) … max r/(1 − γ), r the rewards seen

Residual and offset are over Q's own standard deviation. δ² holds the noise of the transition: its
size is no error by itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.networks.critics import judge
from gradlab.statistics.intervals import Interval, jackknife_se, skewness_corrected
from gradlab.statistics.moments import Estimate, combine, sample_mean
from gradlab.statistics.over_groups import group_sums

Array = NDArray[np.float64]
Judged = Mapping[str, tuple[Estimate, Interval]]


def judged(critic: nn.Module, path: Path, discount: float) -> Judged:
    """residual, residual_size (root mean square), beyond, and from T = 2 on offset and slope.

    Args:
        critic: Q, float64; path: windows of T steps, NaN where no action was recorded.
    """
    recorded = torch.isfinite(path.actions).all(dim=2) & path.alive
    with torch.no_grad():
        flat = path.states.flatten(0, 1), path.actions.nan_to_num(0.0).flatten(0, 1)
        Q = torch.where(recorded, judge(critic, "Q", *flat).reshape(recorded.shape), 0.0)
    # A step counts where the next action is known too, or nothing comes next.
    steps = recorded[:-1] & (recorded[1:] | ~path.alive[1:])
    delta = torch.where(steps, path.rewards + discount * Q[1:] - Q[:-1], 0.0)
    low, high = return_bound(path, discount)
    group = path.group.numpy()

    def mean(values: Tensor, counted: Tensor) -> Estimate:
        sums = [group_sums(x.double().sum(dim=0).numpy(), group) for x in (values, counted)]
        return sample_mean(sums[0], sums[1])

    centre, square = mean(Q, recorded), mean(Q.square(), recorded)
    residual, size = mean(delta, steps), mean(delta.square(), steps)
    outside = mean(recorded & ((low > Q) | (high < Q)), recorded)
    results = {
        "residual": combine(lambda d, q, qq: d / _spread(q, qq), residual, centre, square),
        "residual_size": combine(
            lambda d, q, qq: np.sqrt(d) / _spread(q, qq), size, centre, square
        ),
        "beyond": outside,
    }
    if path.horizon > 1:
        results |= _calibration(path.rewards, Q, recorded, discount, group)
    return {name: (result, _interval(result)) for name, result in results.items()}


def return_bound(path: Path, discount: float) -> tuple[float, float]:
    """Smallest and largest return of the rewards seen; 0 is among them where episodes end."""
    seen = path.rewards[path.alive[:-1]]
    least, most = float(seen.min()), float(seen.max())
    if not bool(path.alive.all()):
        least, most = min(least, 0.0), max(most, 0.0)
    if discount == 1.0:
        return -np.inf, np.inf
    return least / (1 - discount), most / (1 - discount)


def _calibration(
    rewards: Tensor, Q: Tensor, usable: Tensor, discount: float, group: NDArray[np.int64]
) -> dict[str, Estimate]:
    m = len(rewards) - 1
    gamma = discount ** torch.arange(m, dtype=Q.dtype)[:, None]
    y, q = ((gamma * rewards[:m]).sum(dim=0) + discount**m * Q[m], Q[0])
    size = group_sums(usable[0].double().numpy(), group)
    parts = (q, q * q, y, q * y)
    means = [
        sample_mean(group_sums(torch.where(usable[0], part, 0.0).numpy(), group), size)
        for part in parts
    ]
    return {
        "offset": combine(lambda a, aa, b, _: (a - b) / _spread(a, aa), *means),
        "slope": combine(lambda a, aa, b, ab: (ab - a * b) / (aa - a * a), *means),
    }


def _spread(mean: Array, square: Array) -> Array:
    return np.sqrt(np.maximum(square - mean**2, 0.0))


def _interval(estimate: Estimate) -> Interval:
    if not (np.isfinite(estimate.value) and np.isfinite(estimate.left_out).all()):
        return Interval(np.nan, np.nan, np.nan, "undefined")
    low, high = skewness_corrected(estimate)
    return Interval(low, high, jackknife_se(estimate.left_out), "jackknife with skewness")
