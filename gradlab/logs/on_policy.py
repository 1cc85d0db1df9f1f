"""Test of the noise behind recorded actions: whether this policy took them.

    ε_t with π_θ(s_t, ε_t) = a_t          on policy: standard normal, whatever the state

A score or a pathwise gradient of data from another policy is a gradient of nothing. Per action:
mean and spread of ε, the largest distance of its distribution from the normal one (Kolmogorov and
Smirnov), and the share of its variance that the state explains (0 if the policy is the one): an
older policy differs there first. Rows are independent where the policy is the right one, so that
the tests are exact under what they test; they are corrected for their number (Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradlab.errors import InputError
from gradlab.logs.features import features
from gradlab.networks.interface import noise_dim
from gradlab.networks.policies import check_stochastic

LEVEL = 1e-3  # of all tests together: below, the data are called off policy
SPREADS = (0.5, 2.0)  # of ε, beyond which a gradient of these data means nothing
FARTHEST = 1.0  # |mean ε|, likewise
EXPLAINED = 0.5  # share of ε's variance that the state explains, likewise
TESTS = ("mean", "spread", "distribution", "state")

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Residuals:
    """Statistics of the residuals ε of `rows` transitions, [da] each.

    Attributes:
        mean, spread: with standard errors mean_se, spread_se.
        distance: Kolmogorov and Smirnov's; explained: adjusted share of variance, may be below 0.
        p: smallest p-value of each action over the four tests.
    """

    rows: int
    mean: Array
    mean_se: Array
    spread: Array
    spread_se: Array
    distance: Array
    explained: Array
    p: Array

    @property
    def p_value(self) -> float:
        """P-value of the hypothesis that the policy took the actions, corrected for all tests."""
        return float(min(1.0, len(TESTS) * len(self.p) * self.p.min()))

    @property
    def on_policy(self) -> bool:
        return self.p_value >= LEVEL

    @property
    def far(self) -> bool:
        """Whether the actions are so far off that the data are of another policy."""
        low, high = SPREADS
        return bool(
            (self.spread < low).any()
            or (self.spread > high).any()
            or (np.abs(self.mean) > FARTHEST).any()
            or (self.explained > EXPLAINED).any()
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


def described(noise: Array, inferred: Array) -> Residuals:
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
