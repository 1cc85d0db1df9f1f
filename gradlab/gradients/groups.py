"""Sums over groups of samples, in the order of their labels everywhere."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradlab.gradients.starts import Starts
from gradlab.statistics.strata import Strata

Floats = NDArray[np.float64]


def grouping(begin: Starts) -> tuple[Tensor, Floats]:
    """Group labels 0 … G − 1 of the samples, and the size of each group."""
    _, label, size = np.unique(begin.group.cpu().numpy(), return_inverse=True, return_counts=True)
    return torch.from_numpy(label).to(begin.group.device), size.astype(np.float64)


def group_sums(x: Tensor, label: Tensor) -> Tensor:
    """[N, P] → [G, P], in the order of the labels."""
    if torch.equal(label, torch.arange(len(x), device=label.device)):
        return x
    return x.new_zeros(int(label.max()) + 1, x.shape[1]).index_add_(0, label, x)


def stratum_rows(
    strata: Strata | None, rows: slice = slice(None), samples: int = 1
) -> list[Tensor | slice]:
    """Which of some groups belong to each stratum, or which of their samples."""
    if strata is None:
        return [slice(None)]
    label = torch.from_numpy(strata.label[rows]).repeat_interleave(samples)
    return [(label == h).nonzero()[:, 0] for h in range(len(strata.times))]


def exchangeable(
    x: Tensor, strata: Strata | None, sums: Tensor | None = None, rows: slice = slice(None)
) -> Tensor:
    """Some of the groups' sums [n, ...], weights included, as those of exchangeable groups.

    Args:
        sums: [H, ...], over all groups of each stratum; None: x has all of them.
    """
    if strata is None:
        return x
    if sums is None:
        sums = torch.stack([x[here].sum(dim=0) for here in stratum_rows(strata)])
    label = torch.from_numpy(strata.label[rows])
    stretch, shift = (torch.from_numpy(part).to(x) for part in (strata.stretch, strata.shift))
    moved = torch.einsum("hk,k...->h...", shift, sums)
    return stretch[label].reshape(-1, *[1] * (x.ndim - 1)) * x + moved[label]


def by_group(values: Tensor, label: Tensor) -> Floats:
    """[K, N] → [K, G], in the order of the labels."""
    groups = int(label.max()) + 1
    result = values.new_zeros(values.shape[0], groups).index_add_(1, label, values)
    return np.asarray(result.detach().cpu().numpy(), dtype=np.float64)


def group_count(group: Tensor) -> int:
    """How many independent groups there are among labels [N]."""
    return int(torch.unique(group).numel())
