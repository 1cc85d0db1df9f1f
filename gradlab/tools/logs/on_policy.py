"""Test of the noise behind recorded actions: whether this policy took them.

    ε_t with π_θ(s_t, ε_t) = a_t          on policy: standard normal, whatever the state

A score or a pathwise gradient of data from another policy is a gradient of nothing. Per action:
mean and spread of ε, the largest distance of its distribution from the normal one (Kolmogorov and
Smirnov), and the share of its variance that the state explains (0 if the policy is the one): an
older policy differs there first. Rows are independent where the policy is the right one, so that
the tests are exact under what they test; they are corrected for their number (Bonferroni).

A critic tested on a record: by its Bellman residual and by observed returns.

    residual   δ_t = r_t + γ Q(s_{t+1}, a_{t+1}) − Q(s_t, a_t)         on policy E δ = 0
    returns    y = Σ_{k<m} γᵏ r_k + γᵐ Q(s_m, a_m), m = T − 1           γᵐ of it is the critic's own
    offset     E (Q(s_0, a_0) − y)
    slope      of y on Q(s_0, a_0): 1 where the critic's differences are those of returns
    beyond     share of values outside of min r/(1 − γ) … max r/(1 − γ), r the rewards seen

Residual and offset are over Q's own standard deviation. δ² holds the noise of the transition: its
size is no error by itself.

Linear regression on simple functions of the state: 1, s, and the products s_i s_j.

Standardised, and no more than the rows support: products are left out where there are fewer
than ten rows for each, then the states themselves. Exact for linear-quadratic values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.data.path import Path
from gradlab.errors import InputError
from gradlab.networks.interface import noise_dim
from gradlab.networks.mlp import judge
from gradlab.networks.policies import check_stochastic
from gradlab.statistics.intervals import Interval, jackknife_se, skewness_corrected
from gradlab.statistics.moments import Estimate, combine, sample_mean
from gradlab.statistics.over_groups import group_sums

_ROWS_PER_FEATURE = 10
_ROUNDING = 1e-9  # of a column's largest value
_RIDGE = 1e-6  # of the mean square of a feature: keeps constant and repeated columns solvable


def features(state: Tensor, rows: int | None = None) -> Tensor:
    """[M, F] of states [M, ds], the constant first.

    Args:
        rows: that the regression will have; None: M.
    """
    rows = len(state) if rows is None else rows
    x = ((state - state.mean(dim=0)) / state.std(dim=0))[:, ~constant(state)]
    width = x.shape[1]
    one = torch.ones_like(state[:, :1])
    i, j = torch.triu_indices(width, width)
    if rows >= _ROWS_PER_FEATURE * (1 + width + len(i)):
        return torch.cat([one, x, x[:, i] * x[:, j]], dim=1)
    return torch.cat([one, x], dim=1) if rows >= _ROWS_PER_FEATURE * (1 + width) else one


def constant(values: Tensor) -> Tensor:
    """Which columns of [M, width] do not vary beyond rounding."""
    return values.std(dim=0) <= _ROUNDING * values.abs().amax(dim=0)


def solved(gram: Tensor, moment: Tensor) -> Tensor:
    """Ridge regression's weights from Σ φφᵀ [..., F, F] and Σ φ y [..., F]."""
    ridge = _RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype)
    weights: Tensor = torch.linalg.solve(gram + ridge[..., None, None] * eye, moment[..., None])
    return weights[..., 0]


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


def _spread(mean: _Array, square: _Array) -> _Array:
    return np.sqrt(np.maximum(square - mean**2, 0.0))


def _interval(estimate: Estimate) -> Interval:
    if not (np.isfinite(estimate.value) and np.isfinite(estimate.left_out).all()):
        return Interval(np.nan, np.nan, np.nan, "undefined")
    low, high = skewness_corrected(estimate)
    return Interval(low, high, jackknife_se(estimate.left_out), "jackknife with skewness")


LEVEL = 1e-3  # of all tests together: below, the data are called off policy
_SPREADS = (0.5, 2.0)  # of ε, beyond which a gradient of these data means nothing
_FARTHEST = 1.0  # |mean ε|, likewise
_EXPLAINED = 0.5  # share of ε's variance that the state explains, likewise
_TESTS = ("mean", "spread", "distribution", "state")

_Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Residuals:
    """Statistics of the residuals ε of `rows` transitions, [da] each.

    Attributes:
        mean, spread: with standard errors mean_se, spread_se.
        distance: Kolmogorov and Smirnov's; explained: adjusted share of variance, may be below 0.
        p: smallest p-value of each action over the four tests.
    """

    rows: int
    mean: _Array
    mean_se: _Array
    spread: _Array
    spread_se: _Array
    distance: _Array
    explained: _Array
    p: _Array

    @property
    def p_value(self) -> float:
        """P-value of the hypothesis that the policy took the actions, corrected for all tests."""
        return float(min(1.0, len(_TESTS) * len(self.p) * self.p.min()))

    @property
    def on_policy(self) -> bool:
        return self.p_value >= LEVEL

    @property
    def far(self) -> bool:
        """Whether the actions are so far off that the data are of another policy."""
        low, high = _SPREADS
        return bool(
            (self.spread < low).any()
            or (self.spread > high).any()
            or (np.abs(self.mean) > _FARTHEST).any()
            or (self.explained > _EXPLAINED).any()
        )


def residuals(policy: nn.Module, state: Tensor, action: Tensor) -> Residuals | None:
    """The policy's own noise behind recorded actions; None for a deterministic policy.

    Args:
        policy: float64; state [M, ds], action [M, da]: every recorded row.

    Raises:
        InputError: the policy cannot have taken the actions at all, or has no density.
    """
    if not noise_dim(policy):
        return None
    check_stochastic(policy)
    with torch.no_grad():
        noise = policy.infer_noise(state, action)  # type: ignore[operator]
    return described(noise.numpy(), features(state).numpy())


def described(noise: _Array, inferred: _Array) -> Residuals:
    """Statistics of ε [M, da], with features of the states [M, F], the constant first."""
    rows, width = inferred.shape
    mean, spread = noise.mean(axis=0), noise.std(axis=0, ddof=1)
    left = noise - inferred @ np.linalg.lstsq(inferred, noise, rcond=None)[0]
    freedom = max(rows - width, 1)
    whole = ((noise - mean) ** 2).sum(axis=0)
    unexplained = (left**2).sum(axis=0)
    explained = 1 - unexplained / freedom * (rows - 1) / whole
    ratio = (whole - unexplained) / max(width - 1, 1) / (unexplained / freedom)
    ks = [scipy.stats.kstest(residuals, "norm") for residuals in noise.T]
    tail = scipy.stats.chi2.cdf((noise**2).sum(axis=0), rows)
    p = np.stack(
        [
            2 * scipy.stats.norm.sf(np.abs(mean) * rows**0.5),
            2 * np.minimum(tail, 1 - tail),
            np.array([test.pvalue for test in ks]),
            scipy.stats.f.sf(ratio, max(width - 1, 1), freedom),
        ]
    )
    return Residuals(
        rows=rows,
        mean=mean,
        mean_se=spread / rows**0.5,
        spread=spread,
        spread_se=spread / (2 * rows) ** 0.5,
        distance=np.array([test.statistic for test in ks]),
        explained=explained,
        p=p.min(axis=0),
    )


def refuse_far(statistics: Residuals, names: tuple[str, ...]) -> None:
    """
    Raises:
        InputError: the actions are not this policy's, with the numbers.
    """
    if not statistics.far:
        return
    parts = "; ".join(
        f"{name}: mean {mean:.2g}, spread {spread:.2g}, state explains {max(explained, 0.0):.0%}"
        for name, mean, spread, explained in zip(
            names, statistics.mean, statistics.spread, statistics.explained, strict=True
        )
    )
    raise InputError(
        f"data is not of this policy: in units of its own noise the actions of {statistics.rows} "
        f"rows have {parts} (on policy: 0, 1, 0%); give the policy and the noise that recorded "
        f"them"
    )
