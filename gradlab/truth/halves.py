"""Where a truth is cut is chosen by one half of the starts and judged by the other.

The longest T at which a sample is precise is one at which that sample happens to look precise: its
own standard error there is too small. So groups 0, 2, 4, … (of each stratum) choose T, with a
margin (`AIM`) since their relative standard error is an estimate, and groups 1, 3, 5, … say what
norm and error are there. Both errors are those of all starts, √½ of a half's. The mean itself is
that of all starts, with which every estimator is paired.

A squared error is a mean of few large squares where tails are heavy, and then mostly too small: it
is taken at its upper end, two of its own standard errors above (`Precision.doubt`), by either half.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradlab.gradients.groups import grouping
from gradlab.gradients.policy_jacobian import PolicyJacobian
from gradlab.gradients.starts import Starts
from gradlab.truth.agreement import AIM, Judged, Precision, Reference, precision_of, sweep_precision

FEWEST = 8  # groups that are split
ABOVE = 2.0  # standard errors of the squared error


@dataclass(frozen=True)
class Halves:
    """Precision at every truncation by the half that chooses, and by the one that judges."""

    choosing: Precision
    judging: Precision

    def chosen(self, judged: Judged) -> Tensor:
        """[T], where the choosing half finds the mean precise and differences agree."""
        return self.choosing.within(AIM) & (judged.discrepancy <= 1.0)

    def at(self, judged: Judged, T: int) -> Reference:
        """The reference at a chosen T, with the norm and the error of the judging half."""
        return replace(judged, precision=self.judging).at(T)


def halves_of_sweep(judged: Judged, jacobian: PolicyJacobian, starts: Starts) -> Halves:
    """Of first-action gradients [T, N, da] of every truncation."""
    sweep = judged.gradients

    def precision(rows: Tensor, few: Starts) -> Precision:
        return sweep_precision(sweep[:, rows], jacobian.rows(rows), few)

    return _halves(judged, starts, precision)


def halves_of_gradients(judged: Judged, starts: Starts) -> Halves:
    """Of gradients [1, N, P] of one truncation."""
    G = judged.gradients[0]
    return _halves(judged, starts, lambda rows, few: precision_of(G[rows], few))


def _halves(
    judged: Judged, starts: Starts, precision: Callable[[Tensor, Starts], Precision]
) -> Halves:
    """How squares are spread is a matter of all starts: a half has too few."""
    label, size = grouping(starts)
    half_of = label % 2 if starts.strata is None else torch.from_numpy(starts.strata.rank % 2)
    if len(size) < FEWEST:
        return Halves(judged.precision, judged.precision)
    parts = []
    for half in (0, 1):
        rows = (half_of == half).nonzero().flatten()
        strata = None if starts.strata is None else starts.strata.some((half_of == half).numpy())
        few = Starts(starts.states[rows], starts.weight[rows], starts.group[rows], strata=strata)
        mine = precision(rows, few)
        error = mine.error / 2**0.5 * upper(mine.doubt)
        parts.append(replace(mine, error=error, concentration=judged.precision.concentration))
    return Halves(*parts)


def upper(doubt: Tensor) -> Tensor:
    """By what an error is multiplied that is taken at its upper end."""
    return (1 + ABOVE * doubt).sqrt()
