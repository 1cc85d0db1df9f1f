"""Variance of a gradient by source: policy noise, dynamics noise and ensemble members.

For a gradient g(s, ε, ξ, m) of the start s, policy noise ε, dynamics noise ξ and members m,

    V = Var_s E[g|s] + E Var_ε E[g|s, ε] + E Var_ξ E[g|s, ε, ξ] + E Var_m g      (total variance)

where what is left once some draws are given follows from pairs that share them (primes: redrawn),

    E Var[g | s, ε, ξ] = ½ E|g − g(m′)|²
    E Var[g | s, ε]    = ½ E|g − g(ξ′, m′)|²
    E Var[g | s]       = ½ E|g − g(ε′, ξ′, m′)|²

and each source of noise adds the difference to the one above. The starts have the rest of V, so
the sum is exact. What is not drawn changes no bit of g, and adds exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from gradlab.gradients import gram
from gradlab.gradients.estimator import Estimator, checked, softened
from gradlab.gradients.groups import by_group, grouping
from gradlab.gradients.setting import Setting
from gradlab.gradients.weighted_terms import carried
from gradlab.statistics.moments import Estimate, sample_mean

DRAWS = ("policy", "dynamics", "member")
NUMBERS = 1 << 23  # of per-sample gradients held at once, for each of the four draws


def added_variance(
    estimator: Estimator, setting: Setting, horizons: Sequence[int]
) -> list[dict[str, Estimate]]:
    """What each of `DRAWS` adds to the trace of the per-sample covariance, at each horizon.

    Args:
        horizons: those of the estimator; its own horizon is not used.

    Raises:
        InputError: the estimator does not fit the policy or the starts.
    """
    begin = checked(estimator, setting.policy, setting.starts, setting.termination)
    plain, policy = softened(estimator, setting.policy)
    plain = replace(plain, tail=replace(plain.tail, horizon=max(horizons)))
    step = max(1, NUMBERS // sum(p.numel() for p in policy.parameters()))
    blocks = [
        _products(plain, replace(setting, policy=policy, starts=rows), tuple(horizons))
        for rows in begin.blocks(step)
    ]
    products = torch.cat(blocks, dim=2)  # [horizons, DRAWS, N]
    label, size = grouping(begin)
    return [
        {
            name: sample_mean(sums, size)
            for name, sums in zip(DRAWS, by_group(of_horizon, label), strict=True)
        }
        for of_horizon in products
    ]


def _products(estimator: Estimator, setting: Setting, horizons: tuple[int, ...]) -> Tensor:
    """What each of `DRAWS` adds to ½|g − g′|² of every sample, [horizons, DRAWS, N]."""
    several = [
        carried(
            estimator, setting.policy, replace(setting.starts, redrawn=redrawn), horizons,
            setting.seed, setting.termination,
        )
        for redrawn in _redrawn()
    ]  # fmt: skip
    added = []
    for k in range(len(horizons)):
        every = [gram.path_gradients(terms.jacobian, terms.costates[k]) for terms in several]
        left = [0.5 * (every[-1] - gradient).square().sum(dim=1) for gradient in every]
        added.append([more - less for more, less in pairwise(left)])
    return torch.stack([torch.stack(shares) for shares in added])


def _redrawn() -> list[frozenset[str]]:
    """All noise, then one source of `DRAWS` less each time, then none."""
    return [frozenset(DRAWS[k:]) for k in range(len(DRAWS) + 1)]
