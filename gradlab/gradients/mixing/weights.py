"""Weights of the first order at each action, fitted to a pilot that shares no noise with samples.

    w = v₀ / (v₀ + v₁)      v₁, v₀ sample variances of both orders over the pilot

The pilot is 256 paths from the measured starts, each start as often as any other, on streams of its
own. Weights and baselines then are constants of the samples, which stay independent, and a mixture
of two unbiased orders is unbiased given the starts. (A training update fits them to the batch that
it weighs; what that adds, of order 1/N′, is not in here.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from gradlab.data.noise import child
from gradlab.gradients.courses import Asked, Choices
from gradlab.gradients.mixing.nodes import Baseline, Nodes, fitted_baseline, nodes
from gradlab.gradients.starts import Starts

PILOT, SPREAD = 256, 64  # paths; any leading 64 of them are spread over the starts


@dataclass(frozen=True)
class Fit:
    """Shares of the first order [K, H + 1, 2 da], or [K, H + 1, 1], and the zeroth's baseline."""

    shares: Tensor
    baseline: Baseline


Rule = Callable[[Nodes, Tensor, Asked], Tensor]  # nodes, advantage, pilot → shares


def fitted(estimator: Choices, requested: Asked, rule: Rule) -> Fit:
    """Weights of an estimator, made once for all blocks of a batch."""
    starts = requested.starts
    whole = starts if starts.whole is None else starts.whole
    versions = [p._version for p in requested.policy.parameters()]  # trained in place
    key = (id(estimator), id(requested.policy), str((*requested[2:], versions)))
    if key not in whole.fits:
        asked = requested._replace(
            starts=_pilot(whole, starts.states), seed=child(requested.seed, "pilot")
        )
        # Whatever the key names by its address has to live as long as the fit.
        whole.fits[key] = (estimator, requested.policy, _fit(estimator, asked, rule))
    found = whole.fits[key][2]
    assert isinstance(found, Fit)
    return found


def _fit(estimator: Choices, pilot: Asked, rule: Rule) -> Fit:
    here = nodes(estimator, pilot, None)
    baseline = fitted_baseline(here.linear.path.states, here.to_go)
    return Fit(rule(here, here.advantage(baseline), pilot), baseline)


def _pilot(whole: Starts, like: Tensor) -> Starts:
    rows = torch.arange(PILOT) * len(whole.states) // PILOT
    rows = rows.reshape(SPREAD, -1).T.flatten()
    return Starts(whole.states[rows].to(like), whole.weight[rows].to(like), torch.arange(PILOT))


def share_of_first(v0: Tensor, v1: Tensor) -> Tensor:
    """v₀/(v₀ + v₁); an order without variance takes all, the first one where both have none, and
    one whose variance is not finite nothing."""
    share = torch.where(v0 + v1 > 0, v0 / (v0 + v1), 1.0)
    share = torch.where(v0.isfinite(), share, 1.0)
    return torch.where(v1.isfinite(), share, 0.0)


def mixed(share: Tensor, first: Tensor, zeroth: Tensor) -> Tensor:
    """Both orders' signals; one of no weight may be infinite."""
    both = share * first + (1 - share) * zeroth
    return torch.where(share == 0, zeroth, torch.where(share == 1, first, both))
